"""The page of orders of the example project, on both kinds of servers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.contrib.staticfiles import finders
from django.core.asgi import get_asgi_application
from django.test import AsyncClient, Client

from django_natskv import connections
from django_natskv.kv import Bucket
from tests.fix_shop import bucket, declared, shop
from tests.fix_waiting import eventually

__all__ = ["bucket", "declared", "shop"]  # fixtures

# Django looks at database connections when a request begins and ends, if another test has left one.
pytestmark = pytest.mark.django_db


def save(client: Client, key: str, value: str = "", revision: int | str = "", **more: str) -> Any:
    return client.post("/orders/save/", {"key": key, "value": value, "revision": revision, **more})


# --- the page ---


async def _get(face: str, path: str) -> Any:
    if face == "async":
        return await AsyncClient().get(f"/async{path}")
    return await asyncio.to_thread(Client().get, path)


@pytest.mark.parametrize("face", ["sync", "async"])
async def test_the_page_shows_the_live_entries_the_last_change_first(bucket: Bucket, face: str):
    for key in ("order.1", "order.2", "order.gone"):
        await bucket.aput(key, {"item": key, "note": "<b>"})
    await bucket.adelete("order.gone")
    await bucket.aput("order.1", ["ä"])
    response = await _get(face, "/orders/")
    assert response.status_code == 200
    text = response.content.decode()
    assert text.index('data-key="order.1"') < text.index('data-key="order.2"')
    assert "order.gone" not in text
    assert "[&quot;ä&quot;]" in text
    assert "&lt;b&gt;" in text
    assert "<b>" not in text


def test_half_a_character_is_shown_as_json_writes_it(bucket: Bucket, client: Client):
    connections["default"].kv().open_bucket(bucket.name, codec="bytes").put("order.1", rb'["\ud800"]')
    assert r"[&quot;\ud800&quot;]" in client.get("/orders/").content.decode()


@pytest.mark.parametrize("face", ["sync", "async"])
async def test_the_page_asks_for_the_bucket_that_is_missing(shop: None, face: str, bucket_name: str):
    response = await _get(face, "/orders/")
    assert response.status_code == 503
    assert f"natskv_bucket create {bucket_name} --history 8" in response.content.decode()


def test_a_page_fetches_nothing_from_elsewhere(bucket: Bucket, client: Client):
    text = client.get("/orders/").content.decode()
    assert "://" not in text
    assert "//" not in text.replace("<!doctype", "")


@pytest.mark.parametrize("path", ["/static/shop/shop.css", "/static/shop/orders.js"])
def test_its_files_are_served(shop: None, path: str):
    assert finders.find(path.removeprefix("/static/"))


# --- writing by compare-and-set ---


def test_the_form_creates_changes_and_deletes(bucket: Bucket, client: Client):
    assert save(client, "order.1", '{"item": "tea"}').status_code == 302
    entry = bucket.get("order.1")
    assert entry is not None
    assert entry.value == {"item": "tea"}
    text = client.get("/orders/", {"key": "order.1"}).content.decode()
    assert f'value="{entry.revision}"' in text
    assert save(client, "order.1", "null", entry.revision).status_code == 302
    entry = bucket.get("order.1")
    assert entry is not None
    assert entry.value is None
    assert save(client, "order.1", "", entry.revision, delete="1").status_code == 302
    assert bucket.get("order.1") is None


def test_a_lost_race_is_shown_in_its_own_words_and_writes_nothing(bucket: Bucket, client: Client):
    seen = bucket.put("order.1", "old")
    theirs = bucket.put("order.1", "theirs")
    response = save(client, "order.1", '"mine"', seen)
    text = response.content.decode()
    assert response.status_code == 409
    assert "You lost the race" in text
    assert "Nothing was written" in text
    assert f"revision {seen}<" in text
    assert f"revision {theirs}: <code>&quot;theirs&quot;" in text
    assert bucket.get("order.1").value == "theirs"  # type: ignore[union-attr]
    # What was typed is kept, on the newer revision: saving again is a decision.
    assert f'value="{theirs}"' in text
    assert "&quot;mine&quot;</textarea>" in text
    assert 'href="/orders/?key=order.1"' in text
    assert save(client, "order.1", '"mine"', theirs).status_code == 302


def test_to_create_what_is_there_is_a_lost_race(bucket: Bucket, client: Client):
    bucket.put("order.1", "theirs")
    response = save(client, "order.1", '"mine"')
    assert response.status_code == 409
    assert "the key was to be new" in response.content.decode()


def test_to_change_or_delete_what_is_gone_is_a_lost_race(bucket: Bucket, client: Client):
    seen = bucket.put("order.1", "old")
    bucket.delete("order.1")
    for more in ({}, {"delete": "1"}):
        response = save(client, "order.1", '"mine"', seen, **more)
        assert response.status_code == 409
        assert "the key was deleted" in response.content.decode()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"key": "order.1", "value": "{"}, "This is not JSON"),
        ({"key": "order.1", "value": ""}, "This is not JSON"),
        ({"key": "order.1", "value": "[" * 100_000}, "This is not JSON"),
        ({"key": "", "value": "1"}, "This field is required"),
        ({"key": "a b", "value": "1"}, "cannot be a key"),
        ({"key": "order.1", "value": "1", "revision": "x"}, "Enter a whole number"),
        ({"key": "order.1", "value": "1", "revision": "9" * 5_000}, "Enter a whole number"),
        ({"key": "order.1", "delete": "1"}, "Choose the entry to delete first"),
    ],
    ids=["broken", "empty", "deep", "no key", "bad key", "bad revision", "endless revision", "nothing to delete"],
)
def test_a_mistake_is_explained_and_writes_nothing(
    bucket: Bucket, client: Client, fields: dict[str, str], message: str
):
    response = client.post("/orders/save/", fields)
    assert response.status_code == 400
    assert message in response.content.decode()
    assert bucket.keys() == []


def test_nobody_writes_from_another_site(bucket: Bucket):
    assert Client(enforce_csrf_checks=True).post("/orders/save/", {"key": "order.1", "value": "1"}).status_code == 403


def test_saving_where_the_bucket_is_missing_says_so(shop: None, client: Client):
    assert save(client, "order.1", "1").status_code == 503


# --- the streams ---


def parsed(chunk: bytes) -> tuple[str, Any]:
    """Return the name and the data of an event; a comment has neither."""
    fields = dict(line.split(": ", 1) for line in chunk.decode().splitlines() if line)
    return fields.get("event", ""), json.loads(fields.get("data", "null"))


def test_the_stream_replays_completes_and_follows(bucket: Bucket, client: Client):
    bucket.put("order.1", "one")
    response: Any = client.get("/orders/events/")
    chunks = response.streaming_content

    def following() -> tuple[str, Any]:
        return next(event for event in map(parsed, chunks) if event[0])

    name, data = following()
    assert (name, data["key"], data["value"], data["operation"]) == ("entry", "order.1", '"one"', "put")
    assert following()[0] == "complete"
    assert parsed(next(chunks)) == ("", None)  # nothing new: a sign of life, by which a browser that left is noticed
    bucket.delete("order.1")
    name, data = following()
    assert (name, data["key"], data["operation"]) == ("entry", "order.1", "delete")
    response.close()


def test_a_stream_whose_browser_left_leaves_no_watch(bucket: Bucket, client: Client, nats_server: Any):
    response: Any = client.get("/orders/events/")
    next(event for event in map(parsed, response.streaming_content) if event[0] == "complete")
    assert nats_server.consumers(f"KV_{bucket.name}")
    response.close()
    eventually(lambda: nats_server.consumers(f"KV_{bucket.name}") == [])


async def test_the_awaited_stream_does_the_same_and_leaves_no_watch(bucket: Bucket, nats_server: Any):
    await bucket.aput("order.1", "one")
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "path": "/async/orders/events/", "query_string": b"",
        "headers": [(b"host", b"testserver")],
    }  # fmt: skip
    server = ApplicationCommunicator(get_asgi_application(), scope)
    await server.send_input({"type": "http.request", "body": b""})
    assert (await server.receive_output(30))["status"] == 200

    async def following() -> tuple[str, Any]:
        while True:
            event = parsed((await server.receive_output(30))["body"])
            if event[0]:
                return event

    assert (await following())[1]["key"] == "order.1"
    assert (await following())[0] == "complete"
    await bucket.aput("order.2", "two")
    assert (await following())[1]["value"] == '"two"'
    await server.send_input({"type": "http.disconnect"})
    await server.wait(30)
    await asyncio.to_thread(eventually, lambda: nats_server.consumers(f"KV_{bucket.name}") == [])


@pytest.mark.parametrize("page", ["/orders/", "/async/orders/"])
async def test_both_pages_follow_the_stream_that_their_server_can_serve(bucket: Bucket, page: str):
    plain = (await asyncio.to_thread(Client().get, page)).content
    awaited = (await AsyncClient().get(page)).content
    assert b'data-events="/orders/events/"' in plain
    assert b'data-events="/async/orders/events/"' in awaited


async def test_a_stream_is_refused_by_the_other_kind_of_server(bucket: Bucket):
    assert (await asyncio.to_thread(Client().get, "/async/orders/events/")).status_code == 501
    assert (await AsyncClient().get("/orders/events/")).status_code == 501


async def test_there_is_no_stream_of_a_missing_bucket(shop: None):
    assert (await AsyncClient().get("/async/orders/events/")).status_code == 404
    assert (await asyncio.to_thread(Client().get, "/orders/events/")).status_code == 404
