"""``natskv_flag explain``. Owns the words of it; knows nothing of how rules are evaluated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.db import Error

from django_natskv.exceptions import UsageError
from django_natskv.management.flag.named import add_name, definition_of, flag_of, page_of
from django_natskv.management.terminal.command import NOT_FOUND
from django_natskv.management.terminal.output import Column, Record, exact
from django_natskv.management.terminal.verb import Call, Verb
from django_natskv.registry.flags.context import Context
from django_natskv.registry.flags.evaluator import DEFAULT, DISABLED, ERROR, SPLIT, STATIC, TARGETING_MATCH
from django_natskv.registry.flags.explaining import Answer, answers, matched, summary

_WHY = {
    STATIC: "it says the same to everyone",
    DEFAULT: "no rule matched",
    TARGETING_MATCH: "a rule matched",
    SPLIT: "a percentage decided",
    DISABLED: "it is switched off: the declared default holds",
    ERROR: "something failed: the declared default holds",
}


def _rules(answers: Any) -> str:
    return "; ".join(f"{one['rule']}: {'yes' if one['holds'] else 'no'}" for one in answers) or "-"


COLUMNS = (
    Column("name", "Name"),
    Column("value", "Value", exact),
    Column("variant", "Variant", exact),
    Column("reason", "Reason"),
    Column("why", "Why"),
    Column("says", "Says"),
    Column("rules", "Rules", _rules),
    Column("error", "Error", lambda text: text or "-"),
    Column("revision", "Revision", lambda number: "-" if number is None else str(number)),
)


class Explain(Verb):
    """Tell what a flag says to somebody, and why."""

    name = "explain"
    help = (
        "Tell what a flag says to somebody, why, and which of its rules hold for them. Asks the server, and the "
        "database for --user; what a project's own function adds for requests is given with --attribute."
    )
    examples: ClassVar[tuple[str, ...]] = (
        "new_checkout --user 7",
        "new_checkout --key acct-7 --attribute plan=pro --format json",
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the flag and who asks."""
        add_name(parser)
        parser.add_argument("--user", metavar="KEY", help="a user, by primary key")
        parser.add_argument("--key", metavar="KEY", help="the targeting key: what percentages go by")
        parser.add_argument(
            "--attribute", action="append", default=[], metavar="NAME=VALUE", help="an attribute; may be repeated"
        )

    def run(self, call: Call) -> Record:
        """Tell it."""
        flag = flag_of(call)
        attributes = dict(_attribute(given) for given in call.options["attribute"])
        user = None if call.options["user"] is None else _user(call.options["user"])
        context = Context(user=user, key=call.options["key"], attributes=attributes)
        page = page_of(flag)
        definition = definition_of(page, flag)
        details = page.of(flag).details(context)
        stored = definition if isinstance(definition, dict) else {}
        asked = (flag.declaration, stored if stored.get("state") == "ENABLED" else {}, page.rules, context)
        found = answers(*asked)
        why = "nothing is stored: the declared default holds"
        if definition is not None:
            why = _why(details.reason, matched(*asked), found)
            if details.reason == DEFAULT and page.of(flag).splits and user is None and call.options["key"] is None:
                why += "; a percentage goes by --user or --key"
        facts = {
            "name": flag.name,
            "value": details.value,
            "variant": details.variant,
            "reason": details.reason,
            "why": why,
            "says": summary(flag.declaration, definition),
            "rules": [one._asdict() for one in found],
            "error": details.error,
            "revision": details.revision,
        }
        return Record(COLUMNS, facts)


def _why(reason: str, rule: str | None, answered: Sequence[Answer]) -> str:
    """Return why a flag says what it says; ``rule`` is the one that decided.

    The evaluator has one reason for whom a rule names and for all others, and one for a flag that has a percentage.
    """
    if reason not in (DEFAULT, TARGETING_MATCH, SPLIT):
        return _WHY.get(reason, "")
    if rule is not None:
        is_percentage = reason == SPLIT and rule == answered[0].rule
        left = " and leaves it at the default" if reason == DEFAULT else ""
        return f"{_WHY[SPLIT] if is_percentage else _WHY[TARGETING_MATCH]}{left}: {rule}"
    # Targeting need not be made of rules: {"var": "theme"} is one.
    return _WHY[reason] if reason == SPLIT else _WHY[DEFAULT] if answered or reason == DEFAULT else "targeting decided"


def _attribute(given: str) -> tuple[str, Any]:
    name, separator, text = given.partition("=")
    if not (name and separator):
        raise UsageError(f"--attribute: {given!r} is not NAME=VALUE.")
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text


def _user(key: str) -> Any:
    model = get_user_model()
    try:
        return model._default_manager.get(pk=key)  # noqa: SLF001 - Django's documented name
    except (model.DoesNotExist, ValueError, ValidationError):
        raise CommandError(f"There is no user with the primary key {key!r}.", returncode=NOT_FOUND) from None
    except Error as error:
        said = " ".join(str(error).split())
        raise CommandError(f"The database could not be asked for the user {key!r}: {said}.") from error
