"""Suite ``registry``: what reading one setting costs, and one object of many.

Owns which peers meet. Knows nothing of how ratios are formed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from django.core.management import call_command
from django.db import models

from benchmarks.pairs import Batch, Contest, Sample
from benchmarks.peers import library
from benchmarks.servers import Missing, Servers
from django_natskv import registry

PLAIN = "attribute of an object, through a function"
READS = 50_000  # a batch
READ_SECONDS = 0.5e-6  # the aim of a read
SLOW = 500  # of a peer that makes a round trip each time
BUCKET = "benchmark-registry"
ASKED = ("database", "Redis")  # backends of constance that make a round trip, or a query, each time
CONSTANCE = {"memory": "memory.MemoryBackend", "database": "database.DatabaseBackend"}
CONSTANCE_REDIS = {"Redis": "redisd.RedisBackend", "caching": "redisd.CachingRedisBackend"}


class Stored(registry.Config):
    banner = models.CharField(max_length=80, blank=True)

    class Meta:
        app_label = "benchmarks"
        bucket = BUCKET


class Unstored(registry.Config):
    banner = models.CharField(max_length=80, blank=True)

    class Meta:
        app_label = "benchmarks"
        bucket = BUCKET


class Scoped(registry.Config):
    banner = models.CharField(max_length=80, blank=True)

    class Meta:
        app_label = "benchmarks"
        bucket = BUCKET
        scopes = ("site",)


class Carrier(registry.Model):
    code = models.SlugField(primary_key=True)
    active = models.BooleanField(default=True)

    class Meta:
        app_label = "benchmarks"
        bucket = BUCKET


def contests(servers: Servers, count: int | None) -> Iterator[Contest]:
    """Yield the contests, each ready to run. ``count`` reads instead of 50,000, for a quick look."""
    Stored.objects.update(lambda cfg: setattr(cfg, "banner", "Sale"))
    Scoped.for_scope(site=3).objects.update(lambda cfg: setattr(cfg, "banner", "Sale"))
    for number in range(100):
        Carrier.objects.get_or_create(code=f"carrier-{number}")
    registry.wait_ready(30)
    peers = settings_of(servers)
    limits = {name: READ_SECONDS for name in peers if "current.banner" in name}
    yield Contest("read a setting", PLAIN, peers, {}, count or READS, limits=limits)
    yield Contest("read one object of 100", PLAIN, objects(), {}, count or READS // 50)


def settings_of(servers: Servers) -> dict[str, Batch]:
    class Plain:
        banner = "Sale"

    plain = Plain()

    def through() -> Any:
        return plain.banner

    found = {
        PLAIN: reading(through),
        "current.banner": reading(lambda: Stored.current.banner),
        "current.banner, nothing stored": reading(lambda: Unstored.current.banner),
    }
    scope = Scoped.for_scope(site=3)
    found["current.banner of a scope that is kept"] = reading(lambda: scope.current.banner)
    found["for_scope(site=3).current.banner"] = reading(lambda: Scoped.for_scope(site=3).current.banner)
    for name, config in constance(servers).items():
        found[f"constance, {name}"] = reading(partial(getattr, config, "BANNER"), SLOW if name in ASKED else None)
    return found


def constance(servers: Servers) -> dict[str, Any]:
    """Return django-constance's settings on each backend, as far as it is there; the database is SQLite in memory."""
    try:
        base, found = library("constance.base"), {}
    except Missing:
        return {}
    call_command("migrate", run_syncdb=True, verbosity=0)
    for name, backend in (CONSTANCE | (CONSTANCE_REDIS if servers.redis else {})).items():
        base.settings.BACKEND = f"constance.backends.{backend}"
        found[name] = base.Config()
        found[name].BANNER = "Sale"
    return found


def objects() -> dict[str, Batch]:
    kept = {f"carrier-{number}": object() for number in range(100)}
    return {
        PLAIN: reading(lambda: kept.get("carrier-7")),
        "objects.get(pk=...)": reading(lambda: Carrier.objects.get(pk="carrier-7")),
        "list(objects.filter(active=True))": reading(lambda: list(Carrier.objects.filter(active=True)), SLOW),
    }


def reading(read: Callable[[], Any], most: int | None = None) -> Batch:
    def batch(count: int) -> Sample:
        turns = range(count if most is None else min(count, most))
        began = time.perf_counter()
        for _ in turns:
            read()
        return {"time": (time.perf_counter() - began) / len(turns)}

    return batch
