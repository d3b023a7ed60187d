"""The wire: the only package that knows nats-py, and the server's API and error codes.

Owns connections, requests and byte-level verbs. Knows nothing of codecs, Django or values.
"""
