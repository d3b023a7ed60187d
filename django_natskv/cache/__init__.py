"""Django's cache on NATS Key/Value.

Owns what a cache keeps in a bucket: the names of its keys and the bytes of its values. Must not know how a bucket is
reached: that is the facade's.
"""
