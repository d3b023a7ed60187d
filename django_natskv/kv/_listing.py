"""The newest revision of every key of a bucket, or of a part of it: what listing, counting and clearing up go by.

Owns that nothing is missed that was there throughout. Knows nothing of values, nor of what the keys are wanted for.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from django_natskv.exceptions import OperationTimedOut
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._nats.exchange import Pause
from django_natskv.kv._nats.inbox import Inbox
from django_natskv.kv._nats.messages import Stored, from_delivery, status_of
from django_natskv.kv._nats.verbs import Wire
from django_natskv.kv.entries import Operation as Did
from django_natskv.kv.names import disjoint
from django_natskv.kv.runner import Operation

BATCH = 2_000  # deliveries asked for at once: bounded, so that a slow reader is never cut off (F23)
INACTIVE = 10  # seconds after which the server lets go of a consumer that nobody deleted
_TRIES = 5  # of a listing that stays incomplete
_GONE = ("409", "503")  # what the server says instead of deliveries when a consumer is no more
_QUIET_ROUNDS = 25  # checks without anything new, 10 ms apart, after which a replay that is incomplete begins again
_LISTED = 20_000  # keys up to which a replay's end is held against their list and not only their number
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Heads:
    """The newest revision by subject: of live keys, and of those that only a marker remembers."""

    live: dict[str, int] = field(default_factory=dict)
    markers: dict[str, int] = field(default_factory=dict)

    def subjects(self) -> set[str]:
        """Return all of them."""
        return {*self.live, *self.markers}

    def take(self, stored: Stored) -> None:
        """Note a revision, which is newer than what was noted of its subject before."""
        now, before = self.live, self.markers
        if stored.operation is not Did.PUT:
            now, before = before, now
        before.pop(stored.subject, None)
        now[stored.subject] = stored.revision


class Listing:
    """The keys of one bucket."""

    def __init__(self, wire: Wire, info: BucketInfo) -> None:
        self._wire = wire
        self._info = info
        self._name = info.bucket
        self._prefix = f"$KV.{info.origin}."

    def heads(self, patterns: Sequence[str], what: str) -> Operation[Heads]:
        """Return the newest revision of every key under ``patterns``, markers included.

        Nothing that was there throughout is missed: the end of the deliveries is held against the server's count of
        keys, because a key that moves on meanwhile can make "nothing pending" true too early.
        """
        filters = [self._prefix + pattern for pattern in disjoint(patterns)]
        for _ in range(_TRIES):
            heads = yield from self._replay(filters, what)
            if heads is not None:
                return heads
        message = f"The server gave less than there is for {what}, {_TRIES} times in a row. Try again later."
        raise OperationTimedOut(message)

    def _replay(self, filters: list[str], what: str) -> Operation[Heads | None]:
        name = f"natskv-{secrets.token_hex(8)}"
        config = {
            "name": name,
            "deliver_policy": "last_per_subject",
            "ack_policy": "none",
            "headers_only": True,
            "filter_subjects": filters,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": INACTIVE * _NS,
        }
        inbox = Inbox(self._wire.client)
        try:
            yield from self._wire.create_consumer(self._name, config, what)
            heads = yield from self._drain(name, inbox, filters, what)
            yield from self._wire.delete_consumer(self._name, name, what)
        except BaseException:
            # Nothing may be awaited while the operation is being given up.
            self._wire.drop_consumer(self._name, name)
            raise
        finally:
            inbox.close()
        return heads

    def _drain(self, name: str, inbox: Inbox, filters: list[str], what: str) -> Operation[Heads | None]:
        """Take what a consumer delivers; None when it ends before that is all.

        It may be gone, with its bucket or its server. Or it delivers nothing though it should: one in a few hundred
        does, when all keys are overwritten while the server makes it.
        """
        heads = Heads()
        quiet = 0
        options = {"batch": BATCH, "no_wait": True}
        while quiet < _QUIET_ROUNDS:
            replies = yield self._wire.pull(self._name, name, inbox, options, what)
            deliveries = [from_delivery(reply) for reply in replies if reply.reply]
            for stored in deliveries:
                heads.take(stored)
            if deliveries and deliveries[-1].pending:
                continue
            if len(deliveries) < len(replies) and status_of(replies[-1]) in _GONE:
                return None
            if (yield from self._is_complete(filters, heads.subjects(), what)):
                return heads
            quiet = 0 if deliveries else quiet + 1
            yield Pause(self._wire.client, 0.01, what)
        return None

    def _is_complete(self, filters: list[str], seen: set[str], what: str) -> Operation[bool]:
        """Tell whether ``seen`` holds every key that is there now under ``filters``."""
        if self.covers_all(filters, self._info):
            there = (yield from self._wire.info(self._name)).subjects
            if len(seen) < there:
                return False
            if len(seen) == there > _LISTED:
                return True
        # Equal numbers could hide a key that went behind one that was not seen yet.
        return (yield from self._wire.subjects_under(self._info, filters, what)) <= seen

    def covers_all(self, filters: list[str], info: BucketInfo) -> bool:
        """Tell whether ``filters`` let every key of the bucket pass, so that its own count of keys is theirs."""
        everything = [f"{self._prefix}>"]
        # What another program made under a bucket's name may hold anything; a mirror says nothing of its own.
        only_keys = info.config.get("subjects") in (None, everything)
        return filters == everything and only_keys and not info.config.get("sources")
