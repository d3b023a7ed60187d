"""Options: what stands in ``settings.CACHES`` for a cache of ours, checked and frozen.

Owns the closed map of options and its rules. Must not connect, and must not know what an option does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from django_natskv import conf
from django_natskv.cache import compression
from django_natskv.cache.values import COMPRESS_MIN, PICKLE
from django_natskv.conf import Problem
from django_natskv.exceptions import InvalidName, UnknownConfigKey, UsageError
from django_natskv.kv import BucketConfig, codecs

BACKEND = "django_natskv.cache.NatsKVCache"
DEFAULT_BUCKET: Mapping[str, Any] = {"storage": "memory", "history": 1, "discard": "old"}
LOCAL_CACHE_BYTES = 64 * 2**20

_DJANGOS = ("max_entries", "cull_frequency")  # read by Django's own base class
_EXAMPLE = 'Give the name of a bucket, "cache", or the URL of a server with it, "nats://host:4222/cache".'


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one cache. ``url`` is that of a server, empty for the connection of the alias ``connection``."""

    bucket: str
    url: str = field(default="", repr=False)
    connection: str = "default"
    create: bool = True
    config: Mapping[str, Any] = field(default_factory=dict)
    codec: Any = PICKLE
    compress: str | None = None
    compress_min: int = COMPRESS_MIN
    local_cache: str | None = None
    local_cache_max_bytes: int = LOCAL_CACHE_BYTES
    on_error: str = "raise"


def parse(location: object, params: Mapping[str, Any], where: str = "The cache") -> Options:
    """Return the options of a cache at ``location``; ``ImproperlyConfigured``, naming every mistake."""
    blocking = [problem for problem in problems(location, params, where) if problem.blocks_use]
    if blocking:
        lines = [f"({problem.id}) {problem.message} {problem.hint}" for problem in blocking]
        raise ImproperlyConfigured("\n".join([f"{where} cannot be used:", *lines]))
    assert isinstance(location, str)  # noqa: S101 - a rule above
    url, bucket = _split(location)
    given = {name.lower(): value for name, value in _given(params).items() if value is not None}
    config = BucketConfig.parse({**DEFAULT_BUCKET, **given.pop("bucket", {}), "bucket": bucket}).given()
    for name in _DJANGOS:
        given.pop(name, None)
    return Options(bucket=bucket, url=url, config=config, **given)


def problems(location: object, params: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """Yield each mistake in a cache's ``location`` and in the ``OPTIONS`` of its ``params``."""
    options = params.get("OPTIONS", {})
    yield from _check_location(f'{where}["LOCATION"]', location)
    if not isinstance(options, Mapping):
        hint = "Give a mapping."
        yield Problem("E101", f'{where}["OPTIONS"]', f"is {type(options).__name__}, not a mapping.", hint)
        return
    for name, value in options.items():
        place = conf.at(where, "OPTIONS", name)
        if name not in _RULES:
            close = get_close_matches(str(name).upper(), _RULES, n=1)
            hint = "".join(f'Did you mean "{guess}"? ' for guess in close) + f"The options are {', '.join(_RULES)}."
            yield Problem("E102", place, "is not an option of this cache.", hint)
        else:
            yield from _RULES[name](place, value)
    if options.get("CONNECTION") is not None and isinstance(location, str) and "://" in location:
        hint = "Remove CONNECTION, or give LOCATION the name of a bucket alone."
        yield Problem("E109", conf.at(where, "OPTIONS", "CONNECTION"), "is set beside a URL in LOCATION.", hint)


def setting_problems() -> Iterator[Problem]:
    """Yield each mistake in the caches of ``settings.CACHES`` that are ours."""
    declared = getattr(settings, "CACHES", {})
    if not isinstance(declared, Mapping):
        return  # for Django to say
    for alias, params in declared.items():
        if isinstance(params, Mapping) and params.get("BACKEND") == BACKEND:
            where = conf.at("CACHES", alias)
            yield from problems(params.get("LOCATION"), params, where)
            yield from _check_alias(where, params)
    yield from _check_bounds(declared)


def _check_bounds(declared: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problem of each cache that shares a local cache with another one and bounds it otherwise."""
    bounds: dict[tuple[str | None, ...], tuple[str, int]] = {}
    for alias, params in declared.items():
        if not isinstance(params, Mapping) or params.get("BACKEND") != BACKEND:
            continue
        where = conf.at("CACHES", alias)
        try:
            options = parse(params.get("LOCATION"), params, where)
        except ImproperlyConfigured:
            continue  # told above
        copy, prefix = options.local_cache, str(params.get("KEY_PREFIX", ""))
        shared = (options.url or options.connection, options.bucket, prefix, copy)
        other, most = bounds.setdefault(shared, (where, options.local_cache_max_bytes))
        if copy and options.local_cache_max_bytes != most:
            wrong = f"is not the {most:,} of {other}: they have one local cache, as bucket and KEY_PREFIX are the same."
            hint = "Let both say the same, or give one of them another KEY_PREFIX or bucket."
            yield Problem("E111", conf.at(where, "OPTIONS", "LOCAL_CACHE_MAX_BYTES"), wrong, hint)


def _check_alias(where: str, params: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problem of a cache on a connection that is not declared."""
    options, location = params.get("OPTIONS") or {}, params.get("LOCATION")
    if not isinstance(options, Mapping) or (isinstance(location, str) and "://" in location):
        return
    alias = options.get("CONNECTION", "default")
    declared = getattr(settings, conf.SETTING, {})
    if isinstance(declared, Mapping) and isinstance(alias, str) and alias not in declared:
        known = ", ".join(map(repr, declared)) or "none"
        hint = f"{conf.SETTING} declares: {known}. Or give LOCATION the URL of a server."
        yield Problem("E110", where, f"is on the connection {alias!r}, which is not declared.", hint)


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return dict(params.get("OPTIONS") or {})


def _split(location: str) -> tuple[str, str]:
    """Return the URL of the server, empty if there is none, and the name of the bucket."""
    if "://" not in location:
        return "", location
    server, _, bucket = location.rpartition("/")
    return server, bucket


def _check_location(place: str, location: object) -> Iterator[Problem]:
    if not isinstance(location, str) or not location:
        yield Problem("E100", place, "names no bucket.", _EXAMPLE)
        return
    url, bucket = _split(location)
    try:
        BucketConfig.parse({"bucket": bucket})
    except InvalidName:
        # What was misread may be a part of a password: nothing of it is shown.
        yield Problem("E100", place, "does not end with the name of a bucket.", _EXAMPLE)
        return
    if url:
        for problem in conf.problems({"SERVERS": url}, "cache"):
            yield Problem("E100", place, problem.detail, problem.hint, blocks_use=problem.blocks_use)


def _type_of(value: object) -> str:
    return f"is {type(value).__name__}"


def _check_connection(place: str, value: object) -> Iterator[Problem]:
    if not isinstance(value, str) or not value:
        yield Problem("E103", place, f"{_type_of(value)}, not an alias.", "Give an alias of NATSKV.")


def _check_create(place: str, value: object) -> Iterator[Problem]:
    if not isinstance(value, bool):
        yield Problem("E103", place, f"{_type_of(value)}, not True or False.", "Give True or False.")


def _check_bucket(place: str, value: object) -> Iterator[Problem]:
    if not isinstance(value, Mapping):
        yield Problem("E104", place, f"{_type_of(value)}, not a mapping.", "Give options of create_bucket().")
        return
    try:
        BucketConfig.parse({**DEFAULT_BUCKET, **value, "bucket": "b"})
    except (UnknownConfigKey, UsageError) as error:
        yield Problem("E104", place, f"is wrong. {error}", "Give options of create_bucket().")
        return
    if "bucket" in value:
        yield Problem("E104", place, "names a bucket.", "LOCATION names the bucket: remove it here.")
    if value.get("history") not in (None, 1):
        hint = "A cache keeps one revision a key: remove history."
        yield Problem("E105", place, "keeps a history, out of which expired values would come back.", hint)


def _check_codec(place: str, value: object) -> Iterator[Problem]:
    if value == PICKLE:
        return
    try:
        codecs.resolve(value)
    except UsageError as error:
        names = ", ".join(dict.fromkeys((PICKLE, *codecs.names())))
        hint = f"Give one of {names}, the dotted path of a codec, or an object that is one."
        yield Problem("E106", place, f"is not a codec. {error}", hint)


def _check_compress(place: str, value: object) -> Iterator[Problem]:
    if value is None:
        return
    try:
        compression.method(str(value))
    except ImproperlyConfigured as error:
        yield Problem(
            "E107", place, f"is not available. {error}", f"Give one of {', '.join(compression.NAMES)}, or None."
        )


def _one_of(*choices: object) -> Any:
    def check(place: str, value: object) -> Iterator[Problem]:
        if value not in choices:
            hint = f"Give one of {', '.join(map(repr, choices))}."
            yield Problem("E107", place, "is not one of the choices.", hint)

    return check


def _whole(low: int) -> Any:
    def check(place: str, value: object) -> Iterator[Problem]:
        if type(value) is not int or value < low:
            yield Problem("E108", place, f"is not a whole number of at least {low}.", f"Give a number from {low}.")

    return check


_RULES: dict[str, Any] = {
    "CONNECTION": _check_connection,
    "CREATE": _check_create,
    "BUCKET": _check_bucket,
    "CODEC": _check_codec,
    "COMPRESS": _check_compress,
    "COMPRESS_MIN": _whole(0),
    "LOCAL_CACHE": _one_of(None, "mirror", "invalidate"),
    "LOCAL_CACHE_MAX_BYTES": _whole(1),
    "ON_ERROR": _one_of("raise", "miss"),
    "MAX_ENTRIES": _whole(1),
    "CULL_FREQUENCY": _whole(0),
}
