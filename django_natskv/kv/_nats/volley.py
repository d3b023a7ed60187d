"""Several writes in flight as one step: sent in one go, each answered by one message.

Owns which answer belongs to which write. Knows nothing of what is written, nor of connecting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from django_natskv.kv._nats.errors import too_large
from django_natskv.kv._nats.exchange import Exchange

if TYPE_CHECKING:
    from django_natskv.kv._nats.client import Client
    from django_natskv.kv._nats.lean import LeanClient


class Told(Protocol):
    """What can say what is tried, in words."""

    @property
    def what(self) -> str: ...


class Shot(NamedTuple):
    """One write as it travels: ``block`` are its headers as they are sent, ``told`` says in words what is tried."""

    subject: str
    payload: bytes
    block: bytes
    told: Told


class Volley(Exchange):
    """Many writes at the price of few objects: one step, one token, and an answer or an error for each.

    A write is told by its number, which its reply address ends with. The result is the list of what came of them, in
    their order; errors stand in it as values.
    """

    __slots__ = ("_left", "_shots")

    def __init__(self, client: Client, shots: Sequence[Shot], what: str) -> None:
        super().__init__(client, "", what=what, many=True, writes=True)
        self._shots = shots
        self._left = len(shots)
        self.replies = [None] * len(shots)

    def publish(self, nats: LeanClient, prefix: str, most: int) -> None:
        """Publish all of them, to be answered at ``prefix`` and their numbers; what has over ``most`` bytes fails."""
        for number, (subject, payload, block, told) in enumerate(self._shots):
            size = len(payload) + len(block)
            if size > most:
                # The server closes the connection for a message that exceeds the limit (F9).
                self.settle(number, too_large(told.what, size, most))
            else:
                nats.publish_now(subject, f"{prefix}{number}", payload, block)

    def settle(self, number: int, outcome: Any) -> None:
        """Take what came of the write with this number: an answer, or an error."""
        if self.replies[number] is None:
            self.replies[number] = outcome
            self._left -= 1
            if not self._left:
                self.finish()

    def refuse(self, action: str, subject: str, refusal: Callable[[str, str], Exception]) -> bool:
        """See Exchange. Only those writes have failed that needed the permission."""
        if action != "publish":
            return False  # its answers come to the address of all, and whoever may not listen there has no connection
        refused = [number for number, shot in enumerate(self._shots) if shot.subject.lower() == subject]
        for number in refused:
            self.settle(number, refusal(self._shots[number].subject, self._shots[number].told.what))
        return bool(refused)

    def result(self) -> list[Any]:
        """Return the outcomes in order."""
        if not self.over:
            self.abandon()
        if self._left:
            for number, shot in enumerate(self._shots):
                if self.replies[number] is None:
                    self.replies[number] = self.error or self._timed_out(shot.told.what)
        return self.replies
