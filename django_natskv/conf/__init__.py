"""The settings: ``settings.NATSKV`` read into frozen ``ConnectionSettings``.

Owns every access to ``django.conf``; nothing else in the package reads settings. Must not connect, and must not
remember what it read, so that ``override_settings`` takes effect at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.connection import ConnectionDoesNotExist

from django_natskv.conf._problem import Problem, at, quoted
from django_natskv.conf._servers import EMBEDDED
from django_natskv.conf._table import CONNECTION, build
from django_natskv.kv.settings import ConnectionSettings

SETTING = "NATSKV"


def aliases() -> tuple[str, ...]:
    """Return the aliases that ``settings.NATSKV`` declares, in its order; none when there is no such setting.

    Raises ``ImproperlyConfigured`` when the setting is not a mapping.
    """
    return tuple(_declared())


def connection_settings(alias: str) -> ConnectionSettings:
    """Return what ``settings.NATSKV[alias]`` says, checked and complete, as of now.

    Raises Django's ``ConnectionDoesNotExist`` for an alias that is not declared, and ``ImproperlyConfigured``,
    naming every mistake with its check id, for one that cannot be used. No message holds a credential.
    """
    declared = _declared()
    if alias not in declared:
        known = ", ".join(map(quoted, declared)) or "none"
        message = f"The connection {quoted(alias)} doesn't exist. {SETTING} declares: {known}."
        del declared
        raise ConnectionDoesNotExist(message)
    settled = _settle(at(SETTING, alias), declared[alias], problems(declared[alias], alias))
    if isinstance(settled, ImproperlyConfigured):
        # A report of an error shows the variables of every frame that it has passed.
        del declared
        raise settled
    return settled


def settings_from(mapping: object, where: str) -> ConnectionSettings:
    """Return the settings of a connection that is configured outside ``settings.NATSKV``.

    ``mapping`` has the keys of one alias; ``where`` names its place in messages, for instance
    ``CACHES["default"]["LOCATION"]``. Raises ``ImproperlyConfigured`` like ``connection_settings()``.
    """
    settled = _settle(where, mapping, CONNECTION.check(where, mapping))
    if isinstance(settled, ImproperlyConfigured):
        del mapping
        raise settled
    return settled


def problems(mapping: object, alias: object) -> Iterator[Problem]:
    """Yield each mistake in ``mapping``, taken as ``settings.NATSKV[alias]``.

    Reads no settings. Looks at the file system only for the files that ``mapping`` names, and imports the codec
    that it names.
    """
    where = at(SETTING, alias)
    if not isinstance(alias, str) or not alias:
        yield Problem(
            "E002",
            where,
            "has an alias that is not a name.",
            'An alias is a non-empty string, for instance "default".',
        )
    yield from CONNECTION.check(where, mapping)


def setting_problems() -> Iterator[Problem]:
    """Yield each mistake in ``settings.NATSKV`` as it is now. No such setting, no mistake."""
    declared = getattr(settings, SETTING, {})
    if not isinstance(declared, Mapping):
        yield _not_a_mapping(declared)
        return
    for alias, mapping in declared.items():
        yield from problems(mapping, alias)
        if not settings.DEBUG and isinstance(mapping, Mapping) and mapping.get("SERVERS") == EMBEDDED:
            yield Problem(
                "W001",
                at(SETTING, alias, "SERVERS"),
                'is "embedded" while DEBUG is off.',
                "The embedded server is made for development: it serves this machine only, without encryption and with "
                "one copy of the data. Give the URL of a real server.",
                blocks_use=False,
            )


def _declared() -> Mapping[str, object]:
    declared = getattr(settings, SETTING, {})
    if not isinstance(declared, Mapping):
        error = _improper(SETTING, [_not_a_mapping(declared)])
        del declared
        raise error
    return declared


def _not_a_mapping(declared: object) -> Problem:
    return Problem(
        "E001",
        SETTING,
        f"is {type(declared).__name__}, not a mapping.",
        f'It maps aliases to settings: {SETTING} = {{"default": {{"SERVERS": ["nats://127.0.0.1:4222"]}}}}.',
    )


def _settle(where: str, mapping: Any, found: Iterator[Problem]) -> ConnectionSettings | ImproperlyConfigured:
    blocking = [problem for problem in found if problem.blocks_use]
    return _improper(where, blocking) if blocking else build(mapping)


def _improper(where: str, blocking: list[Problem]) -> ImproperlyConfigured:
    lines = [f"({problem.id}) {problem.message} {problem.hint}" for problem in blocking]
    return ImproperlyConfigured("\n".join([f"{where} cannot be used:", *lines]))


__all__ = [
    "SETTING",
    "Problem",
    "aliases",
    "at",
    "connection_settings",
    "problems",
    "setting_problems",
    "settings_from",
]
