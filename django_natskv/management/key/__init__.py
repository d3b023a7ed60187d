"""The verbs of ``manage.py natskv_key``, a module each.

Owns which there are. Must not know how they are parsed or how their results look.
"""

from __future__ import annotations

from django_natskv.management.key.create import Create
from django_natskv.management.key.delete import Delete
from django_natskv.management.key.get import Get
from django_natskv.management.key.history import History
from django_natskv.management.key.keys import Keys
from django_natskv.management.key.purge import Purge
from django_natskv.management.key.put import Put
from django_natskv.management.key.revert import Revert
from django_natskv.management.key.update import Update
from django_natskv.management.key.watch import Watch

VERBS = (Get(), Put(), Create(), Update(), Delete(), Purge(), History(), Keys(), Watch(), Revert())

__all__ = ["VERBS"]
