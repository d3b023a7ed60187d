"""Domains and prefixes: JetStream that is on another server, or in another account."""

from __future__ import annotations

import asyncio
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg

from django_natskv.exceptions import JetStreamNotEnabled
from tests.fix_connections import Connect
from tests.fix_servers import HOST, MakeServer, NatsServer, free_port
from tests.fix_waiting import eventually

STORE = "max_memory_store: 64MB, max_file_store: 256MB"


def everything(connection: Any) -> None:
    """Go through each way in which a request travels."""
    context = connection.kv()
    bucket = context.create_bucket({"bucket": "b", "history": 4})
    revision = bucket.create("key", 1)
    revision = bucket.update("key", 2, revision)
    assert bucket.get("key").value == 2
    assert [entry.value for entry in bucket.history("key")] == [1, 2]
    assert bucket.keys() == ["key"]
    assert bucket.get_many(["key"])["key"].revision == revision
    bucket.delete("key")
    assert bucket.get("key") is None
    bucket.purge_deletes()
    assert context.bucket_names() == ["b"]


def test_a_domain_on_the_server_itself(connect: Connect, make_server: MakeServer) -> None:
    everything(connect(make_server(jetstream=f"domain: hub, {STORE}").url, DOMAIN="hub"))


def test_a_domain_beyond_a_leaf_node(connect: Connect, make_server: MakeServer) -> None:
    port = free_port()
    make_server(jetstream=f"domain: hub, {STORE}", config=f"leafnodes {{ listen: {HOST}:{port} }}")
    leaf = make_server(
        jetstream=f"domain: leaf, {STORE}", config=f'leafnodes {{ remotes: [ {{ url: "nats://{HOST}:{port}" }} ] }}'
    )
    eventually(lambda: leaf.ask("leafz")["leafnodes"] == 1)
    own = connect(leaf.url, DOMAIN="leaf").kv()
    own.create_bucket({"bucket": "of_the_leaf"})
    hub = connect(leaf.url, DOMAIN="hub")

    def reached() -> Any:
        try:
            return hub.kv()
        except JetStreamNotEnabled:  # the line is there before each side has told the other what it listens to
            return None

    eventually(reached)
    everything(hub)
    assert own.bucket_names() == ["of_the_leaf"]


def test_a_domain_that_is_not_there(connect: Connect, make_server: MakeServer) -> None:
    with pytest.raises(JetStreamNotEnabled, match=r"nowhere.*DOMAIN"):
        connect(make_server().url, DOMAIN="nowhere").kv()


def test_a_prefix_of_another_account(connect: Connect, make_server: MakeServer) -> None:
    config = """
    accounts {
      KEEPER { jetstream: enabled, users: [ {user: keeper, password: p} ], exports: [
        {service: "$JS.API.>", response: stream}, {service: "$KV.>"} ] }
      SHOP { users: [ {user: shop, password: p} ], imports: [
        {service: {account: KEEPER, subject: "$JS.API.>"}, to: "JS.keeper.API.>"},
        {service: {account: KEEPER, subject: "$KV.>"}, to: "JS.keeper.API.$KV.>"} ] }
    }
    """
    server = make_server(config=config)
    connection = connect(server.url, USER="shop", PASSWORD="p", API_PREFIX="JS.keeper.API")
    context = connection.kv()
    bucket = context.create_bucket({"bucket": "b"})
    revision = bucket.put("key", 1)
    entry = bucket.get("key")
    assert (entry.value, entry.revision) == (1, revision)
    assert connect(server.url, USER="keeper", PASSWORD="p").kv().open_bucket("b").get("key").value == 1
    with pytest.raises(JetStreamNotEnabled) as caught:
        connect(server.url, USER="shop", PASSWORD="p").kv()
    assert "DOMAIN" not in str(caught.value)


@pytest.mark.parametrize("answer", [b"", b"hello", b"\xff", b"[]", b"null", b"{}", b'{"api": {"level": 2}}'])
def test_a_prefix_under_which_something_else_answers(
    connect: Connect, nats_server: NatsServer, answer: bytes, bucket_name: str
) -> None:
    async def main() -> None:
        listening = await nats.connect(nats_server.url)

        async def reply(message: Msg) -> None:
            await message.respond(answer)

        await listening.subscribe(f"{bucket_name}.>", cb=reply)
        await listening.flush()
        with pytest.raises(JetStreamNotEnabled, match=f"not JetStream.*{bucket_name}.*API_PREFIX"):
            await connect(nats_server.url, API_PREFIX=bucket_name).akv()
        await listening.close()

    asyncio.run(main())
