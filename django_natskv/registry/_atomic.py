"""``registry.atomic()``: several saves and deletes, all or nothing.

Owns the block and what happens at its end. Knows nothing of how a single object is saved.
"""

from __future__ import annotations

from contextvars import Token
from types import TracebackType
from typing import Self

from django_natskv.exceptions import UsageError, WrongRevision
from django_natskv.registry import _gathering
from django_natskv.registry._gathering import Gathering
from django_natskv.registry._steps import Operation, arun, run
from django_natskv.registry._writing import conflict, wrote


class atomic:  # noqa: N801 - used as a function, like Django's
    """Gather the saves and deletes of a block and carry them out together at its end, or none of them.

    ``with`` and ``async with``. Each is validated where it stands, and nothing is visible to anybody before the end;
    then it is ``Conflict`` for the object that somebody else was faster with, and nothing was written. A block that
    raises writes nothing. Blocks inside one another are one. All objects are kept in one bucket, at most 1,000 of them
    (``UsageError``). More than one object needs nats-server 2.12 (``JetStreamApiError``). After ``OperationTimedOut``
    all of them may be saved.
    """

    def __init__(self) -> None:
        self._gathering: Gathering | None = None
        self._token: Token[Gathering | None] | None = None

    def __enter__(self) -> Self:
        joined = _gathering.current.get()
        self._gathering = Gathering() if joined is None or joined.over else joined
        self._token = None if self._gathering is joined else _gathering.current.set(self._gathering)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._leave(failed=kind is not None):
            run(self._commit())

    async def __aenter__(self) -> Self:
        """See __enter__()."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See __exit__()."""
        if self._leave(failed=kind is not None):
            await arun(self._commit())

    def _leave(self, *, failed: bool) -> bool:
        """End the block; tell whether there is something to be written now."""
        assert self._gathering is not None  # noqa: S101 - it was entered
        gathering = self._gathering
        if self._token is None:  # the outermost block goes on
            gathering.broken = gathering.broken or failed
            return False
        _gathering.current.reset(self._token)
        gathering.over = True
        if gathering.broken and not failed:
            message = "A registry.atomic() block inside this one failed, and both are one: nothing was written."
            raise UsageError(message)
        return not failed and bool(gathering.found)

    def _commit(self) -> Operation[None]:
        assert self._gathering is not None  # noqa: S101
        gathering = self._gathering
        changes = [gathered.change for gathered in gathering.found.values()]
        try:
            revisions = yield from gathering.place.write_all(changes, makes=gathering.makes)
        except WrongRevision as error:
            found = gathering.found.get(error.key)
            if found is None:
                raise
            raise (yield from conflict(found.target)) from error
        for gathered, revision in zip(gathering.found.values(), revisions, strict=True):
            for took in gathered.took:
                took(revision)
        wrote(gathering.place)
        yield from self._afterwards(gathering)

    def _afterwards(self, gathering: Gathering) -> Operation[None]:
        failed = None
        for _, step in gathering.afterwards:
            try:
                yield step
            except Exception as error:  # noqa: BLE001 - a receiver's; all was written, and the others are told of it
                failed = failed or error
        if failed is not None:
            raise failed
