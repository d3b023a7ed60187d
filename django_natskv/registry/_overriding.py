"""Overriding: configs and flags that read as something else for a while, without a write.

Owns the context managers and decorators. Knows nothing of test frameworks but where a test of theirs begins and ends.
"""

from __future__ import annotations

import functools
import inspect
import unittest
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from django.core.exceptions import FieldError

from django_natskv.exceptions import UsageError
from django_natskv.registry import _views
from django_natskv.registry._flag_sets import find_flag
from django_natskv.registry._flags import AnyFlag
from django_natskv.registry._lookups import find_field
from django_natskv.registry._models import Config
from django_natskv.registry._scopes import Scope
from django_natskv.registry.flags.evaluator import overridden

F = TypeVar("F", bound=Callable[..., Any])


class _Fields(dict[str, Any]):
    """What one override says, which is not another one that says the same."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__  # type: ignore[assignment]


class Override:
    """What overrides have in common: where they hold, and what they decorate.

    ``owner`` is what reads otherwise, ``fields`` how.
    """

    def __init__(self, owner: Any, fields: Mapping[str, Any], *, everywhere: bool) -> None:
        self._owner = owner
        self._everywhere = everywhere
        self._fields = _Fields(fields)

    def _enter(self) -> None:
        if self._everywhere:
            _views.everywhere.append((self._owner, self._fields))
            self._look_up()
        else:
            _views.view.set(_views.overridden(self._owner, self._fields))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._everywhere:
            _views.everywhere.remove((self._owner, self._fields))
            self._look_up()
        else:
            _views.view.set(_views.without(self._fields))

    def _look_up(self) -> None:
        """Have the owner look everything up at the next read."""
        raise NotImplementedError

    def _again(self) -> Any:
        """Return another one like this: tests may run side by side, and each entry is an object of its own."""
        raise NotImplementedError

    def __call__(self, decorated: F) -> F:
        """Decorate a function, a coroutine function, a generator function (a fixture) or a test class."""
        if isinstance(decorated, type):
            self._decorate_class(decorated)
            return decorated
        if inspect.iscoroutinefunction(decorated):

            @functools.wraps(decorated)
            async def awaited(*arguments: Any, **options: Any) -> Any:
                with self._again():
                    return await decorated(*arguments, **options)

            return awaited  # type: ignore[return-value]
        if inspect.isgeneratorfunction(decorated):

            @functools.wraps(decorated)
            def generated(*arguments: Any, **options: Any) -> Any:
                with self._again():
                    return (yield from decorated(*arguments, **options))

            return generated  # type: ignore[return-value]
        if inspect.isasyncgenfunction(decorated):
            message = f"An override cannot decorate {decorated.__name__}, an asynchronous generator: use `with` in it."
            raise TypeError(message)

        @functools.wraps(decorated)
        def plain(*arguments: Any, **options: Any) -> Any:
            with self._again():
                return decorated(*arguments, **options)

        return plain  # type: ignore[return-value]

    def _decorate_class(self, cls: Any) -> None:
        if issubclass(cls, unittest.IsolatedAsyncioTestCase):
            cls.setUp = self._entering(cls.setUp)
            return
        if issubclass(cls, unittest.TestCase):
            cls.run = self(cls.run)  # setUp and tearDown included
            return
        for name in dir(cls):
            method = getattr(cls, name)
            if name.startswith("test") and inspect.isfunction(method):
                setattr(cls, name, self(method))

    def _entering(self, set_up: Any) -> Any:
        # Such a test runs in a context of its own, which is first entered by setUp().
        @functools.wraps(set_up)
        def entered(case: unittest.TestCase) -> None:
            again = self._again()
            again.__enter__()
            case.addCleanup(again.__exit__, None, None, None)
            set_up(case)

        return entered


class override_config(Override):  # noqa: N801 - used as a function is
    """Let a Config read as if ``fields`` were stored: ``with override_config(ShopConfig, banner="Sale"): ...``.

    Holds for this thread or task and what it starts from here, until the end; never written anywhere. A decorator of
    functions, coroutine and generator functions and test classes too: of a ``TestCase`` for all of each test, of
    another class for its test methods. May be nested, the innermost wins, and used again.

    With ``everywhere`` it holds in all threads of the process, for tests against a live server.
    ``objects.get()`` gives what is stored nevertheless: what is saved must never hold an override.

    ``config`` may be a scope, ``ShopConfig.for_scope(site=3)``. A scope also shows what is overridden in what it falls
    back to, but for the fields that it sets itself.
    """

    def __init__(self, config: type[Config] | Scope[Any] | Any, /, *, everywhere: bool = False, **fields: Any) -> None:
        if isinstance(config, Scope):
            self._begin(config if config.values else config.model, fields, everywhere=everywhere)
            return
        if not (isinstance(config, type) and issubclass(config, Config)):
            message = f"override_config() is for a class made from registry.Config, not {config!r}."
            raise TypeError(message)
        self._begin(config, fields, everywhere=everywhere)

    def _begin(self, owner: Any, fields: Mapping[str, Any], *, everywhere: bool) -> None:
        self._config = owner.model if isinstance(owner, Scope) else owner
        found = {name: find_field(self._config, name) for name in fields}
        if any(field.primary_key for field in found.values()):
            message = f"What {self._config.__name__} is kept under cannot be overridden."
            raise FieldError(message)
        read = {name: field.to_python(fields[name]) for name, field in found.items()}
        super().__init__(owner, read, everywhere=everywhere)

    def __enter__(self) -> Any:
        self._enter()
        return self._owner.current

    def _look_up(self) -> None:
        self._config.__dict__["current"].slow_down()
        for scope in self._config._scopes.alive():  # what falls back to it, or is it
            scope.slow_down()

    def _again(self) -> override_config:
        return override_config(self._owner, everywhere=self._everywhere, **self._fields)


class override_flag(Override):  # noqa: N801 - used as a function is
    """Let a flag say ``value`` to everyone: ``with override_flag(Features.new_checkout, True): ...``.

    ``flag`` is a declared flag or its name, ``value`` one that it allows. Holds as ``override_config`` does, decorates
    what that does, and is never written anywhere.
    """

    def __init__(self, flag: AnyFlag[Any] | str | Any, value: Any, /, *, everywhere: bool = False) -> None:
        found = find_flag(flag) if isinstance(flag, str) else flag
        if not isinstance(found, AnyFlag):
            message = f"override_flag() is for a flag of a registry.FlagSet, or its name, not {flag!r}."
            raise TypeError(message)
        wrong = found.declaration.allows(value)
        if wrong:
            raise UsageError(f'The flag "{found.name}" cannot be overridden so: {wrong}.')
        self._value = value
        super().__init__(found, {"compiled": overridden(found.declaration, value)}, everywhere=everywhere)

    def __enter__(self) -> AnyFlag[Any]:
        self._enter()
        return self._owner  # type: ignore[no-any-return]

    def _look_up(self) -> None:
        self._owner.slow_down()

    def _again(self) -> override_flag:
        return override_flag(self._owner, self._value, everywhere=self._everywhere)
