"""Flags as arguments: found by name, read from the server, written with who and why.

Owns what the verbs have in common. Must not know which verb it is for.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

from django.core.management.base import CommandParser

from django_natskv.exceptions import UsageError
from django_natskv.management.terminal.author import author_of
from django_natskv.management.terminal.entries import Written
from django_natskv.management.terminal.verb import Call
from django_natskv.registry import AnyFlag, Flag, all_flags
from django_natskv.registry._flag_pages import Page, stored
from django_natskv.registry._place import place_of
from django_natskv.registry._steps import run
from django_natskv.registry.flags.explaining import summary
from django_natskv.registry.flags.rules import Rule

_DECLARED: Any = object()


def add_name(parser: CommandParser) -> None:
    """Add the argument NAME."""
    parser.add_argument("name", metavar="NAME", help="the flag, by the name that it is declared under")


def add_value(parser: CommandParser) -> None:
    """Add what those get who are meant, and what the others get."""
    parser.add_argument("--value", metavar="VALUE", help="what they get; needed for a variant (default: on)")
    parser.add_argument("--otherwise", metavar="VALUE", help="what the others get (default: the declared default)")


def flag_of(call: Call) -> AnyFlag[Any]:
    """Return the flag NAME; ``UsageError`` when none is declared, or it is not on the connection ``--using``."""
    name = call.options["name"]
    known = {flag.name: flag for flag in all_flags()}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else " natskv_flag list shows which there are."
        raise UsageError(f"No flag is declared under the name {name!r}.{hint}")
    flag = known[name]
    alias = _alias(flag)
    using = call.options["using"]
    if using not in (None, alias):
        raise UsageError(f"The flag {name!r} is kept on the connection {alias!r}, not on {using!r}.")
    call.alias = alias
    return flag


def flags_of(call: Call, flags: Iterable[AnyFlag[Any]] | None = None) -> list[AnyFlag[Any]]:
    """Return those of ``flags``, by default of all, that are kept on the connection ``--using``, if it was given."""
    using = call.options["using"]
    if using is not None:
        call.connection  # noqa: B018 - an alias that is none is a mistake also where no flag is kept
    return [flag for flag in (all_flags() if flags is None else flags) if using in (None, _alias(flag))]


def kept_on(call: Call) -> str:
    """Return in words what ``--using`` says, for behind what was looked for."""
    using = call.options["using"]
    return "" if using is None else f" on the connection {using!r}"


def _alias(flag: AnyFlag[Any]) -> str:
    alias: str = flag.flag_set._declaration.connection  # noqa: SLF001 - the registry's own, without a public name
    return alias


def page_of(flag: AnyFlag[Any]) -> Page:
    """Return what the server has of ``flag`` and of the shared rules."""
    where = flag.flag_set._declaration  # noqa: SLF001
    return run(stored(place_of(where), [flag.name]))


def definition_of(page: Page, flag: AnyFlag[Any]) -> Any:
    """Return what is stored of ``flag``: its definition, None, or a text where that cannot be read."""
    entry = page.entries.get(flag.name)
    if entry is None:
        return None
    try:
        return json.loads(entry.value)
    except (ValueError, RecursionError):
        return entry.value.decode(errors="replace")


def value_of(flag: AnyFlag[Any], given: str, option: str) -> Any:
    """Return the value that ``given`` says: the name of a variant, or a value as JSON; ``UsageError``."""
    variants = flag.declaration.variants
    if given in variants:
        return variants[given]
    try:
        value = json.loads(given)
    except ValueError:
        value = given
    if value not in variants.values() or isinstance(value, bool) != (flag.declaration.kind == "boolean"):
        raise UsageError(f"{option}: {given!r} is none of the variants of {flag.name!r}: {', '.join(variants)}.")
    return value


def write(call: Call, flag: AnyFlag[Any], value: Any = _DECLARED, rule: Rule | None = None) -> Written:
    """Set ``flag``, to ``value`` or to what the options say, where ``rule`` holds; say what it says now."""
    if value is _DECLARED:
        given = call.options["value"]
        if given is None and not isinstance(flag, Flag):
            raise UsageError(f"{flag.name!r} is a variant: say with --value which one.")
        value = True if given is None else value_of(flag, given, "--value")
    more = {}
    if call.options.get("otherwise") is not None:
        more["otherwise"] = value_of(flag, call.options["otherwise"], "--otherwise")
    return written(call, flag, flag.set(value, when=rule, **more, **author_of(call)))


def written(call: Call, flag: AnyFlag[Any], revision: int) -> Written:
    """Say what ``flag`` says since ``revision``, and return that for the terminal."""
    call.say(f"{flag.name}: {summary(flag.declaration, definition_of(page_of(flag), flag))}")
    return Written(flag.flag_set._declaration.bucket, flag.name, revision)  # noqa: SLF001
