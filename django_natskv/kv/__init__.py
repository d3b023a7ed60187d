"""The facade: key-value buckets of NATS JetStream, without Django.

Owns the public names of the facade. Knows nothing of settings: a connection is given its own.
"""

from django_natskv.kv.bucket import Bucket
from django_natskv.kv.codecs import Codec
from django_natskv.kv.connection import Connection
from django_natskv.kv.context import KVContext
from django_natskv.kv.entries import BucketConfig, BucketStatus, Deliver, Entry, Operation
from django_natskv.kv.settings import ConnectionSettings, LocalCacheSettings, ReconnectSettings, TLSSettings
from django_natskv.kv.watch import Watch

__all__ = [
    "Bucket",
    "BucketConfig",
    "BucketStatus",
    "Codec",
    "Connection",
    "ConnectionSettings",
    "Deliver",
    "Entry",
    "KVContext",
    "LocalCacheSettings",
    "Operation",
    "ReconnectSettings",
    "TLSSettings",
    "Watch",
]
