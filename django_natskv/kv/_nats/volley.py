"""Several writes in flight as one step: sent in one go, each answered by one message.

Owns which answer belongs to which write. Knows nothing of what is written, nor of connecting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from django_natskv.kv._nats.errors import too_large
from django_natskv.kv._nats.exchange import Exchange

if TYPE_CHECKING:
    from django_natskv.kv._nats.client import Client
    from django_natskv.kv._nats.lean import LeanClient


class Shot(Protocol):
    """One write as a volley sees it; ``key`` holds no space and no break, ``what`` says in words what is tried."""

    @property
    def key(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def what(self) -> str: ...


class Volley(Exchange):
    """Many writes at the price of few objects: one step, one token, and an answer or an error for each.

    They go to ``prefix`` and their keys, each with its headers as they are sent, of ``blocks``. A write is told by its
    number, which its reply address ends with. The result is the list of what came of them, in their order; errors stand
    in it as values.
    """

    __slots__ = ("_blocks", "_left", "_shots")

    def __init__(self, client: Client, prefix: str, shots: Sequence[Shot], blocks: Sequence[bytes], what: str) -> None:
        super().__init__(client, prefix, what=what, many=True, writes=True)
        self._shots = shots
        self._blocks = blocks
        self._left = len(shots)
        self.replies = [None] * len(shots)

    def publish(self, nats: LeanClient, address: str, most: int) -> None:
        """Publish all of them, to be answered at ``address`` and their numbers; what has over ``most`` bytes fails."""
        prefix = self.subject
        commands: list[bytes] = []
        for number, (shot, block) in enumerate(zip(self._shots, self._blocks, strict=True)):
            data = shot.data
            size = len(data) + len(block)
            if size > most:
                # The server closes the connection for a message that exceeds the limit (F9).
                self.settle(number, too_large(shot.what, size, most))
            elif block:
                line = f"HPUB {prefix}{shot.key} {address}{number} {len(block)} {size}\r\n"
                commands += (line.encode(), block, data, b"\r\n")
            else:
                commands += (f"PUB {prefix}{shot.key} {address}{number} {size}\r\n".encode(), data, b"\r\n")
        nats.send_now(b"".join(commands))

    def settle(self, number: int, outcome: Any) -> None:
        """Take what came of the write with this number: an answer, or an error."""
        if self.replies[number] is None:
            self.replies[number] = outcome
            self._left -= 1
            if not self._left:
                self.finish()

    def refuse(self, action: str, concerns: Callable[[str], bool], refusal: Callable[[str, str], Exception]) -> bool:
        """See Exchange. Only those writes have failed that needed the permission."""
        if action != "publish":
            return False  # its answers come to the address of all, and whoever may not listen there has no connection
        refused = [(number, shot) for number, shot in enumerate(self._shots) if concerns(self.subject + shot.key)]
        for number, shot in refused:
            self.settle(number, refusal(self.subject + shot.key, shot.what))
        return bool(refused)

    def result(self) -> list[Any]:
        """Return the outcomes in order."""
        if not self.over:
            self.abandon()
        if self._left:
            for number, shot in enumerate(self._shots):
                if self.replies[number] is None:
                    self.replies[number] = self.error or self._timed_out(shot.what)
        return self.replies
