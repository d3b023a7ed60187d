"""``manage.py natskv_key``: the entries of buckets. Knows nothing beyond which verbs it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from django_natskv.management.key import VERBS
from django_natskv.management.terminal.command import VerbCommand
from django_natskv.management.terminal.verb import Verb


class Command(VerbCommand):
    help = "Read, write, delete, watch and revert the entries of buckets."
    verbs: ClassVar[Sequence[Verb]] = VERBS
