"""The verbs of ``manage.py natskv_bucket``, a module each.

Owns which there are. Must not know how they are parsed or how their results look.
"""

from __future__ import annotations

from django_natskv.management.bucket.create import Create
from django_natskv.management.bucket.delete import Delete
from django_natskv.management.bucket.dump import Dump
from django_natskv.management.bucket.list import List
from django_natskv.management.bucket.purge_deletes import PurgeDeletes
from django_natskv.management.bucket.restore import Restore
from django_natskv.management.bucket.status import Status
from django_natskv.management.bucket.sync import Sync
from django_natskv.management.bucket.update import Update
from django_natskv.management.bucket.watch import Watch

VERBS = (Create(), List(), Status(), Update(), Delete(), PurgeDeletes(), Sync(), Dump(), Restore(), Watch())

__all__ = ["VERBS"]
