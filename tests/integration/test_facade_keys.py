"""Keys: the live ones, filtered by the server, complete however fast others write."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_natskv.exceptions import BucketNotFound, InvalidKeys, OperationTimedOut
from tests.fix_facade import fill
from tests.fix_waiting import eventually

TREE = ["user", "user.1", "user.2", "user.1.name", "user.1.mail", "user.2.name", "order.1", "order.1.name", "x/y"]


@pytest.fixture
def tree(bucket):
    for key in TREE:
        bucket.put(key, key)
    return bucket


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        (None, TREE),
        (">", TREE),
        ("*", ["user", "x/y"]),
        ("user.>", ["user.1", "user.2", "user.1.name", "user.1.mail", "user.2.name"]),
        ("user.*", ["user.1", "user.2"]),
        ("*.1", ["user.1", "order.1"]),
        ("*.1.*", ["user.1.name", "user.1.mail", "order.1.name"]),
        ("*.*.name", ["user.1.name", "user.2.name", "order.1.name"]),
        ("*.1.>", ["user.1.name", "user.1.mail", "order.1.name"]),
        ("user.1", ["user.1"]),
        ("user", ["user"]),
        ("nobody.>", []),
        ("USER.>", []),
        (["user.*", "order.*"], ["user.1", "user.2", "order.1"]),
        (("user", "x/y"), ["user", "x/y"]),
        (["user.>", "user.1"], ["user.1", "user.2", "user.1.name", "user.1.mail", "user.2.name"]),
        (["user.1", "user.1"], ["user.1"]),
        (["user.*.name", "*.1.name"], ["user.1.name", "user.2.name", "order.1.name"]),
        (["user.1.*", "*.*.name", "order.1"], ["user.1.name", "user.1.mail", "user.2.name", "order.1.name", "order.1"]),
        (["*.1", "user.*", "*.1.>"], ["user.1", "user.2", "order.1", "user.1.name", "user.1.mail", "order.1.name"]),
        ([">", "user"], TREE),
        (["nobody", "user"], ["user"]),
    ],
    ids=str,
)
def test_a_filter_gives_the_keys_that_match_it_once_each(tree, filter_, expected):
    assert sorted(tree.keys(filter_)) == sorted(expected)


def test_a_filter_may_be_any_iterable(tree):
    assert sorted(tree.keys(pattern for pattern in ("user.*", "order.*"))) == ["order.1", "user.1", "user.2"]
    assert tree.keys({"user"}) == ["user"]


@pytest.mark.parametrize(
    "filter_", ["", "user.", ".user", "user..1", "us er", "user.>.x", "u*", ">x", [], [""], ["user", 7], 7, b"user.>"]
)
def test_what_is_no_filter_is_refused(bucket, filter_):
    with pytest.raises(InvalidKeys) as caught:
        bucket.keys(filter_)
    assert caught.value.keys == filter_


def test_deleted_purged_and_unknown_keys_are_not_listed(tree):
    tree.delete("user.1")
    tree.purge("user.2")
    assert sorted(tree.keys("user.*")) == []
    assert tree.keys("user.1") == []
    tree.put("user.1", 1)
    assert tree.keys("user.*") == ["user.1"]


def test_an_empty_bucket_has_no_keys(bucket):
    assert bucket.keys() == []
    assert bucket.keys("a.>") == []


def test_old_revisions_do_not_make_a_key_twice(bucket):
    for number in range(8):
        bucket.put("a", number)
    assert bucket.keys() == ["a"]


def test_the_server_filters(make_bucket, nats_server):
    # A few keys among many: what is not asked for must not travel.
    bucket = make_bucket()
    fill(bucket, [f"many.{number}" for number in range(3_000)] + ["few.1", "few.2"])
    name = bucket.plain._core.wire.client.settings.name
    before = nats_server.connections(name)[0]["out_msgs"]
    assert sorted(bucket.keys("few.*")) == ["few.1", "few.2"]
    assert nats_server.connections(name)[0]["out_msgs"] - before < 20


def test_many_keys_over_several_deliveries(make_bucket):
    bucket = make_bucket()
    keys = [f"k.{number}" for number in range(5_001)]
    fill(bucket, keys)
    assert sorted(bucket.keys()) == sorted(keys)
    assert sorted(bucket.keys("k.1*"[:-1])) == ["k.1"]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_hundred_thousand_keys(connect_kv, face, bucket_name):
    # A server that has other things to do takes its time to list so many.
    context = face.wrap(connect_kv(request_timeout=30.0)).kv()
    bucket = context.create_bucket({"bucket": bucket_name, "storage": "memory"})
    keys = [f"shop.{number % 100}.{number}" for number in range(100_000)]
    fill(bucket, keys)
    assert set(bucket.keys()) == set(keys)
    assert len(bucket.keys("shop.7.*")) == 1_000
    assert len(bucket.keys(["shop.1.*", "shop.2.*", "shop.*.3"])) == 2_001
    assert context.bucket_status(bucket.name).values == 100_000


class Writer:
    """Overwrites keys in a thread of its own, as fast as it can, while in its ``with`` block."""

    def __init__(self, bucket, keys):
        self._bucket = bucket
        self._keys = keys
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._write()))
        self.written = 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join()

    async def _write(self):
        while not self._stopping.is_set():
            await asyncio.gather(*(self._bucket.aput(key, self.written) for key in self._keys))
            self.written += len(self._keys)


@pytest.mark.slow
@pytest.mark.parametrize("filters", [None, ["a.*", "b.*"]], ids=["all", "filtered"])
@pytest.mark.parametrize("history", [1, 5])
def test_no_key_is_missed_while_all_of_them_are_overwritten(make_bucket, connect_kv, history, filters):
    keys = [f"{'ab'[number % 2]}.{number}" for number in range(50)]
    bucket = make_bucket(history=history)
    fill(bucket, keys)
    with Writer(connect_kv(request_timeout=20.0).kv().open_bucket(bucket.name), keys) as writer:
        for _ in range(100):
            assert sorted(bucket.keys(filters)) == sorted(keys)
        eventually(lambda: sorted(bucket.keys(filters)) == sorted(keys) and writer.written > 1_000)


def test_keys_that_come_and_go_meanwhile_do_not_hide_those_that_stay(make_bucket, connect_kv):
    bucket = make_bucket()
    staying = [f"stay.{number}" for number in range(20)]
    fill(bucket, staying)
    other = connect_kv(request_timeout=20.0).kv().open_bucket(bucket.name)
    stopping = threading.Event()

    def churn():
        number = 0
        while not stopping.is_set():
            other.put(f"go.{number % 10}", number)
            (other.delete, other.purge)[number % 2](f"go.{(number + 5) % 10}")
            if number % 7 == 0:
                other.purge_deletes()
            number += 1

    with ThreadPoolExecutor(1) as pool:
        churning = pool.submit(churn)
        try:
            for _ in range(50):
                assert set(bucket.keys()) >= set(staying)
        finally:
            stopping.set()
        churning.result()


def interfere(bucket, monkeypatch, action):
    """Run ``action`` once, after the first deliveries of a listing have arrived."""
    wire = bucket.plain._core.wire
    pull = wire.pull
    pulls = []

    def counted(*arguments):
        pulls.append(arguments[1])
        if len(pulls) == 2:
            action(arguments[1])
        return pull(*arguments)

    monkeypatch.setattr(wire, "pull", counted)
    monkeypatch.setattr("django_natskv.kv._listing.BATCH", 10)
    return pulls


def test_a_listing_that_the_server_lets_go_of_begins_again(make_bucket, connect_kv, monkeypatch):
    bucket = make_bucket()
    keys = [f"k.{number}" for number in range(25)]
    fill(bucket, keys)
    other = connect_kv().kv().open_bucket(bucket.name)
    core = other._core

    def let_go(name):
        other._runner.call(core.wire.delete_consumer(bucket.name, name, "interfering"))

    pulls = interfere(bucket, monkeypatch, let_go)
    assert sorted(bucket.keys()) == sorted(keys)
    assert len(set(pulls)) >= 2  # a server that is held up may be asked once more


def silence(bucket, monkeypatch, times):
    """Let the first consumers deliver nothing, as the server's own do now and then."""
    wire = bucket.plain._core.wire
    create = wire.create_consumer
    made = []

    def create_silent(name, config, what):
        made.append(config["name"])
        if len(made) <= times:
            config = {**config, "filter_subjects": [f"$KV.{name}.nothing.here"]}
        return create(name, config, what)

    monkeypatch.setattr(wire, "create_consumer", create_silent)
    return made


def test_a_listing_that_the_server_gives_too_little_for_begins_again(bucket, monkeypatch):
    bucket.put("a", 1)
    bucket.delete("b")
    made = silence(bucket, monkeypatch, 1)
    assert bucket.keys() == ["a"]
    assert len(made) >= 2  # a server that is held up may be asked once more
    bucket.purge_deletes()
    assert bucket.history("b") == []


def test_a_listing_that_stays_incomplete_is_not_given_for_complete(bucket, monkeypatch):
    bucket.put("a", 1)
    silence(bucket, monkeypatch, 1_000)
    with pytest.raises(OperationTimedOut) as caught:
        bucket.keys()
    assert bucket.name in str(caught.value)
    assert not caught.value.may_have_been_applied


def test_a_listing_of_a_bucket_made_anew_meanwhile_gives_what_is_there_now(make_bucket, connect_kv, monkeypatch):
    bucket = make_bucket()
    fill(bucket, [f"old.{number}" for number in range(25)])
    context = connect_kv().kv()

    def make_anew(_):
        context.delete_bucket(bucket.name)
        context.create_bucket({"bucket": bucket.name, "storage": "memory"}).put("new", 1)

    interfere(bucket, monkeypatch, make_anew)
    assert bucket.keys() == ["new"]


def test_a_listing_of_a_bucket_deleted_meanwhile_says_so(make_bucket, connect_kv, monkeypatch):
    bucket = make_bucket()
    fill(bucket, [f"old.{number}" for number in range(25)])
    context = connect_kv().kv()
    interfere(bucket, monkeypatch, lambda _: context.delete_bucket(bucket.name))
    with pytest.raises(BucketNotFound):
        bucket.keys()
