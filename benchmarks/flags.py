"""Suite ``flags``: what asking a flag costs, and how soon a change has reached every worker.

Owns which peers meet. Knows nothing of how ratios are formed.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.core.management import call_command
from django.http import HttpRequest

from benchmarks.pairs import TIME, Batch, Contest, Sample
from benchmarks.peers import library
from benchmarks.servers import Servers
from benchmarks.setup import DJANGO_FLAGS, LOCMEM, others
from benchmarks.workers import workers
from django_natskv import registry
from django_natskv.registry import rules as r
from django_natskv.registry.flags import anonymous

PLAIN = "attribute of an object, through a function"
OURS, PINNED = "on(request)", "on(request), RegistryMiddleware"
WAFFLE, WAFFLE_REDIS, FLAGS = "waffle, LocMem", "waffle, Redis", "django-flags"
ANSWER, FLIP = "an answer alone", "from the write to the answer"
ASKED = 500  # times a batch
VIEWS = 50  # a batch
STATIC_SECONDS, FIRST_SECONDS, AGAIN_SECONDS, EFFECT_SECONDS = 0.3e-6, 30e-6, 0.5e-6, 0.05
SHARE = 25  # per cent
STATIC, TARGETED, ROLLOUT = "static", "targeted", "rollout"

Ask = Callable[[HttpRequest], Any]
New = Callable[[], HttpRequest]
Batched = tuple[Ask, str]  # and the cache that waffle has meanwhile
Way = Callable[..., Batch]


class Benchmarked(registry.FlagSet):
    static = registry.Flag()
    targeted = registry.Flag()
    rollout = registry.Flag()

    class Meta:
        bucket = "benchmark-flags"


# A view asks twenty different ones. Written in full they would fill a page.
VIEW = [f"{kind}_{number:02}" for kind, many in ((STATIC, 12), (TARGETED, 4), (ROLLOUT, 4)) for number in range(many)]
View: Any = type(
    "View",
    (registry.FlagSet,),
    {
        "__module__": __name__,
        "Meta": type("Meta", (), {"bucket": "benchmark-flags"}),
        **{name: registry.Flag() for name in VIEW},
    },
)


def contests(servers: Servers, count: int | None) -> Iterator[Contest]:
    """Yield the contests, each ready to run. ``count`` questions instead of 500, for a quick look."""
    fill()
    asked = count or ASKED
    yield static(servers, asked)
    for title, flag, new in (
        ("a flag for staff", TARGETED, signed_in),
        (f"a rollout to {SHARE} %, to a user", ROLLOUT, signed_in),
        (f"a rollout to {SHARE} %, to a visitor with a cookie", ROLLOUT, visiting),
    ):
        yield targeted(f"{title}, first in a request", servers, partial(first, new), flag, asked, FIRST_SECONDS)
        yield targeted(f"{title}, again in that request", servers, partial(again, new), flag, asked, AGAIN_SECONDS)
    yield view(servers, count or VIEWS)
    with workers(servers.nats) as running:
        # One flip a round: the median over the rounds is one over so many flips.
        peers: dict[str, Batch] = {ANSWER: running.answer, FLIP: running.flip}
        yield Contest("a flag switched by manage.py", ANSWER, peers, count=1, limits={FLIP: EFFECT_SECONDS})


def fill() -> None:
    """Store the same flags everywhere."""
    for flag in (*Benchmarked, *View):
        if flag.name.startswith(TARGETED):
            flag.set(True, when=r.staff, otherwise=False)
        elif flag.name.startswith(ROLLOUT):
            flag.set(True, when=r.percentage(SHARE), otherwise=False)
        else:
            flag.set(True)
    call_command("migrate", verbosity=0)
    model = library("waffle").get_waffle_flag_model()
    ways: dict[str, dict[str, Any]] = {
        STATIC: {"everyone": True},
        TARGETED: {"staff": True},
        ROLLOUT: {"percent": SHARE},
    }
    for name in (STATIC, TARGETED, ROLLOUT, *VIEW):
        model.objects.create(name=name, superusers=False, **ways[name.partition("_")[0]])
    if DJANGO_FLAGS in others():
        states = library("flags.models").FlagState.objects
        for name in (STATIC, TARGETED, ROLLOUT, *VIEW):
            # It knows no staff and no percentages: a user by name stands for both.
            condition = ("boolean", "True") if name.startswith(STATIC) else ("user", "somebody")
            states.create(name=name, condition=condition[0], value=condition[1])


# --- who asks ---


def signed_in() -> HttpRequest:
    return _request(User(pk=7, username="somebody", is_staff=True))


def visiting() -> HttpRequest:
    request = _request(AnonymousUser())
    request.COOKIES[anonymous.COOKIE] = VISITOR
    request.COOKIES[f"dwf_{ROLLOUT}"] = "True"
    return request


def _request(user: Any) -> HttpRequest:
    request = HttpRequest()
    request.user = user
    return request


VISITOR = anonymous.to_cookie(anonymous.make())


# --- what is asked ---


def theirs(servers: Servers, ask: Callable[[Callable[..., Any]], Ask], *, divided: bool = False) -> dict[str, Batched]:
    """Return how waffle and django-flags are asked, and the cache of waffle's; ``ask`` makes it of their function."""
    active = ask(library("waffle").flag_is_active)
    found: dict[str, Batched] = {WAFFLE: (active, LOCMEM)}
    if servers.redis:
        found[WAFFLE_REDIS] = (active, "memory")
    if DJANGO_FLAGS in others() and not divided:  # it has no percentages
        enabled = library("flags.state").flag_enabled
        found[FLAGS] = (ask(lambda request, name: enabled(name, request=request)), LOCMEM)
    return found


def static(servers: Servers, count: int) -> Contest:
    class Plain:
        on = True

    def ask(request: HttpRequest) -> bool:
        return Benchmarked.static.on(request)

    plain, request = Plain(), signed_in()
    peers: dict[str, Batched] = {
        PLAIN: (lambda _: plain.on, LOCMEM),
        OURS: (ask, LOCMEM),
        PINNED: (ask, LOCMEM),
        **theirs(servers, lambda function: lambda request: function(request, STATIC)),
    }
    batches = {name: again(lambda: request, *each, pinned=name == PINNED) for name, each in peers.items()}
    limits = dict.fromkeys((OURS, PINNED), STATIC_SECONDS)
    return Contest("a flag that is on for everyone", PLAIN, batches, count=count, limits=limits)


def targeted(title: str, servers: Servers, way: Way, name: str, count: int, limit: float) -> Contest:
    flag: registry.Flag = getattr(Benchmarked, name)

    def ask(request: HttpRequest) -> bool:
        return flag.on(request)

    peers: dict[str, Batched] = {
        **theirs(servers, lambda function: lambda request: function(request, name), divided=name == ROLLOUT),
        OURS: (ask, LOCMEM),
        PINNED: (ask, LOCMEM),
    }
    batches = {peer: way(*each, pinned=peer == PINNED) for peer, each in peers.items()}
    return Contest(title, WAFFLE, batches, count=count, limits=dict.fromkeys((OURS, PINNED), limit))


def view(servers: Servers, count: int) -> Contest:
    flags = list(View)
    peers: dict[str, Batched] = {
        **theirs(servers, lambda function: lambda request: [function(request, name) for name in VIEW]),
        OURS: (lambda request: [flag.on(request) for flag in flags], LOCMEM),
        PINNED: (lambda request: [flag.on(request) for flag in flags], LOCMEM),
    }
    batches = {name: first(signed_in, *each, pinned=name == PINNED) for name, each in peers.items()}
    return Contest(f"{len(flags)} flags in a view", WAFFLE, batches, count=count)


# --- how it is timed ---


def first(new: New, ask: Ask, cache: str, *, pinned: bool) -> Batch:
    """Each question is asked in a request of its own, which is there before the clock starts; the median of them."""

    def batch(count: int) -> Sample:
        settings.WAFFLE_CACHE_NAME = cache
        took = []
        for request in [new() for _ in range(count)]:
            with registry.snapshot() if pinned else contextlib.nullcontext():
                began = time.perf_counter()
                ask(request)
                took.append(time.perf_counter() - began)
        return {TIME: statistics.median(took)}

    return batch


def again(new: New, ask: Ask, cache: str, *, pinned: bool) -> Batch:
    """All questions but the first, which is not counted, are asked in one request."""

    def batch(count: int) -> Sample:
        settings.WAFFLE_CACHE_NAME = cache
        request = new()
        with registry.snapshot() if pinned else contextlib.nullcontext():
            ask(request)
            began = time.perf_counter()
            for _ in range(count):
                ask(request)
            return {TIME: (time.perf_counter() - began) / count}

    return batch
