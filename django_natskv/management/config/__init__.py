"""The verbs of ``manage.py natskv_config``, a module each.

Owns which there are. Must not know how they are parsed or how their results look.
"""

from __future__ import annotations

from django_natskv.management.config.check import Check
from django_natskv.management.config.diff import Diff
from django_natskv.management.config.export import Export
from django_natskv.management.config.get import Get
from django_natskv.management.config.history import History
from django_natskv.management.config.import_ import Import
from django_natskv.management.config.list import List
from django_natskv.management.config.prune import Prune
from django_natskv.management.config.rollback import Rollback
from django_natskv.management.config.set import Set
from django_natskv.management.config.unset import Unset

VERBS = (
    List(),
    Get(),
    Set(),
    Unset(),
    History(),
    Diff(),
    Rollback(),
    Export(),
    Import(),
    Check(),
    Prune(),
)

__all__ = ["VERBS"]
