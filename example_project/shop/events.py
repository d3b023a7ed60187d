"""The changes of the orders as server-sent events: a watch for each page that is open.

``events`` streams under WSGI, a thread a page; ``aevents`` is its twin for ASGI servers, which hold thousands of them.
"""

from __future__ import annotations

import asyncio
import json
import queue
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from django_natskv.exceptions import BucketNotFound
from django_natskv.kv import Bucket, Entry
from example_project.shop import orders

# Seconds. A browser that has left is noticed by writing to it, so something is written now and then.
HEARTBEAT = 5.0
_STILL_HERE = ": still here\n\n"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def events(request: HttpRequest) -> HttpResponseBase:
    if is_asgi(request):
        return _wrong_server("a WSGI")
    try:
        bucket = orders.open_orders()
    except BucketNotFound as error:
        raise Http404(error) from error
    return StreamingHttpResponse(_follow(bucket), content_type="text/event-stream", headers=_HEADERS)


async def aevents(request: HttpRequest) -> HttpResponseBase:
    if not is_asgi(request):
        return _wrong_server("an ASGI")
    try:
        bucket = await orders.aopen_orders()
    except BucketNotFound as error:
        raise Http404(error) from error
    return StreamingHttpResponse(_afollow(bucket), content_type="text/event-stream", headers=_HEADERS)


def is_asgi(request: HttpRequest) -> bool:
    return hasattr(request, "scope")


def _wrong_server(needed: str) -> HttpResponse:
    """Refuse: Django would first wait for the end of the stream, and there is none."""
    message = f"This stream needs {needed} server."
    return HttpResponse(message, status=HTTPStatus.NOT_IMPLEMENTED, content_type="text/plain")


def _follow(bucket: Bucket) -> Iterator[str]:
    news: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
    watch = bucket.watch(news.put)
    # Called on the thread of the handler, so after everything that was there before.
    watch.initialized.add_done_callback(lambda _: news.put(None))
    try:
        while True:
            try:
                yield _event(news.get(timeout=HEARTBEAT))
            except queue.Empty:
                yield _STILL_HERE
    finally:
        watch.stop()


async def _afollow(bucket: Bucket) -> AsyncIterator[str]:
    news: asyncio.Queue[Entry | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    watch = await bucket.awatch(news.put)
    watch.initialized.add_done_callback(lambda _: loop.call_soon_threadsafe(news.put_nowait, None))
    try:
        while True:
            try:
                yield _event(await asyncio.wait_for(news.get(), HEARTBEAT))
            except TimeoutError:
                yield _STILL_HERE
    finally:
        watch.stop()


def _event(entry: Entry | None) -> str:
    """Return an entry as an event; None is the end of the replay."""
    if entry is None:
        return "event: complete\ndata: {}\n\n"
    return f"event: entry\ndata: {json.dumps(orders.shown(entry))}\n\n"
