"""One request in flight, and the other steps that an operation can wait for.

Owns their states. Knows nothing of connecting: the client sends them and tells them what came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from django_natskv.exceptions import NotConnected, OperationalError, OperationTimedOut
from django_natskv.kv._nats.messages import status_of

if TYPE_CHECKING:
    from django_natskv.kv._nats.client import Client
from django_natskv.kv._nats.inbox import Inbox


class ConnectionLost(NotConnected):
    """The connection went away while a request was in flight: it may have arrived, or not."""


class Exchange:
    """A request and its reply, or its many replies up to one without a body that carries a status.

    ``what`` says in words what is tried, for errors; ``writes`` that a lost reply leaves the outcome open;
    ``patient`` that it may wait a moment for a lost connection instead of failing at once.
    """

    __slots__ = (
        "_client", "_done", "deadline", "error", "headers", "inbox", "many", "over", "patient", "payload", "replies",
        "sent", "subject", "token", "what", "writes",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - the parts of a request
        self,
        client: Client,
        subject: str,
        payload: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        what: str = "the request",
        many: bool = False,
        writes: bool = False,
        patient: bool = False,
        inbox: Inbox | None = None,
    ) -> None:
        self._client = client
        self._done: Callable[[], None] | None = None
        self.subject = subject
        self.payload = payload
        self.headers = headers
        self.what = what
        self.many = many
        self.writes = writes
        self.patient = patient
        self.inbox = inbox
        self.deadline = 0.0
        self.token = ""
        self.sent = False
        self.over = False
        self.error: Exception | None = None
        self.replies: list[Any] = []

    @property
    def renews(self) -> bool:
        """Many replies are progress of their own: a read of many keys takes as long as it takes."""
        return self.many

    def begin(self, done: Callable[[], None]) -> None:
        """Hand the request to the client."""
        self._done = done
        self._client.submit(self)

    def begin_with_others(self, done: Callable[[], None]) -> None:
        """Be begun by ``send_with`` of one of them."""
        self._done = done

    def send_with(self, others: Sequence[Exchange]) -> None:
        """Hand several requests, this one among them, to the client."""
        self._client.submit_all(others)

    def refuse(self, action: str, concerns: Callable[[str], bool], refusal: Callable[[str, str], Exception]) -> bool:
        """Fail if it needed the permission to ``action`` ("publish" or "subscription") on a subject that it concerns.

        Tells whether it did. ``refusal`` makes the error of the subject that is missing and of what was tried.
        """
        needed = self.subject if action == "publish" else self.inbox.subject if self.inbox is not None else ""
        if not concerns(needed):
            return False
        self.finish(refusal(needed, self.what))
        return True

    def receive(self, message: Any) -> None:
        """Take a reply; called on the loop's thread, where nothing may escape (F8)."""
        self.replies.append(message)
        if not self.many or status_of(message) is not None:
            self.finish()

    def receive_all(self, messages: Sequence[Any]) -> None:
        """Take replies that came together; what follows the last one is dropped."""
        if self.over:
            return
        if not self.many:
            self.receive(messages[0])
            return
        last = next((place for place, message in enumerate(messages) if status_of(message) is not None), None)
        if last is None:
            self.replies.extend(messages)
        else:
            self.replies.extend(messages[: last + 1])
            self.finish()

    def receive_each(self, messages: Sequence[Any]) -> None:
        """As ``receive_all``, one by one."""
        for message in messages:
            if self.over:
                return
            self.receive(message)

    def finish(self, error: Exception | None = None) -> None:
        """End the exchange, once."""
        if not self.over:
            self.over = True
            self.error = error
            if self._done is not None:
                self._done()

    def abandon(self) -> None:
        """Forget the request: a reply that still comes is dropped."""
        self.over = True
        self._client.forget(self)

    def result(self) -> Any:
        """Return the reply, or the list of them; raise what went wrong."""
        if not self.over:
            self.abandon()
            raise self._timed_out(self.what)
        if self.error is not None:
            # A fresh traceback for each waiter; the class and its data stay.
            raise self.error
        return self.replies if self.many else self.replies[0]

    def _timed_out(self, what: str) -> Exception:
        if not self.sent:
            servers = ", ".join(self._client.settings.servers) or "the embedded server"
            return NotConnected(f"No connection to {servers} was made in time: {what} was not sent.")
        if self.writes:
            message = f"No answer came in time to {what}: it may have been applied. Read it to find out."
            return OperationTimedOut(message, may_have_been_applied=True)
        return OperationTimedOut(f"No answer came in time to {what}.")


class Pull(Exchange):
    """A request for at most ``batch`` deliveries, which ends early on a status of the server other than a heartbeat."""

    __slots__ = ("batch", "count")

    def __init__(self, client: Client, subject: str, payload: bytes, *, batch: int, inbox: Inbox, what: str) -> None:
        super().__init__(client, subject, payload, what=what, many=True, inbox=inbox)
        self.batch = batch
        self.count = 0

    def receive(self, message: Any) -> None:
        """Take a delivery or a status."""
        status = status_of(message)
        if status == "100":
            return
        self.replies.append(message)
        self.count += 1
        if status is not None or self.count >= self.batch:
            self.finish()

    def receive_all(self, messages: Sequence[Any]) -> None:
        """See receive_each()."""
        self.receive_each(messages)


class Together:
    """Several requests at once, in one write. The result is the list of theirs; an error stands in it as a value."""

    renews = True
    __slots__ = ("_done", "_left", "_steps", "deadline")

    def __init__(self, steps: Sequence[Exchange]) -> None:
        self._steps = steps
        self._left = len(steps)
        self._done: Callable[[], None] | None = None
        self.deadline = 0.0

    def begin(self, done: Callable[[], None]) -> None:
        """Begin all of them."""
        self._done = done
        if not self._steps:
            done()
            return
        for step in self._steps:
            step.deadline = self.deadline
            step.begin_with_others(self._one_done)
        self._steps[0].send_with(self._steps)

    def _one_done(self) -> None:
        # Steps end on the loop's thread only, so this needs no lock.
        self._left -= 1
        if self._left == 0 and self._done is not None:
            self._done()

    def abandon(self) -> None:
        """Abandon all of them."""
        for step in self._steps:
            step.abandon()

    def result(self) -> list[Any]:
        """Return the results in order, errors among them."""
        return [_outcome(step) for step in self._steps]


def _outcome(step: Any) -> Any:
    try:
        return step.result()
    except OperationalError as error:
        return error


class Pause:
    """Wait ``seconds`` before the next try of ``what``, of which nothing has been done so far."""

    renews = False
    __slots__ = ("_client", "_over", "_seconds", "_what", "deadline")

    def __init__(self, client: Client, seconds: float, what: str) -> None:
        self._client = client
        self._seconds = seconds
        self._what = what
        self._over = False
        self.deadline = 0.0

    def begin(self, done: Callable[[], None]) -> None:
        """Start the clock."""

        def over() -> None:
            self._over = True
            done()

        self._client.later(self._seconds, over)

    def abandon(self) -> None:
        """Nothing is held."""

    def result(self) -> None:
        """Return; ``OperationTimedOut`` when the operation has no time left."""
        if not self._over:
            message = f"No server took {self._what} in time: a replicated bucket may have no leader. It was not done."
            raise OperationTimedOut(message)


def in_doubt(what: str) -> OperationTimedOut:
    """Return the error for a write of which nobody knows whether it was applied."""
    message = f"The connection was lost during {what}: it may have been applied. Read it to find out."
    return OperationTimedOut(message, may_have_been_applied=True)
