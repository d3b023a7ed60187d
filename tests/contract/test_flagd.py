"""The scenarios of flagd's own test harness, with our provider in the place of theirs, on a real server.

They are fetched with the last release of flagd's Python provider whose source distribution holds them. What they say
of percentages is of an older way to divide people, and what they say of a lost connection was changed since: those
are named below, and tests of our own hold what holds today.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from gherkin.parser import Parser
from gherkin.pickles.compiler import Compiler
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent
from openfeature.provider import ProviderStatus

from django_natskv import connections, registry
from django_natskv.contrib.openfeature import NatsKVProvider
from django_natskv.registry._declaring import flag_sets
from tests.contract.django_sdist import download_sdist
from tests.fix_registry import Shelf
from tests.fix_servers import CACHE
from tests.fix_waiting import eventually
from tests.registry_classes import BUCKET

PROJECT, RELEASE = "openfeature-provider-flagd", "0.1.5"
OTHERWISE_TODAY = {
    # Vectors of the first of three ways to divide people; those of today: tests/unit/test_flag_evaluator.py.
    "Fractional operator",
    "Fractional operator with shared seed",
    "Second fractional operator with shared seed",
    # An error then, stale since: tests/integration/test_flag_openfeature.py.
    "Provider reconnection",
}


def fetched() -> Path:
    """Return a directory with flagd's test harness; fetched once, into ``.cache``."""
    place = CACHE / "flagd-harness" / RELEASE
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{RELEASE}-"))
    try:
        download_sdist(PROJECT, RELEASE, aside)
        [archive] = aside.glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(aside, filter="data")
        [inside] = aside.glob("*/test-harness")
        inside.rename(place)
    except OSError:
        if not place.exists():
            raise  # another run was not faster
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return place


def scenarios() -> Iterator[Any]:
    """Yield each scenario, with a row of its examples, as the texts of its steps."""
    for path in sorted((fetched() / "gherkin").glob("*.feature")):
        document: Any = {**Parser().parse(path.read_text()), "uri": path.name}
        for number, pickle in enumerate(Compiler().compile(document)):
            if pickle["name"] not in OTHERWISE_TODAY:
                texts = [step["text"] for step in pickle["steps"]]
                yield pytest.param(texts, id=f"{path.stem}: {pickle['name']} {number}")


def declare(name: str, definition: Mapping[str, Any]) -> registry.AnyFlag[Any]:
    """Return a flag of the type of a definition's variants."""
    variants = definition["variants"]
    if isinstance(next(iter(variants.values())), bool):
        return registry.Flag()
    return registry.Variant(variants, default=next(iter(variants)))


@pytest.fixture
def harness(flags: Shelf) -> Iterator[Path]:
    """Flagd's flags, declared and stored."""
    place, before = fetched(), list(flag_sets)
    read = [json.loads(path.read_text()) for path in sorted((place / "flags").glob("*.json"))]
    stored = {name: definition for one in read for name, definition in one["flags"].items()}
    body: dict[str, Any] = {name: declare(name, definition) for name, definition in stored.items()}
    type("Harness", (registry.FlagSet,), {**body, "Meta": type("Meta", (), {"bucket": BUCKET})})
    flags.put("_evaluators", {name: rule for one in read for name, rule in one.get("$evaluators", {}).items()})
    for name, definition in stored.items():
        flags.put(name, definition)
    eventually(lambda: all(flag.definition == stored[name] for name, flag in body.items()), 30)
    yield place
    flag_sets[:] = before
    api.clear_providers()


class World:
    """What one scenario sets, and how its steps are carried out."""

    def __init__(self, harness: Path, flags: Shelf, settings: Any) -> None:
        self.harness, self.flags, self.settings = harness, flags, settings
        self.client: OpenFeatureClient = api.get_client()
        self.attributes: dict[str, Any] = {}
        self.key: str | None = None
        self.asked: tuple[str, str, Any] = ("", "", None)
        self.heard: list[Any] = []
        self.handlers: dict[ProviderEvent, Callable[[Any], None]] = {}

    def set_provider(self) -> None:
        api.set_provider_and_wait(NatsKVProvider())

    def without_server(self) -> None:
        self.settings.NATSKV = {"default": {"SERVERS": ["nats://127.0.0.1:1"], "LOCAL_CACHE": {"WAIT": 1}}}

    def set_and_await(self) -> None:
        with pytest.raises(Exception, match="cannot be read"):
            self.set_provider()

    def is_in_error(self) -> None:
        assert self.client.get_provider_status() is ProviderStatus.ERROR
        connections.close_all()

    def add_handler(self, event: str) -> None:
        self.handlers[ProviderEvent(event)] = lambda details: self.heard.append((event, details))
        self.client.add_handler(ProviderEvent(event), self.handlers[ProviderEvent(event)])

    def handler_ran(self, event: str) -> None:
        eventually(lambda: event in [name for name, _ in self.heard], 30)

    def modify(self, name: str) -> None:
        for path in sorted((self.harness / "flags").glob("changing-flag-*.json")):  # whatever it was, it changes
            self.flags.put(name, json.loads(path.read_text())["flags"][name])

    def was_altered(self, name: str) -> None:
        eventually(lambda: any(name in details.flags_changed for _, details in self.heard), 30)

    def ask(self, kind: str, name: str, default: str) -> None:
        self.asked = (kind, name, default if kind == "string" else json.loads(default))

    def attribute(self, name: str, value: str) -> None:
        self.attributes[name] = json.loads(value)

    def nested(self, outer: str, inner: str, value: str) -> None:
        self.attributes.setdefault(outer, {})[inner] = json.loads(value)

    def targeting_key(self, key: str) -> None:
        self.key = key

    def details(self) -> Any:
        kind, name, default = self.asked
        context = EvaluationContext(self.key, self.attributes)
        return getattr(self.client, f"get_{kind}_details")(name, default, context)

    def value_is(self, value: str) -> None:
        wanted = json.loads(value.strip('"') if self.asked[0] == "boolean" else value)
        found = self.details().value
        assert (found, type(found)) == (wanted, type(wanted))

    def reason_is(self, reason: str) -> None:
        assert self.details().reason == reason


STEPS: tuple[tuple[str, Callable[..., None]], ...] = (
    (r"a flagd provider is set", World.set_provider),
    (r"flagd is unavailable", World.without_server),
    (r"a flagd provider is set and initialization is awaited", World.set_and_await),
    (r"an error should be indicated within the configured deadline", World.is_in_error),
    (r"a (\w+) handler is added", World.add_handler),
    (r"the (\w+) handler must run", World.handler_ran),
    (r'a flag with key "([^"]+)" is modified', World.modify),
    (r'the event details must indicate "([^"]+)" was altered', World.was_altered),
    (r'an? (?:zero-value )?(\w+) flag with key "([^"]+)" is evaluated with default value "?([^"]*)"?', World.ask),
    (r'a context containing a key "([^"]+)", with value (.+)', World.attribute),
    (
        r'a context containing a nested property with outer key "([^"]+)" and inner key "([^"]+)", with value (.+)',
        World.nested,
    ),
    (r'a context containing a targeting key with value "([^"]+)"', World.targeting_key),
    (r"the returned value should be (.+)", World.value_is),
    (r"the resolved \w+ zero-value should be (.+)", World.value_is),
    (r'the returned reason should be "([^"]+)"', World.reason_is),
)


@pytest.mark.parametrize("steps", list(scenarios()))
def test_flagds_own_scenarios_hold(steps: list[str], harness: Path, flags: Shelf, settings: Any) -> None:
    world = World(harness, flags, settings)
    for step in steps:
        [(found, carry_out)] = [(found, do) for words, do in STEPS if (found := re.fullmatch(words, step))]
        carry_out(world, *found.groups())
    for event, handler in world.handlers.items():
        world.client.remove_handler(event, handler)


def test_the_scenarios_were_found() -> None:
    assert len(list(scenarios())) >= 25
