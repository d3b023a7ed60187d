"""``manage.py natskv_config``: the configs and models of the registry. Knows nothing beyond which verbs it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from django_natskv.management.config import VERBS
from django_natskv.management.terminal.command import VerbCommand
from django_natskv.management.terminal.verb import Verb


class Command(VerbCommand):
    help = "Look at, change, move and tidy the configs and models that the project declares, by class and field."
    verbs: ClassVar[Sequence[Verb]] = VERBS
    using_default: ClassVar[str | None] = None
    using_help: ClassVar[str] = "only what is kept on this connection (default: every class on its own)"
