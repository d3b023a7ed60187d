"""Operations of the registry, written once as generators, and the two runners of them: blocking and awaited.

Owns how a step is carried out on either face. Knows nothing of what the steps are for.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from asgiref.sync import sync_to_async

from django_natskv.exceptions import UsageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """Something that either face does in its own way; ``awaited`` gives an awaitable."""

    plain: Callable[[], Any]
    awaited: Callable[[], Any]


Operation = Generator[Step, Any, T]


def ask(target: Any, name: str, *arguments: Any, **options: Any) -> Step:
    """Return the step that calls ``target``'s operation ``name``, or awaits its a-twin."""
    return Step(
        lambda: getattr(target, name)(*arguments, **options),
        lambda: getattr(target, f"a{name}")(*arguments, **options),
    )


def work(function: Callable[..., Any], *arguments: Any) -> Step:
    """Return the step that calls the application's ``function``, which may block and may use the database.

    On the awaited face a plain function runs where Django lets synchronous code run, and a coroutine function is
    awaited.
    """

    def plain() -> Any:
        if inspect.iscoroutinefunction(function):
            message = "A coroutine function can only be handed to an awaited operation: its name begins with an a."
            raise UsageError(message)
        return function(*arguments)

    def awaited() -> Any:
        if inspect.iscoroutinefunction(function):
            return function(*arguments)
        return sync_to_async(function)(*arguments)

    return Step(plain, awaited)


def pause(seconds: float) -> Step:
    """Return the step that lets ``seconds`` go by."""
    return Step(lambda: time.sleep(seconds), lambda: asyncio.sleep(seconds))


def run(operation: Operation[T]) -> T:
    """Run ``operation`` to its end, blocking."""
    try:
        step = next(operation)
        while True:
            try:
                result = step.plain()
            except Exception as error:  # noqa: BLE001 - the operation's to handle
                step = operation.throw(error)
            else:
                step = operation.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        operation.close()


async def arun(operation: Operation[T]) -> T:
    """See run(); awaiting."""
    try:
        step = next(operation)
        while True:
            try:
                result = await step.awaited()
            except Exception as error:  # noqa: BLE001
                step = operation.throw(error)
            else:
                step = operation.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        operation.close()
