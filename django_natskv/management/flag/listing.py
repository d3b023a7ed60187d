"""``natskv_flag list``, ``show`` and ``expired``. Owns the words of them; knows nothing of evaluation."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any, ClassVar

from django.core.management.base import CommandParser

from django_natskv.exceptions import UsageError
from django_natskv.management.flag.named import add_name, definition_of, flag_of, flags_of, kept_on, page_of
from django_natskv.management.terminal.output import Column, Listing, Record
from django_natskv.management.terminal.verb import Call, Verb
from django_natskv.registry import AnyFlag
from django_natskv.registry._flag_checks import expired_flags
from django_natskv.registry._flag_pages import Page, stored
from django_natskv.registry._place import Place, place_of
from django_natskv.registry._steps import run
from django_natskv.registry.flags.explaining import summary


def _text(value: Any) -> str:
    return "-" if value in (None, "") else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


NAME = Column("name", "Name")
SAYS = Column("says", "Says")
OWNER = Column("owner", "Owner", _text)
EXPIRES = Column("expires", "Expires", _text)
REVISION = Column("revision", "Revision", _text, right=True)
DETAILS = (
    NAME,
    Column("flag_set", "Declared by"),
    Column("type", "Type"),
    Column("variants", "Variants", _text),
    Column("default", "Default"),
    Column("description", "Description", _text),
    OWNER,
    EXPIRES,
    Column("public", "Public", _text),
    Column("connection", "Connection"),
    Column("bucket", "Bucket"),
    REVISION,
    SAYS,
    Column("definition", "Definition", _text),
)


def _facts(flag: AnyFlag[Any], page: Page | None = None) -> dict[str, Any]:
    declaration, where = flag.declaration, flag.flag_set._declaration  # noqa: SLF001
    facts: dict[str, Any] = {
        "name": flag.name,
        "flag_set": f"{flag.flag_set.__module__}.{flag.flag_set.__qualname__}",
        "type": declaration.kind,
        "variants": dict(declaration.variants),
        "default": declaration.default,
        "description": declaration.description,
        "owner": declaration.owner,
        "expires": declaration.expires.isoformat() if declaration.expires else None,
        "public": declaration.public,
        "connection": where.connection,
        "bucket": where.bucket,
    }
    if page is not None:
        entry, definition = page.entries.get(flag.name), definition_of(page, flag)
        facts["revision"] = None if entry is None else entry.revision
        facts["says"] = summary(declaration, definition)
        facts["definition"] = definition
    return facts


class List(Verb):
    """List all flags."""

    name = "list"
    help = "List all declared flags, and in words what each says to whom."
    examples: ClassVar[tuple[str, ...]] = ("", "--format json")

    def run(self, call: Call) -> Listing:
        """List them."""
        names: dict[Place, list[str]] = {}
        flags = flags_of(call)
        for flag in flags:
            names.setdefault(_place(flag), []).append(flag.name)
        pages = {}
        for place, found in names.items():
            call.alias = place.alias
            pages[place] = run(stored(place, found))
        if not flags:
            call.say(f"No flag is declared{kept_on(call)}.")
        return Listing((NAME, SAYS, REVISION, OWNER, EXPIRES), [_facts(flag, pages[_place(flag)]) for flag in flags])


class Show(Verb):
    """Show a flag."""

    name = "show"
    help = "Show a flag: what is declared of it, what is stored of it, and in words what it says to whom."
    examples: ClassVar[tuple[str, ...]] = ("new_checkout", "new_checkout --format json")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the flag."""
        add_name(parser)

    def run(self, call: Call) -> Record:
        """Show it."""
        flag = flag_of(call)
        return Record(DETAILS, _facts(flag, page_of(flag)))


class Expired(Verb):
    """List the flags that should be gone."""

    name = "expired"
    help = (
        "List the flags that should be gone from the code, the oldest first, with their owners. Reads what is declared "
        "alone: the server is not asked."
    )
    examples: ClassVar[tuple[str, ...]] = ("", "--on 2027-03-01")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the day."""
        parser.add_argument("--on", metavar="DAY", help="as of this day, such as 2027-03-01 (default: today)")

    def run(self, call: Call) -> Listing:
        """List them."""
        given = call.options["on"]
        try:
            day = None if given is None else dt.date.fromisoformat(given)
        except ValueError:
            raise UsageError(f"--on: {given!r} is no day, such as 2027-03-01.") from None
        columns = (NAME, EXPIRES, OWNER, Column("description", "Description", _text))
        flags = flags_of(call, expired_flags(day))
        if not flags:
            call.say(f"No flag has expired{kept_on(call)}.")
        return Listing(columns, [_facts(flag) for flag in flags])


def _place(flag: AnyFlag[Any]) -> Place:
    return place_of(flag.flag_set._declaration)  # noqa: SLF001
