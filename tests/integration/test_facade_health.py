"""How a bucket is kept: alone, and in a cluster that loses a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from django_natskv.exceptions import BucketNotFound, InvalidName
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
def test_a_cluster_shows_its_leader_and_a_replica_that_is_down(make_cluster, connect_kv, manage):
    cluster = make_cluster()
    context = connect_kv(cluster.urls).kv()
    bucket = eventually(lambda: context.create_bucket({"bucket": "kept", "replicas": 3}), 30)
    eventually(lambda: all(replica.current for replica in context.bucket_health("kept").replicas), 20)
    health = context.bucket_health("kept")
    names = {server.name for server in cluster.servers}
    assert {health.leader, *(replica.name for replica in health.replicas)} == names
    assert len(health.replicas) == 2
    down = next(server for server in cluster.servers if server.name == health.replicas[0].name)
    down.kill()
    bucket.put("a", 1)
    lost = eventually(lambda: [r.name for r in context.bucket_health("kept").replicas if not r.current], 30)
    assert lost == [down.name]
    up = [server.url for server in cluster.servers if server is not down]
    manage.configure({"default": {"SERVERS": up}})
    leader = f"leader {health.leader} of cluster {health.cluster}"

    def status() -> str:
        out = manage("natskv_bucket", "status", "kept").out
        return out if leader in out else ""

    shown = eventually(status, 30)  # the cluster may be electing who answers for it
    assert f"replica {health.replicas[1].name} is current" in shown
    assert f"replica {down.name} is " in shown
