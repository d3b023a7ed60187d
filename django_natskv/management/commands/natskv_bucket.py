"""``manage.py natskv_bucket``: the life of buckets. Knows nothing beyond which verbs it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from django_natskv.management.bucket import VERBS
from django_natskv.management.terminal.command import VerbCommand
from django_natskv.management.terminal.verb import Verb


class Command(VerbCommand):
    help = (
        "Create, list, change, watch and delete buckets, make them what is declared, and move their entries through "
        "files."
    )
    verbs: ClassVar[Sequence[Verb]] = VERBS
