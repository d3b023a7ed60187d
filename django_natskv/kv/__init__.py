"""The facade: key-value buckets of NATS JetStream, without Django.

Owns the public names of the facade. Knows nothing of settings: a connection is given its own.
"""

from django_natskv.kv._feed import State as LocalCacheState
from django_natskv.kv.bucket import Bucket
from django_natskv.kv.changes import Change
from django_natskv.kv.codecs import Codec
from django_natskv.kv.connection import Connection
from django_natskv.kv.context import KVContext
from django_natskv.kv.entries import BucketConfig, BucketHealth, BucketStatus, Deliver, Entry, Operation, Replica
from django_natskv.kv.listener import Listener
from django_natskv.kv.local import LocalCache, LocalCacheStatus
from django_natskv.kv.settings import ConnectionSettings, LocalCacheSettings, ReconnectSettings, TLSSettings
from django_natskv.kv.watch import Watch

__all__ = [
    "Bucket",
    "BucketConfig",
    "BucketHealth",
    "BucketStatus",
    "Change",
    "Codec",
    "Connection",
    "ConnectionSettings",
    "Deliver",
    "Entry",
    "KVContext",
    "Listener",
    "LocalCache",
    "LocalCacheSettings",
    "LocalCacheState",
    "LocalCacheStatus",
    "Operation",
    "ReconnectSettings",
    "Replica",
    "TLSSettings",
    "Watch",
]
