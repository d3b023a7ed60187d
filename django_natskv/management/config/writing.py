"""One change of one object: by whom, why, over which revision.

Owns the options of it and how its result looks. Must not know which verb changes what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from django_natskv.management.config.named import Target, absent, number_of, said
from django_natskv.management.terminal.author import author_of
from django_natskv.management.terminal.output import Style, to_json
from django_natskv.management.terminal.verb import Call
from django_natskv.registry import Conflict, documents


@dataclass(frozen=True, slots=True)
class Saved:
    """What a change gave: the revision."""

    name: str
    pk: str | None
    revision: int

    def lines(self, format: str, heading: Style) -> Sequence[str]:  # noqa: A002, ARG002 - the protocol
        """See Result.lines()."""
        if format == "json":
            return [to_json({"class": self.name, "object": self.pk, "revision": self.revision})]
        return [str(self.revision)]


def add_guard(parser: CommandParser) -> None:
    """Add the revision that the object must be at."""
    text = "only if this is still the newest revision of the object; 0: if nothing is stored"
    parser.add_argument("--if-revision", metavar="N", help=text)


def guard_of(call: Call) -> int | None:
    """Return the revision of ``--if-revision``."""
    given = call.options["if_revision"]
    return None if given is None else number_of(given, "--if-revision", 0)


def check_guard(target: Target, instance: Any, guard: int | None) -> None:
    """Refuse to go on over another revision than the one that was meant."""
    if guard is not None and instance.revision != guard:
        now = f"at revision {instance.revision}" if instance.revision else "not stored"
        raise CommandError(f"{target.name} is {now}, not at revision {guard}. Nothing was written.")


def save(
    call: Call,
    target: Target,
    change: Callable[[Any], None],
    *,
    create: bool = False,
    invalid: type[Exception] = CommandError,
) -> Saved:
    """Have ``change`` change the object, and save it if that makes a difference; raise ``invalid`` if it is not valid.

    Where somebody else is faster the change is made again of what is there then, unless ``--if-revision`` was given.
    """
    author, guard = author_of(call), guard_of(call)
    instance = documents.stored(target.cls, target.key)
    if instance is None:
        if not create:
            raise absent(target)
        instance = target.cls(pk=target.pk)
    check_guard(target, instance, guard)
    before = documents.to_store(instance)
    is_new = target.many and not instance.revision
    change(instance)
    if not (is_new or documents.WHOLE in instance.undecodable) and not documents.differ(
        before, documents.to_store(instance)
    ):
        call.say(f"{target.name} is that already.")
        return Saved(documents.label(target.cls), target.pk, instance.revision)
    with refusals(target.name, invalid):
        if guard is None and not is_new:
            instance = target.source.objects.update(*target.where, change, **author)
        else:
            instance.save(**author)
    call.say(f"Saved {target.name}, revision {instance.revision}.")
    return Saved(documents.label(target.cls), target.pk, instance.revision)


@contextmanager
def refusals(name: str, invalid: type[Exception] = CommandError) -> Iterator[None]:
    """Say in one line for the terminal why an object was not saved; raise ``invalid`` if it would not be valid."""
    try:
        yield
    except Conflict as error:
        text = f"{name} was changed by somebody else meanwhile. Nothing was written: look, and run it again."
        raise CommandError(text) from error
    except ValidationError as error:
        raise invalid(f"{name} would not be valid: {said(error)} Nothing was written.") from error
