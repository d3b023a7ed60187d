"""A bucket's configuration as options of a command.

Owns the option of each key of ``BucketConfig`` and how its text is read. Must not repeat the rules of the values, which
the facade checks.
"""

from __future__ import annotations

from argparse import BooleanOptionalAction
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.core.management.base import CommandParser

from django_natskv.exceptions import UsageError
from django_natskv.kv import BucketStatus
from django_natskv.management.terminal.units import parse_duration, parse_number, parse_size


def add_arguments(parser: CommandParser, *, changes: bool) -> None:
    """Add the options of a configuration; ``changes``: of a bucket that exists, where lists can be emptied too."""
    group = parser.add_argument_group(
        "configuration",
        "Durations: 500ms, 90s, 1h30m, 1d12h, none. Sizes: 512, 64KiB, 10MB, 1GiB, unlimited."
        + ("\nWhat is repeatable replaces all there was." if changes else ""),
    )

    def add(flag: str, text: str, **options: Any) -> None:
        # None is "not given": an update changes only what is given.
        group.add_argument(flag, default=None, help=text, **options)

    add("--description", "what the bucket is for" + ('; "" for none' if changes else ""), metavar="TEXT")
    add("--history", "revisions kept of each key, 1 to 64", metavar="N")
    add("--ttl", "how long an entry lives; none: for ever", metavar="DURATION")
    add(
        "--limit-marker-ttl",
        "how long the marker of an expired entry is kept; none: there is no marker",
        metavar="DURATION",
    )
    add("--max-value-size", "the largest value; unlimited for no limit", metavar="SIZE")
    add("--max-bucket-size", "the most that the bucket holds; unlimited for no limit", metavar="SIZE")
    add("--storage", "where the server keeps it: file or memory", choices=("file", "memory"))
    add(
        "--discard",
        "what a full bucket does with a value: refuse it (new), or drop the oldest for it (old)",
        choices=("new", "old"),
    )
    add("--replicas", "servers of the cluster that keep a copy, 1 to 5", metavar="N")
    add("--compression", "whether the server compresses it on disk", action=BooleanOptionalAction)
    add("--metadata", "a fact to keep with the bucket; repeatable", metavar="KEY=VALUE", action="append")
    add("--placement-cluster", "the cluster that keeps it", metavar="NAME")
    add("--placement-tag", "a tag of the servers that keep it; repeatable", metavar="TAG", action="append")
    add("--republish", "publish every write again, from a pattern to another", metavar="SOURCE:DESTINATION")
    add("--republish-headers-only", "publish the headers without the value", action=BooleanOptionalAction)
    add("--mirror", "be a copy of another bucket, to which goes what is written here", metavar="BUCKET[@DOMAIN]")
    add("--source", "a bucket to take entries from; repeatable", metavar="BUCKET[@DOMAIN]", action="append")
    if changes:
        for name in _EMPTIED:
            group.add_argument(f"--no-{name}", action="store_true", help=f"take back {_TAKEN_BACK[name]}")


def read(options: Mapping[str, Any], present: Callable[[], BucketStatus] | None = None) -> dict[str, Any]:
    """Return the configuration that ``options`` give, without those that they do not.

    ``present`` is the status of the bucket, for options that change a part of one key. Raises ``UsageError``, naming
    the option, for a text that cannot be read.
    """
    _check_emptied(options)
    config: dict[str, Any] = {}
    for name, (key, reader) in _READERS.items():
        given = options[name]
        if given is not None:
            config[key] = _read(name, given, reader)
    config |= _placement(options, present) | _republish(options, present)
    for name, (key, empty) in _EMPTIED.items():
        if options.get(f"no_{name}"):
            config[key] = empty
    return config


def _check_emptied(options: Mapping[str, Any]) -> None:
    for name in _EMPTIED:
        given = [each for each in options if f"{each}_".startswith(f"{name}_") and options[each] is not None]
        if options.get(f"no_{name}") and given:
            raise UsageError(f"--no-{name} contradicts --{given[0].replace('_', '-')}: give one of them.")


def _read(name: str, given: Any, reader: Callable[[Any], Any]) -> Any:
    try:
        return reader(given)
    except UsageError as error:
        raise UsageError(f"--{name.replace('_', '-')}: {error}") from None


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"{text!r} is not KEY=VALUE.")
    return key, value


def _origin(text: str) -> dict[str, str]:
    bucket, at, domain = text.partition("@")
    if at and not domain:
        raise UsageError(f"{text!r} has no domain after the @.")
    return {"bucket": bucket, **({"domain": domain} if domain else {})}


def _placement(options: Mapping[str, Any], present: Callable[[], BucketStatus] | None) -> dict[str, Any]:
    cluster: str | None = options["placement_cluster"]
    tags: Sequence[str] | None = options["placement_tag"]
    if cluster is None and tags is None:
        return {}
    # Two options for one key: the half that was not given stays.
    before = (present().placement if present else None) or {}
    cluster = before.get("cluster") if cluster is None else cluster
    tags = before.get("tags") if tags is None else tags
    return {"placement": {"cluster": cluster or None, "tags": list(tags or ())}}


def _republish(options: Mapping[str, Any], present: Callable[[], BucketStatus] | None) -> dict[str, Any]:
    pattern: str | None = options["republish"]
    headers_only: bool | None = options["republish_headers_only"]
    if pattern is None and headers_only is None:
        return {}
    republish = dict((present().republish if present else None) or {})
    if pattern is not None:
        source, colon, destination = pattern.partition(":")
        if not (colon and destination):
            raise UsageError(f"--republish: {pattern!r} is not SOURCE:DESTINATION.")
        republish |= {"source": source or ">", "destination": destination}
    if not republish:
        raise UsageError("--republish-headers-only needs --republish: there is nothing else to publish.")
    if headers_only is not None:
        republish["headers_only"] = headers_only
    return {"republish": republish}


# call_command() hands over keyword arguments as they are: a number there is read as the same text would be.
_READERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "description": ("description", str),
    "history": ("history", lambda given: parse_number(str(given))),
    "ttl": ("ttl_ms", lambda given: parse_duration(str(given))),
    "limit_marker_ttl": ("limit_marker_ttl_ms", lambda given: parse_duration(str(given))),
    "max_value_size": ("max_value_size", lambda given: parse_size(str(given))),
    "max_bucket_size": ("max_bucket_size", lambda given: parse_size(str(given))),
    "storage": ("storage", str),
    "discard": ("discard", str),
    "replicas": ("replicas", lambda given: parse_number(str(given))),
    "compression": ("compression", bool),
    "metadata": ("metadata", lambda given: dict(_pair(item) for item in given)),
    "mirror": ("mirror", _origin),
    "source": ("sources", lambda given: [_origin(item) for item in given]),
}
_TAKEN_BACK = {
    "metadata": "all metadata",
    "placement": "cluster and tags",
    "republish": "what is published again",
    "source": "all sources",
}
_EMPTIED: dict[str, tuple[str, Any]] = {
    "metadata": ("metadata", {}),
    "placement": ("placement", {}),
    "republish": ("republish", {}),
    "source": ("sources", []),
}
