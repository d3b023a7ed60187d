"""``natskv_flag on``, ``off``, ``rollout`` and ``target``. Owns the words of them; knows nothing of definitions."""

from __future__ import annotations

import datetime as dt
from functools import reduce
from operator import and_, or_
from typing import Any, ClassVar

from django.core.management.base import CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from django_natskv.exceptions import UsageError
from django_natskv.management.flag.named import add_name, add_value, flag_of, write
from django_natskv.management.terminal.author import add_author
from django_natskv.management.terminal.entries import Written
from django_natskv.management.terminal.verb import Call, Verb
from django_natskv.registry import Flag, rules as r


class _Switch(Verb):
    value: ClassVar[bool]

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the flag and who switches it."""
        add_name(parser)
        add_author(parser)

    def run(self, call: Call) -> Written:
        """Switch it."""
        flag = flag_of(call)
        if not isinstance(flag, Flag):
            raise UsageError(f"{flag.name!r} is a variant, neither on nor off: natskv_flag set {flag.name} VALUE.")
        return write(call, flag, self.value)


class On(_Switch):
    """Switch a flag on."""

    name = "on"
    help = "Switch a flag on for everyone. Replaces what was stored; every running process sees it at once."
    examples: ClassVar[tuple[str, ...]] = ("new_checkout", 'new_checkout --actor ann --comment "launch"')
    value = True


class Off(_Switch):
    """Switch a flag off."""

    name = "off"
    help = "Switch a flag off for everyone. Replaces what was stored; every running process sees it at once."
    examples: ClassVar[tuple[str, ...]] = ("new_checkout",)
    value = False


class Rollout(Verb):
    """Give a flag to a percentage of users."""

    name = "rollout"
    help = (
        "Give a flag to a percentage of users. A larger one has everyone of the smaller one, and more. Replaces what "
        "was stored; to join a percentage with other rules, use target."
    )
    examples: ClassVar[tuple[str, ...]] = ("new_checkout 25", "theme 2.5 --value new")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the flag and the percentage."""
        add_name(parser)
        parser.add_argument("percentage", metavar="PERCENT", help="from 0 to 100, with up to three decimals")
        add_value(parser)
        add_author(parser)

    def run(self, call: Call) -> Written:
        """Give it."""
        return write(call, flag_of(call), rule=_share(call.options["percentage"]))


class Target(Verb):
    """Give a flag to some."""

    name = "target"
    help = (
        "Give a flag to whom any of the options names, or all of them (--all), or to everyone else (--not), within the "
        "time of --from and --until. Replaces what was stored. What else targeting can say is for natskv_flag set NAME "
        "--json FILE."
    )
    examples: ClassVar[tuple[str, ...]] = (
        "new_checkout --users 7 8 --groups beta",
        "new_checkout --staff --percentage 25",
        "new_checkout --all --groups beta --languages de",
        "new_checkout --not --users 7 8",
        "theme --value new --languages de --from 2027-03-01 --until 2027-04-01",
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the flag and whom it is for."""
        add_name(parser)
        parser.add_argument("--users", nargs="+", metavar="KEY", help="users, by primary key")
        parser.add_argument("--groups", nargs="+", metavar="NAME", help="the members of groups")
        parser.add_argument("--languages", nargs="+", metavar="CODE", help="requests in languages: de, de-at")
        parser.add_argument("--percentage", metavar="PERCENT", help="a percentage of users")
        for name, who in (("staff", "staff"), ("superusers", "superusers"), ("authenticated", "who is signed in")):
            parser.add_argument(f"--{name}", action="store_true", help=who)
        parser.add_argument("--all", action="store_true", help="only whom all of these name, in place of any")
        parser.add_argument("--not", action="store_true", help="whom these do not name, in place of whom they do")
        parser.add_argument("--from", dest="begin", metavar="TIME", help="from this day or time on")
        parser.add_argument("--until", dest="end", metavar="TIME", help="until this day or time")
        add_value(parser)
        add_author(parser)

    def run(self, call: Call) -> Written:
        """Give it."""
        flag = flag_of(call)
        whom = _whom(call.options)
        begin, end = (_moment(call.options[name], option) for name, option in (("begin", "--from"), ("end", "--until")))
        always = begin is None and end is None
        if not whom and (always or call.options["all"] or call.options["not"]):
            raise UsageError("Say for whom: --users, --groups, --languages, --percentage, --staff, ...; or use on.")
        rule = reduce(and_ if call.options["all"] else or_, whom) if whom else r.everyone
        rule = ~rule if call.options["not"] else rule
        return write(call, flag, rule=rule if always else rule & r.between(begin, end))


def _whom(options: Any) -> list[r.Rule]:
    makers = {"users": r.users, "groups": r.groups, "languages": r.languages}
    found = [make(*options[name]) for name, make in makers.items() if options[name]]
    facts = {"staff": r.staff, "superusers": r.superusers, "authenticated": r.authenticated}
    found += [rule for name, rule in facts.items() if options[name]]
    return [*found, _share(options["percentage"])] if options["percentage"] is not None else found


def _share(given: str) -> r.Rule:
    try:
        share = float(given)
    except ValueError as error:
        raise UsageError(f"A percentage is a number from 0 to 100, such as 25 or 2.5, not {given!r}.") from error
    return r.percentage(share)


def _moment(given: str | None, option: str) -> dt.datetime | None:
    if given is None:
        return None
    try:
        day = parse_date(given)
        moment = dt.datetime.combine(day, dt.time()) if day else parse_datetime(given)
    except ValueError:
        moment = None
    if moment is None:
        raise UsageError(f"{option}: {given!r} is no day or time, such as 2027-03-01 or 2027-03-01T08:00.")
    return timezone.make_aware(moment) if timezone.is_naive(moment) else moment
