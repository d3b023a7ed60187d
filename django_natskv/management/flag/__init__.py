"""The verbs of ``manage.py natskv_flag``.

Owns which there are. Must not know how they are parsed or how their results look.
"""

from __future__ import annotations

from django_natskv.management.flag.explain import Explain
from django_natskv.management.flag.listing import Expired, List, Show
from django_natskv.management.flag.reset import Reset
from django_natskv.management.flag.set import Set
from django_natskv.management.flag.switching import Off, On, Rollout, Target

VERBS = (List(), Show(), On(), Off(), Rollout(), Target(), Set(), Reset(), Explain(), Expired())

__all__ = ["VERBS"]
