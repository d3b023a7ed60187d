"""Under changes and faults that a seed chooses, what watches tell and local caches hold is what is in the bucket."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_natskv import kv
from django_natskv.exceptions import OperationalError
from django_natskv.kv.names import matcher
from tests.chaos.control import Control
from tests.chaos.copies import FILTERED, OTHER_PROCESS, PROBE, Copies
from tests.chaos.writers import Held, Writers
from tests.fix_connections import Program
from tests.fix_facade import ConnectKV
from tests.fix_proxy import Proxy
from tests.fix_recoveries import Recovered, Took
from tests.fix_servers import MakeServer, NatsCluster, NatsServer
from tests.fix_waiting import eventually

FAULTS = 3  # a run
TRAFFIC = 500  # changes after each
SETTLED = 30.0  # seconds in which everything must be equal when the changes are over; expiries take their time
ANOTHER_PROCESS = 5  # seeds of which one has a local cache in another process too
WATCHES, CACHES = "watches", "local caches"


class Fold:
    """The sum of the entries that a handler was given."""

    def __init__(self, patterns: tuple[str, ...] = (">",)) -> None:
        self.held: Held = {}
        self.wanted = matcher(patterns)
        self.entries = 0

    def take(self, entry: kv.Entry) -> None:
        self.entries += 1
        if entry.operation == "put":
            self.held[entry.key] = (entry.value, entry.revision)
        else:
            self.held.pop(entry.key, None)

    async def take_slowly(self, entry: kv.Entry) -> None:
        await asyncio.sleep(0)
        self.take(entry)

    def part(self, held: Held) -> Held:
        return {key: value for key, value in held.items() if self.wanted(key)}


class Setting:
    """A bucket with watches and local caches, its writers, and the server or cluster that is to be broken."""

    def __init__(
        self,
        servers: list[NatsServer],
        proxies: list[Proxy],
        control: Any,
        machine: Control,
        config: dict[str, Any],
        seed: int,
    ) -> None:
        self.servers = servers
        self.proxies = proxies
        self.control = control  # a KV context that the faults of the network do not reach
        self.machine = machine
        self.config = config
        self.name: str = config["bucket"]
        self.random = random.Random(seed)
        self.folds: dict[str, Fold] = {}
        self.watches: list[kv.Watch] = []
        self.bucket: Any = None
        self.copies: Copies

    def ensure(self) -> None:
        """Make the bucket, if it is gone."""
        eventually(lambda: self._done(lambda: self.control.create_bucket(self.config)), 20, "the bucket is made")
        self.bucket = self.control.open_bucket(self.name)

    def watch(self, bucket: Any, name: str, patterns: tuple[str, ...] = (">",), deliver: str = "latest") -> None:
        fold = self.folds[name] = Fold(patterns)
        self.watches.append(bucket.watch(fold.take, keys=list(patterns), deliver=deliver))

    def watch_awaited(self, bucket: Any, home: asyncio.AbstractEventLoop) -> None:
        fold = self.folds["awaited"] = Fold()
        begun = asyncio.run_coroutine_threadsafe(bucket.awatch(fold.take_slowly), home)
        self.watches.append(begun.result(30))

    def probe(self) -> dict[str, Took]:
        """Write something that all must have, and return how long after that the last of them had."""
        token = f"probe-{self.random.random()}"
        # A fault lasts until the bucket can be written again: without a leader, for some seconds.
        eventually(lambda: self._done(lambda: self.bucket.put(PROBE, token)), 20, "a probe is written")
        begun, held_up = time.monotonic(), self.machine.held_up()
        known: dict[str, Took] = {}

        def took() -> Took:
            return Took(time.monotonic() - begun, self.machine.held_up() - held_up)

        def everybody_knows() -> bool:
            if WATCHES not in known and not self.behind(token):
                known[WATCHES] = took()
            if CACHES not in known and self.copies.knows(token):
                known[CACHES] = took()
            assert len(known) == len((WATCHES, CACHES)), (known, self.behind(token), self.copies.caches)
            return True

        eventually(everybody_knows, 30, f"everybody knows of {token}")
        self.copies.check_own_writes()
        return known

    def undone(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Return what to be in while a fault may undo what was acknowledged."""
        undoes = name in ("kill", "make anew") or (name == "restart" and self.config["storage"] == "memory")
        return self.copies.standing.undone() if undoes else contextlib.nullcontext()

    def behind(self, token: str) -> list[str]:
        return [name for name, fold in self.folds.items() if fold.held.get(PROBE, ("", 0))[0] != token]

    @staticmethod
    def _done(work: Callable[[], object]) -> bool:
        try:
            work()
        except OperationalError:
            return False
        return True

    # --- what can happen; each leaves things in order ---

    def kill(self) -> None:
        server = self.random.choice(self.servers)
        server.kill()
        time.sleep(self.random.uniform(0, 0.5))
        server.start()
        self.ensure()

    def restart(self) -> None:
        server = self.random.choice(self.servers)
        server.stop()
        time.sleep(self.random.uniform(0, 0.5))
        server.start()
        self.ensure()

    def freeze(self) -> None:
        server = self.random.choice(self.servers)
        server.freeze()
        time.sleep(self.random.uniform(0.2, 2))
        server.thaw()

    def cut(self) -> None:
        for proxy in self.proxies:
            proxy.cut(reset=self.random.random() < 0.5)

    def blackhole(self) -> None:
        for proxy in self.proxies:
            proxy.blackhole()
        time.sleep(self.random.uniform(0.2, 4))
        if self.random.random() < 0.5:
            for proxy in self.proxies:
                proxy.cut()  # what was sent meanwhile is lost
        for proxy in self.proxies:
            proxy.heal()

    def refuse(self) -> None:
        for proxy in self.proxies:
            proxy.refuse(cut=True)
        time.sleep(self.random.uniform(0.2, 2))
        for proxy in self.proxies:
            proxy.accept()

    def delete_consumers(self, writers: Writers) -> None:
        for consumer in writers.insist(f"CONSUMER.NAMES.KV_{self.name}")["consumers"] or ():
            writers.insist(f"CONSUMER.DELETE.KV_{self.name}.{consumer}")

    def make_anew(self) -> None:
        eventually(lambda: self._done(lambda: self.control.delete_bucket(self.name)), 30, "the bucket is deleted")
        time.sleep(self.random.choice([0, 0, 0.3, 1]))
        self.ensure()

    def purge(self, writers: Writers) -> None:
        writers.ask(f"STREAM.PURGE.KV_{self.name}", {"filter": f"$KV.{self.name}.{self.random.choice('abc')}.>"})

    def purge_deletes(self) -> None:
        self._done(self.bucket.purge_deletes)

    def happenings(self, writers: Writers) -> dict[str, Callable[[], None]]:
        return {
            "kill": self.kill,
            "restart": self.restart,
            "freeze": self.freeze,
            "cut": self.cut,
            "blackhole": self.blackhole,
            "refuse": self.refuse,
            "delete consumers": lambda: self.delete_consumers(writers),
            "make anew": self.make_anew,
            "purge": lambda: self.purge(writers),
            "purge deletes": self.purge_deletes,
        }

    # --- the end ---

    def differences(self, writers: Writers) -> str:
        """Return how what all know differs from what is in the bucket; "" when it does not."""
        held = writers.held()
        if held is None:
            return "the server does not answer"
        told = [
            f"{name}: {key} is {fold.held.get(key)} and should be {fold.part(held).get(key)}"
            for name, fold in self.folds.items()
            for key in sorted(fold.held.keys() | fold.part(held).keys())
            if fold.held.get(key) != fold.part(held).get(key)
        ]
        return "; ".join(told + self.copies.differences(held))

    def settle(self, writers: Writers, timeout: float) -> None:
        """Wait until what all know is what is in the bucket."""

        def equal() -> bool:
            assert not self.differences(writers), self.differences(writers)
            return True

        eventually(equal, timeout, "what is known is what is there")


@pytest.fixture
def machine() -> Iterator[Control]:
    """What tells how busy the machine is with other things."""
    with Control() as control:
        yield control


@pytest.fixture
def home() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs on a thread of its own, as that of an application would."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def run(setting: Setting, writers: Writers, happenings: list[str], recovered: Recovered) -> None:
    chosen = [setting.random.choice(happenings) for _ in range(FAULTS)]
    print("faults:", *chosen, "on", setting.config)
    setting.probe()
    for name in chosen:
        with setting.undone(name):
            setting.happenings(writers)[name]()
            recovered(name, setting.probe())
        changes = writers.changes
        eventually(lambda: writers.changes > changes + TRAFFIC, 30, "the bucket is changed meanwhile")  # noqa: B023
        assert not setting.copies.broken, setting.copies.broken
    end(setting, writers, SETTLED)


def end(setting: Setting, writers: Writers, timeout: float) -> None:
    writers.stop()
    setting.copies.quiet()
    print(f"{writers.changes:,} changes, the last of them", writers.last())
    print("told:", {name: fold.entries for name, fold in setting.folds.items()})
    begun = time.monotonic()
    setting.settle(writers, timeout)
    setting.copies.stop()
    print(f"settled in {time.monotonic() - begun:.1f} s; checked:", setting.copies.checks)
    assert not setting.copies.broken, setting.copies.broken
    setting.copies.close_other()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_what_watches_tell_and_local_caches_hold_is_what_is_in_the_bucket(
    seed: int,
    make_server: MakeServer,
    make_proxy: Callable[[str], Proxy],
    connect_kv: ConnectKV,
    program: Callable[..., Program],
    home: asyncio.AbstractEventLoop,
    bucket_name: str,
    *,
    machine: Control,
    recovered: Recovered,
    caplog: pytest.LogCaptureFixture,
):
    server = make_server()
    proxy = make_proxy(server.url)
    chance = random.Random(seed)
    config = {
        "bucket": bucket_name,
        "storage": chance.choice(["file", "file", "memory"]),
        "history": chance.choice([1, 1, 5]),
        "ttl_ms": chance.choice([0, 0, 0, 4_000]),
        "limit_marker_ttl_ms": chance.choice([0, 0, 1_000]),
    }
    control = connect_kv(server).kv()
    setting = Setting([server], [proxy], control, machine, config, seed)
    setting.ensure()
    connection = connect_kv(proxy.url)
    bucket = connection.kv().open_bucket(bucket_name)
    setting.watch(bucket, "updates")  # adds up only from an empty bucket on
    setting.copies = Copies(connection, control, config, seed)
    with Writers([server.url], bucket_name, seed) as writers, setting.copies:
        if not seed % ANOTHER_PROCESS:
            setting.copies.other = program(OTHER_PROCESS, {"default": {"SERVERS": proxy.url}}, BUCKET=bucket_name)
        setting.watch(bucket, "latest")
        setting.watch(bucket, "filtered", FILTERED)
        setting.watch(bucket, "history", deliver="history")
        setting.watch_awaited(bucket, home)
        run(setting, writers, list(setting.happenings(writers)), recovered)
        for watch in setting.watches:
            watch.stop()
        setting.copies.close()
        eventually(lambda: not server.consumers(), 30, "no consumer is left behind")
    told = [record for record in caplog.records if record.name == "django_natskv.watch"]
    lines = [record for record in told if bucket_name in record.getMessage()]  # and not of a test before
    # For each fault and each that watches: a few kinds of trouble, and that it is over.
    assert len(lines) <= FAULTS * (len(setting.watches) + len(setting.copies.caches)) * 6, [
        record.getMessage() for record in lines
    ]
    assert not [record for record in lines if record.levelname == "ERROR"]


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(180)
def test_what_watches_tell_and_local_caches_hold_of_a_replicated_bucket_is_what_is_in_it(
    seed: int,
    make_cluster: Callable[[], NatsCluster],
    connect_kv: ConnectKV,
    program: Callable[..., Program],
    home: asyncio.AbstractEventLoop,
    bucket_name: str,
    *,
    machine: Control,
    recovered: Recovered,
):
    cluster = make_cluster()
    config = {"bucket": bucket_name, "replicas": 3, "storage": "file"}
    control = connect_kv(cluster.urls, request_timeout=3.0).kv()
    setting = Setting(cluster.servers, [], control, machine, config, seed)
    setting.ensure()
    connection = connect_kv(cluster.urls)
    bucket = connection.kv().open_bucket(bucket_name)
    setting.copies = Copies(connection, control, config, seed)

    def kill_the_leader() -> None:
        leader = eventually(lambda: cluster.leader(f"KV_{bucket_name}"), 15, "the bucket has a leader")
        assert leader is not None
        leader.kill()
        time.sleep(setting.random.uniform(0, 1))
        leader.start(wait=False)

    with Writers(cluster.urls, bucket_name, seed) as writers, setting.copies:
        if seed % 2:
            setting.copies.other = program(OTHER_PROCESS, {"default": {"SERVERS": cluster.urls}}, BUCKET=bucket_name)
        setting.watch(bucket, "latest")
        setting.watch(bucket, "filtered", FILTERED)
        setting.watch_awaited(bucket, home)
        setting.probe()
        for name, happen in (
            ("kill leader", kill_the_leader),
            ("delete consumers", lambda: setting.delete_consumers(writers)),
            ("kill leader", kill_the_leader),
        ):
            happen()
            recovered(name, {f"{who}, three servers": took for who, took in setting.probe().items()})
        end(setting, writers, 2 * SETTLED)
