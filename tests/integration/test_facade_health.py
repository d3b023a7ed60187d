"""How a bucket is kept: alone, and in a cluster that loses a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from django_natskv.exceptions import BucketNotFound, InvalidName, OperationalError
from django_natskv.kv import BucketHealth
from tests.fix_waiting import eventually


def test_a_bucket_on_one_server_has_counters_and_no_leader(context, bucket):
    assert context.bucket_health(bucket.name).written is None
    bucket.put("a", 1)
    bucket.put("a", 2)
    bucket.put("b", 1)
    bucket.purge("b")
    health = context.bucket_health(bucket.name)
    assert (health.bucket, health.keys, health.revisions) == (bucket.name, 2, 3)
    assert (health.first_revision, health.last_revision) == (1, 4)
    assert (health.cluster, health.leader, health.replicas) == (None, None, ())
    assert abs(health.created - datetime.now(UTC)) < timedelta(minutes=1)
    assert health.written == bucket.history("b")[-1].created


def test_a_missing_bucket_and_a_bad_name_are_told(context):
    with pytest.raises(BucketNotFound):
        context.bucket_health("nosuch")
    with pytest.raises(InvalidName):
        context.bucket_health("a b")


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_cluster_shows_its_leader_and_a_replica_that_is_down(make_cluster, connect_kv, manage):
    cluster = make_cluster()
    context = connect_kv(cluster.urls, request_timeout=10.0).kv()
    bucket = context.create_bucket({"bucket": "kept", "replicas": 3})

    def lost(*wanted: str) -> BucketHealth:
        """Return the health once these replicas are not current; a busy one may fall behind for a moment."""
        health = context.bucket_health("kept")
        assert len(health.replicas) == 2
        assert [replica.name for replica in health.replicas if not replica.current] == [*wanted]
        return health

    health = eventually(lambda: answered(lost), 40)
    names = {server.name for server in cluster.servers}
    assert {health.leader, *(replica.name for replica in health.replicas)} == names
    down = next(server for server in cluster.servers if server.name == health.replicas[0].name)
    down.kill()
    eventually(lambda: answered(bucket.put, "a", 1), 40)  # the connection may have been to the one that is down
    eventually(lambda: answered(lost, down.name), 40)
    up = [server.url for server in cluster.servers if server is not down]
    manage.configure({"default": {"SERVERS": up}})

    def status_shows_it() -> bool:
        shown = manage("natskv_bucket", "status", "kept").out
        health = lost(down.name)  # the other two may have held an election
        [other] = names - {down.name, health.leader}
        assert f"leader {health.leader} of cluster {health.cluster}" in shown
        assert f"replica {other} is current" in shown
        assert f"replica {down.name} is " in shown
        return True

    eventually(lambda: answered(status_shows_it), 60)


def answered(call, *arguments):
    """Return what it gives, or None while the cluster has no answer."""
    try:
        return call(*arguments)
    except OperationalError:
        return None
