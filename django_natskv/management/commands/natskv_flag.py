"""``manage.py natskv_flag``: the project's feature flags. Knows nothing beyond which verbs it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from django_natskv.management.flag import VERBS
from django_natskv.management.terminal.command import VerbCommand
from django_natskv.management.terminal.verb import Verb


class Command(VerbCommand):
    help = "List, switch, target and explain feature flags."
    verbs: ClassVar[Sequence[Verb]] = VERBS
    using_default: ClassVar[str | None] = None
    using_help: ClassVar[str] = "only what is kept on this connection (default: every flag on its own)"
