"""Writes when things break: what was acknowledged stays, what is in doubt says so, and nothing is applied twice."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_natskv import kv
from django_natskv.exceptions import (
    BucketNotFound,
    NotConnected,
    OperationalError,
    OperationTimedOut,
    WrongRevision,
)
from tests.fix_waiting import eventually

WRITES = {
    "put": lambda bucket, first: bucket.put("a", "new"),
    "update": lambda bucket, first: bucket.update("a", "new", first),
    "create": lambda bucket, first: bucket.create("b", "new"),
    "create over a marker": lambda bucket, first: bucket.create("c", "new"),
    "delete": lambda bucket, first: bucket.delete("a"),
    "delete guarded": lambda bucket, first: bucket.delete("a", revision=first),
    "purge": lambda bucket, first: bucket.purge("a"),
    "purge guarded": lambda bucket, first: bucket.purge("a", revision=first),
}


@pytest.fixture
def reach(make_server, make_proxy, connect_kv, face, bucket_name):
    """Give a bucket reached through a proxy, the same bucket reached directly, the proxy and the server."""

    def reach(request_timeout):
        server = make_server()
        proxy = make_proxy(server.url)
        direct = face.wrap(connect_kv(server, request_timeout=20.0)).kv()
        direct = direct.create_bucket({"bucket": bucket_name, "history": 20})
        connection = connect_kv(proxy.url, request_timeout=request_timeout)
        return face.wrap(connection).kv().open_bucket(bucket_name), direct, proxy, server

    return reach


@pytest.fixture
def through_proxy(reach):
    """Where an answer is waited for that does not come."""
    return reach(1.0)


@pytest.fixture
def through_cuts(reach):
    """Where a line is cut and comes back, which takes a busy machine a while."""
    return reach(20.0)


def last_revision(server, bucket):
    return server.streams()[f"KV_{bucket.name}"]["state"]["last_seq"]


@pytest.mark.parametrize("write", WRITES)
def test_a_write_whose_answer_is_lost_is_applied_once_and_told_truly(through_cuts, write, face):
    bucket, direct, proxy, server = through_cuts
    first = direct.put("a", "old")
    direct.delete("c")
    before, asked = last_revision(server, bucket), messages(server)
    key = {"create": "b", "create over a marker": "c"}.get(write, "a")

    def cut_when_it_has_arrived():
        # A create over a marker is refused first, which writes nothing: there it is that answer that is lost.
        refused = write == "create over a marker"
        eventually(lambda: messages(server) > asked if refused else last_revision(server, bucket) > before, 15)
        proxy.cut()
        proxy.heal()

    proxy.pause("replies")
    with ThreadPoolExecutor(1) as pool:
        cutting = pool.submit(cut_when_it_has_arrived)
        try:
            result = WRITES[write](bucket, first)
        except OperationTimedOut as error:
            assert error.may_have_been_applied  # noqa: PT017
            result = "in doubt"
        cutting.result()
    entries = direct.history(key)
    new = [entry for entry in entries if entry.revision > before]
    assert len(new) == 1 or (not new and write == "create over a marker" and result == "in doubt")
    if result != "in doubt" and result is not None:
        assert new[0].revision == result
    # Once the connection is back, all is well.
    eventually(lambda: quietly(bucket.get, "a") or True)
    eventually(lambda: succeeds(lambda: bucket.put("after", 1)))


def messages(server):
    return sum(one["in_msgs"] for one in server.connections())


def quietly(call, *arguments):
    with contextlib.suppress(OperationalError):
        return call(*arguments)
    return None


def succeeds(call):
    try:
        call()
    except OperationalError:
        return False
    return True


@pytest.mark.parametrize("write", ["update", "delete guarded"])
def test_a_guarded_write_whose_answer_is_lost_is_recognized_as_ones_own(through_cuts, write):
    """The server refuses the second try, for it was the first that moved the key on: the id tells whose it is (F17)."""
    bucket, direct, proxy, server = through_cuts

    def is_settled():
        first = direct.put("a", "old")
        before = last_revision(server, bucket)

        def cut_when_it_has_arrived():
            eventually(lambda: last_revision(server, bucket) > before, 15)
            proxy.cut()
            proxy.heal()

        proxy.pause("replies")
        with ThreadPoolExecutor(1) as pool:
            cutting = pool.submit(cut_when_it_has_arrived)
            try:
                result = WRITES[write](bucket, first)
            except OperationTimedOut:  # it took too long to come back
                return False
            finally:
                cutting.result()
        assert result in (None, first + 1)
        return True

    eventually(is_settled, 50)


@pytest.mark.parametrize("write", WRITES)
def test_a_write_without_an_answer_in_time_may_have_been_applied(through_proxy, write):
    bucket, direct, proxy, _ = through_proxy
    first = direct.put("a", "old")
    direct.delete("c")
    with proxy.paused("replies"), pytest.raises(OperationTimedOut) as caught:
        WRITES[write](bucket, first)
    assert caught.value.may_have_been_applied
    assert "may have been applied" in str(caught.value)
    assert bucket.name in str(caught.value)


def test_several_writes_whose_answers_are_lost_are_each_applied_once_and_told_truly(through_cuts):
    bucket, direct, proxy, server = through_cuts
    changes = [kv.Change.put(f"k{number}", number) for number in range(20)] + [kv.Change.create("c", 1)]
    before = last_revision(server, bucket)

    def cut_when_they_have_arrived():
        eventually(lambda: last_revision(server, bucket) == before + 21, 15)
        proxy.cut()
        proxy.heal()

    proxy.pause("replies")
    with ThreadPoolExecutor(1) as pool:
        cutting = pool.submit(cut_when_they_have_arrived)
        results = bucket.write_many(changes)
        cutting.result()
    assert last_revision(server, bucket) == before + 21
    for change, result in zip(changes, results, strict=True):
        if isinstance(result, int):
            assert direct.get(change.key).revision == result
        else:
            assert result.may_have_been_applied


@pytest.mark.parametrize("deduplicate", [True, False])
def test_of_writes_whose_answers_are_lost_those_without_an_id_are_applied_again(through_proxy, deduplicate):
    """What has a guard has an id in any case, and so what was written once is not written over what came after it."""
    bucket, direct, proxy, server = through_proxy

    def is_settled():
        first = direct.put("updated", "old")
        before = last_revision(server, bucket)
        changes = [
            kv.Change.put("put", "new"),
            kv.Change.delete("deleted"),
            kv.Change.update("updated", "new", first),
            kv.Change.create(f"created{first}", "new"),
        ]

        def cut_when_they_have_arrived():
            eventually(lambda: last_revision(server, bucket) == before + 4, 0.9)
            proxy.cut()
            proxy.heal()

        proxy.pause("replies")
        with ThreadPoolExecutor(1) as pool:
            cutting = pool.submit(cut_when_they_have_arrived)
            try:
                results = bucket.write_many(changes, deduplicate=deduplicate)
            finally:
                cutting.result()
        written = [[each for each in direct.history(change.key) if each.revision > before] for change in changes]
        if not all(isinstance(result, int) for result in results):  # it took too long to come back
            return False
        assert [entries[-1].revision for entries in written] == results
        assert list(map(len, written)) == ([1, 1, 1, 1] if deduplicate else [2, 2, 1, 1])
        return True

    eventually(is_settled, 15)


def test_several_writes_without_answers_in_time_may_have_been_applied(through_proxy):
    bucket, _, proxy, _ = through_proxy
    with proxy.paused("replies"):
        results = bucket.write_many([kv.Change.put("a", 1), kv.Change.delete("b")])
    assert [result.may_have_been_applied for result in results] == [True, True]


def test_of_very_many_writes_those_that_would_wait_again_are_not_sent(through_proxy):
    bucket, _, proxy = through_proxy[:3]
    proxy.blackhole()
    results = bucket.write_many([kv.Change.put(f"k{number}", number) for number in range(600)])
    assert {type(result) for result in results} == {OperationTimedOut}
    doubtful = [result.may_have_been_applied for result in results]
    assert doubtful == [True] * 256 + [False] * 344


def test_a_read_without_an_answer_in_time_changed_nothing(through_proxy):
    bucket, direct, proxy, _ = through_proxy
    direct.put("a", 1)
    with proxy.paused("replies"), pytest.raises(OperationTimedOut) as caught:
        bucket.get("a")
    assert not caught.value.may_have_been_applied
    assert "'a'" in str(caught.value)


def test_a_change_of_a_bucket_without_an_answer_may_have_been_applied(through_proxy, face):
    bucket, direct, proxy, _ = through_proxy
    context = face.wrap(kv_context_of(bucket))
    direct.delete("gone")
    for change in (
        lambda: context.create_bucket({"bucket": "another"}),
        lambda: context.delete_bucket("another"),
    ):
        with proxy.paused("replies"), pytest.raises(OperationTimedOut) as caught:
            change()
        assert caught.value.may_have_been_applied
        eventually(lambda: succeeds(lambda: bucket.get("a")))


def kv_context_of(bucket):
    from django_natskv.kv import KVContext  # noqa: PLC0415

    wire = bucket.plain._core.wire
    return KVContext(wire, bucket.plain._runner, wire, None, None)  # type: ignore[arg-type]


def test_reads_go_on_over_a_cut(through_cuts):
    bucket, direct, proxy, _ = through_cuts
    direct.put("a", 1)
    stopping, answered = threading.Event(), threading.Event()
    seen = set()

    def cut() -> int:
        cuts = 0
        while not stopping.wait(0.05):
            if answered.is_set():  # the line has come back since, however slow the machine is
                answered.clear()
                cuts += proxy.cut()
        return cuts

    def read() -> bool:
        entry = quietly(bucket.get, "a")
        if entry:
            seen.add(entry.value)
            answered.set()
        return entry is not None

    with ThreadPoolExecutor(1) as pool:
        cutting = pool.submit(cut)
        try:
            for _ in range(3_000):
                read()
            # Without a connection a read fails at once: hundreds of them may do so between two that answer.
            eventually(lambda: read() and proxy.accepted > 3, 30)
        finally:
            stopping.set()
        assert cutting.result() > 0
    assert seen == {1}


def test_compare_and_set_under_cuts_never_lies(through_cuts):
    """One writer counts up by compare-and-set while the network is cut: each number is there once, in order."""
    bucket, direct, proxy, _ = through_cuts
    direct.put("n", 0)
    stopping, back = threading.Event(), threading.Event()

    def cut():
        while not stopping.wait(0.03):
            if back.is_set():  # since the last cut, however slow the machine is
                back.clear()
                proxy.cut()

    with ThreadPoolExecutor(1) as pool:
        cutting = pool.submit(cut)
        try:
            told = count_up(bucket, direct, 60, back)
        finally:
            stopping.set()
        cutting.result()
    assert "lied" not in told
    assert told.count("done") > 5
    values = [entry.value for entry in direct.history("n")]
    assert values == sorted(set(values))


def count_up(bucket, direct, turns, back):
    told = []
    for _ in range(turns):
        entry = direct.get("n")
        try:
            revision = bucket.update("n", entry.value + 1, entry.revision)
        except WrongRevision:
            told.append("lied")  # nobody else writes
        except OperationTimedOut as error:
            told.append("in doubt" if error.may_have_been_applied else "timed out")
        except NotConnected:
            assert direct.get("n").revision == entry.revision
            told.append("not sent")
        else:
            assert direct.get("n").revision == revision
            told.append("done")
        eventually(lambda: succeeds(lambda: bucket.get("n")))
        back.set()
    return told


@pytest.mark.slow
def test_what_was_acknowledged_survives_a_server_that_is_killed(make_server, connect_kv, face, bucket_name):
    server = make_server()
    context = face.wrap(connect_kv(server)).kv()
    bucket = context.create_bucket({"bucket": bucket_name})
    acknowledged: dict[str, int] = {}

    def write_until(done, most):
        while not done() and len(acknowledged) < most:
            number = len(acknowledged)
            try:
                acknowledged[f"k{number}"] = bucket.put(f"k{number}", number)
            except OperationalError:
                eventually(lambda: succeeds(lambda: bucket.get("k1")), 30)

    with ThreadPoolExecutor(1) as pool:
        for round_ in range(1, 4):
            write_until(lambda: False, round_ * 200)
            restarting = pool.submit(server.restart, hard=True)
            write_until(restarting.done, round_ * 200 + 100_000)
            restarting.result()
    eventually(lambda: succeeds(lambda: bucket.get("k1")), 30)
    for key, revision in acknowledged.items():
        entry = bucket.get(key)
        assert entry is not None, key
        assert (entry.revision, entry.value) == (revision, int(key[1:]))


# ---------------------------------------------------------------------- a cluster


@pytest.fixture
def clustered(make_cluster, connect_kv, face, bucket_name):
    cluster = make_cluster()
    context = face.wrap(connect_kv(cluster.urls, request_timeout=5.0)).kv()
    return cluster, context, context.create_bucket({"bucket": bucket_name, "replicas": 3, "history": 20})


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_what_was_written_to_three_is_read_at_once(clustered):
    _, context, bucket = clustered
    stale = []
    for number in range(300):
        revision = bucket.put("a", number)
        entry = bucket.get("a")
        if entry.revision != revision:
            stale.append(number)
        bucket.put(f"k.{number}", number)
        assert f"k.{number}" in bucket.get_many([f"k.{number}", "a"])
        if number % 20 == 0:
            assert len(bucket.keys("k.*")) == number + 1
            assert bucket.history("a")[-1].revision == revision
    assert stale == []
    assert context.bucket_status(bucket.name).replicas == 3
    assert context.bucket_status(bucket.name).values == 301
    bucket.delete("k.7")
    bucket.purge_deletes()
    assert len(bucket.keys("k.*")) == 299


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_a_killed_leader_loses_nothing_and_nothing_is_told_wrong(clustered):
    cluster, _, bucket = clustered
    writer = Writer(bucket)
    leader = eventually(lambda: cluster.leader(f"KV_{bucket.name}"), 30)
    with ThreadPoolExecutor(1) as pool:
        writer.write(50)
        killing = pool.submit(leader.kill)
        writer.write(150)
        killing.result()
    for key, revision in writer.acknowledged.items():
        entry = bucket.get(key)
        assert (entry.revision, entry.value) == (revision, key)
    # Written once at most: of a key that is in doubt there is one revision or none.
    assert [key for key in writer.doubtful if len(bucket.history(key)) > 1] == []


class Writer:
    """Puts keys of their own, and counts one up by compare-and-set: nobody else writes, so it is never overtaken."""

    def __init__(self, bucket):
        self.bucket = bucket
        self.acknowledged: dict[str, int] = {}
        self.doubtful: set[str] = set()
        self._number = 0
        self._counted = bucket.put("n", 0)

    def write(self, count):
        wanted = len(self.acknowledged) + count
        while len(self.acknowledged) < wanted:
            self._number += 1
            assert self._number < 2_000
            key = f"k{self._number}"
            try:
                self.acknowledged[key] = self.bucket.put(key, key)
                self._counted = self.bucket.update("n", self._number, self._counted)
            except OperationTimedOut as error:
                if error.may_have_been_applied and key not in self.acknowledged:
                    self.doubtful.add(key)
                self._recover()
            except NotConnected:
                self._recover()

    def _recover(self):
        self._counted = eventually(lambda: quietly(self.bucket.get, "n"), 40).revision


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_without_a_quorum_a_write_fails_as_what_it_is(clustered):
    cluster, _, bucket = clustered
    bucket.put("a", 1)
    for server in cluster.servers[1:]:
        server.kill()
    eventually(lambda: isinstance(outcome(lambda: bucket.put("a", 2)), OperationTimedOut), 30)
    error = outcome(lambda: bucket.put("a", 2))
    assert isinstance(error, OperationalError)
    assert not isinstance(error, WrongRevision | BucketNotFound)
    for server in cluster.servers[1:]:
        server.start(wait=False)
    eventually(lambda: succeeds(lambda: bucket.put("a", 3)), 40)
    # The bucket has its leader again; the cluster, which answers for reads, may be electing its own still.
    assert eventually(lambda: quietly(bucket.get, "a"), 40).value == 3
    assert asyncio.run(bucket.plain.aget("a")).value == 3


def outcome(call):
    try:
        return call()
    except OperationalError as error:
        return error
