"""Django's cache on NATS Key/Value.

Owns the name under which settings know it. Must not know how a bucket is reached: that is the facade's.
"""

from django_natskv.cache.backend import NatsKVCache
from django_natskv.cache.extras import CacheEntry
from django_natskv.cache.locks import Lock, LockLostError

__all__ = ["CacheEntry", "Lock", "LockLostError", "NatsKVCache"]
