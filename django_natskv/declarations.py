"""Which buckets a project declares, and who reads them from a local cache: settings, and whoever registers here.

Owns how declarations come together. Must not know who else declares (caches, the registry), nor what the server has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from django.core.exceptions import ImproperlyConfigured

from django_natskv import conf
from django_natskv.kv import BucketConfig


@dataclass(frozen=True, slots=True)
class Declaration:
    """One bucket as somebody wants it. ``source`` is the place of it, as one would look for it.

    ``local_cache`` is the mode of the local cache that ``source`` reads the bucket from, "mirror" or "invalidate";
    None if it has none.
    """

    config: BucketConfig
    source: str
    local_cache: str | None = None


@dataclass(frozen=True, slots=True)
class Declared:
    """One bucket as all who declare it want it, together."""

    config: BucketConfig
    sources: tuple[str, ...]


Provider = Callable[[str], Iterable[Declaration]]
_providers: list[Provider] = []


def register(provider: Provider) -> None:
    """Have ``provider(alias)`` asked for the declarations of an alias, whenever they are wanted; twice is once.

    To be called while the project is set up, from an ``AppConfig.ready()`` for instance. The provider reads what is
    declared now, and connects to nothing.
    """
    if provider not in _providers:
        _providers.append(provider)


def declared_buckets(alias: str) -> dict[str, Declared]:
    """Return the buckets that are declared for a connection, by name, sorted.

    A bucket that is declared in several places has the options of all of them. Raises ``ImproperlyConfigured`` where
    two want different things of it, and for settings that cannot be used; ``ConnectionDoesNotExist``.
    """
    declared: dict[str, Declared] = {}
    for declaration in _declarations(alias):
        name = declaration.config.bucket
        known = declared.get(name)
        sources = (*known.sources, declaration.source) if known else (declaration.source,)
        given = known.config.given() if known else {}
        for option, value in declaration.config.given().items():
            if given.setdefault(option, value) != value:
                message = (
                    f"The bucket {name!r} is declared with {option} {given[option]!r} and {value!r}, in "
                    f"{' and '.join(sources)}: it can only have one."
                )
                raise ImproperlyConfigured(message)
        declared[name] = Declared(BucketConfig.parse(given), sources)
    return dict(sorted(declared.items()))


def declared_readers(alias: str, bucket: str) -> dict[str, str]:
    """Return who declares to read a bucket from a local cache, and the mode of each, by source.

    Where declarations contradict one another this still tells. Raises ``ImproperlyConfigured`` for settings that cannot
    be used, and ``ConnectionDoesNotExist``.
    """
    return {
        declaration.source: declaration.local_cache
        for declaration in _declarations(alias)
        if declaration.config.bucket == bucket and declaration.local_cache is not None
    }


def _declarations(alias: str) -> Iterator[Declaration]:
    for name, config in conf.connection_settings(alias).buckets.items():
        yield Declaration(
            BucketConfig.parse({**config, "bucket": name}), f'{conf.SETTING}["{alias}"]["BUCKETS"]["{name}"]'
        )
    for provider in _providers:
        yield from provider(alias)
