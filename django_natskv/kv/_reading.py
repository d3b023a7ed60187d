"""One pass over the entries of a bucket, a page at a time.

Owns that nothing is missed and that no more than a page is held, however large the bucket. Knows nothing of what the
entries are read for.
"""

from __future__ import annotations

import secrets
from typing import Any

from django_natskv.exceptions import NotConnected, OperationalError, OperationTimedOut
from django_natskv.kv._core import Core
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._nats.exchange import Pause
from django_natskv.kv._nats.inbox import Inbox
from django_natskv.kv._nats.messages import Stored, from_delivery, status_of
from django_natskv.kv.entries import Entry, Operation as Did
from django_natskv.kv.names import check_patterns, disjoint, matcher
from django_natskv.kv.runner import Operation

PAGE = 1_000  # deliveries asked for at once: bounded, so that a slow reader is never cut off (F23)
PAGE_BYTES = 2**21  # of their values, at the least one value
INACTIVE = 60  # seconds that the reader may take for a page before the server lets go, and the pass takes up again
_NS = 1_000_000_000
_TRIES = 5  # times in a row that the pass takes up again without having got any further
_PAUSE = 0.1  # seconds, longer each time
_QUIET_ROUNDS = 25  # checks without anything new, 10 ms apart, after which the pass takes up again
_CHASES = 100  # looks for the end in a bucket that is written faster than it can be read
_AT_ONCE = 64
_GONE = ("409", "503")  # what the server says instead of deliveries when a consumer is no more
_FULL = "maxbytes"  # in what it says when a page holds enough


class Reading:
    """The pass. ``page`` is called until it gives nothing more; ``close`` whenever it is not called any more."""

    def __init__(self, core: Core, patterns: object, *, history: bool) -> None:
        checked = (">",) if patterns is None else check_patterns(patterns)
        self._core = core
        self._wanted = matcher(checked)
        self._filters = [core.prefix + pattern for pattern in disjoint(checked)]
        self._history = history
        self._what = f"reading the entries of bucket {core.name!r}"
        self._inbox: Inbox | None = None
        self._consumer = ""
        self._delivered = 0  # by this consumer
        self._newest = 0  # revision, of all that was delivered
        self._begun: BucketInfo | None = None
        self._failures = self._quiet = self._chases = 0
        self._over = False

    def page(self) -> Operation[list[Entry]]:
        """Return the next entries; none when that was all."""
        while not self._over:
            try:
                found = yield from self._pull()
            except NotConnected:
                yield from self._take_up_again()
                continue
            if found:
                self._failures = self._quiet = 0
            entries = [self._core.entry(stored) for stored in found if self._is_asked_for(stored)]
            if entries:
                return entries
        return []

    def close(self) -> None:
        """Let go of what the server keeps for the pass. Waits for nothing, safe to repeat."""
        if self._consumer:
            self._core.wire.drop_consumer(self._core.name, self._consumer)
            self._consumer = ""
        if self._inbox is not None:
            self._inbox.close()
            self._inbox = None

    def _is_asked_for(self, stored: Stored) -> bool:
        if not self._wanted(self._core.key(stored)):
            return False
        # A marker is news only where the value before it may have been read already.
        assert self._begun is not None  # noqa: S101 - by _open
        return self._history or stored.operation is Did.PUT or stored.revision > self._begun.last_revision

    def _open(self) -> Operation[Inbox]:
        if self._inbox is not None and self._consumer:
            return self._inbox
        self.close()
        wire = self._core.wire
        info = yield from wire.info(self._core.name, self._what)
        if self._begun is None:
            self._begun = info
        elif info.created != self._begun.created or info.last_revision < self._newest:
            message = f"The bucket {self._core.name!r} was made anew while it was read: begin again."
            raise OperationalError(message)
        name = f"natskv-{secrets.token_hex(8)}"
        config: dict[str, Any] = {
            "name": name,
            "deliver_policy": "last_per_subject",
            "ack_policy": "none",
            "filter_subjects": self._filters,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": INACTIVE * _NS,
        }
        if self._history:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": self._newest + 1}
        self._consumer = name
        self._delivered = 0
        self._inbox = Inbox(wire.client)
        yield from wire.create_consumer(self._core.name, config, self._what)
        return self._inbox

    def _pull(self) -> Operation[list[Stored]]:
        """Return what follows, in order; what was delivered before the pass was taken up again is left out."""
        inbox = yield from self._open()
        wire = self._core.wire
        most = max(PAGE_BYTES, 2 * wire.client.max_payload)
        options = {"batch": PAGE, "max_bytes": most, "no_wait": True}
        replies = yield wire.pull(self._core.name, self._consumer, inbox, options, self._what)
        deliveries = [from_delivery(reply) for reply in replies if status_of(reply) is None]
        whole = self._in_order(deliveries)
        found = [stored for stored in whole if stored.revision > self._newest]
        if found:
            self._newest = found[-1].revision
        end = replies[-1]
        gone = status_of(end) in _GONE and _FULL not in (end.headers or {}).get("Description", "").lower()
        if gone or len(whole) < len(deliveries):
            yield from self._take_up_again()
        elif not (deliveries and deliveries[-1].pending) and status_of(end) != "409":
            yield from self._look_for_the_end(found)
        return found

    def _in_order(self, deliveries: list[Stored]) -> list[Stored]:
        """Return the deliveries up to the first gap between them."""
        for position, stored in enumerate(deliveries):
            if stored.delivery != self._delivered + 1:
                return deliveries[:position]
            self._delivered = stored.delivery
        return deliveries

    def _look_for_the_end(self, found: list[Stored]) -> Operation[None]:
        """Hold what was delivered against the newest revision that there is.

        "Nothing pending" may come too early in a bucket that is written meanwhile, or for a consumer that was made
        while all keys were overwritten. Deliveries come in order: with the newest of all, nothing is left. Where each
        look finds newer ones still, the keys that were there throughout have long gone by.
        """
        for start in range(0, len(self._filters), _AT_ONCE):
            queries = [{"last_by_subj": subject} for subject in self._filters[start : start + _AT_ONCE]]
            last = yield from self._core.wire.each_of_leader(self._core.name, queries, self._what)
            if max((stored.revision for stored in last if stored is not None), default=0) > self._newest:
                break
        else:
            self._over = True
            return
        self._chases += 1
        self._over = self._chases > _CHASES and bool(found)
        if not found:
            self._quiet += 1
            yield Pause(self._core.wire.client, 0.01, self._what)
            if self._quiet >= _QUIET_ROUNDS:
                yield from self._take_up_again()

    def _take_up_again(self) -> Operation[None]:
        """Have another consumer go on behind what was delivered: this one is gone, or has left something out."""
        self.close()
        self._quiet = 0
        self._failures += 1
        if self._failures > _TRIES:
            message = f"The server broke off {self._what} {_TRIES} times in a row. Try again later."
            raise OperationTimedOut(message)
        yield Pause(self._core.wire.client, _PAUSE * self._failures, self._what)
