"""The two faces of the facade are one: same arguments, same results, same code but for the waiting."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from typing import Any

import pytest

FACES = {
    "Bucket": "django_natskv.kv.bucket",
    "KVContext": "django_natskv.kv.context",
    "MirrorCache": "django_natskv.kv._mirroring",
    "InvalidatingCache": "django_natskv.kv._invalidating",
    "NatsKVCache": "django_natskv.cache.backend",
    "Config": "django_natskv.registry._models",
    "Model": "django_natskv.registry._models",
    "ConfigObjects": "django_natskv.registry._objects",
    "ModelObjects": "django_natskv.registry._objects",
    "Query": "django_natskv.registry._query",
    "NatsKVBackend": "django_natskv.contrib.constance",
    "Flag": "django_natskv.registry._flags",
    "Variant": "django_natskv.registry._flags",
    "FlagSet": "django_natskv.registry._flag_sets",
}
# Never waits, or only before the first replay.
LOCAL = {"close", "forked", "items", "keys", "start", "status", "was_made_with", "wrote"}
VALIDATION = {"upgrade", "clean_fields", "validate_unique", "validate_constraints"}
SCOPES = {"for_scope", "own", "inherit"}
NARROWING = {"all", "filter", "exclude", "order_by", "strong"}
DECLARING = {"declared_in", "slow_down"}
# What only the plain name has, because it does not wait.
SINGLE: dict[str, set[str]] = {
    "Bucket": set(),
    "KVContext": set(),
    "MirrorCache": LOCAL | {"publish", "view"},
    "InvalidatingCache": LOCAL | {"peek"},
    "NatsKVCache": {"lock"},  # has two faces itself
    "Config": VALIDATION | SCOPES,
    "Model": VALIDATION,
    "ConfigObjects": {"strong"},
    "ModelObjects": NARROWING,
    "Query": NARROWING,
    "NatsKVBackend": set(),
    "Flag": DECLARING,
    "Variant": DECLARING,
    "FlagSet": set(),
}
# Does what cannot be awaited, a transaction's hook, where Django runs synchronous code.
# What is asked most spares itself a call.
OWN_BODIES = {
    "Config": {"save_on_commit"},
    "Model": {"save_on_commit"},
    "Flag": {"on", "value"},
    "Variant": {"value"},
}
WAITS = ("call", "wait_open", "run")


def face(name: str) -> type[Any]:
    cls = getattr(importlib.import_module(FACES[name]), name)
    assert isinstance(cls, type)
    return cls


def methods(cls: type[Any]) -> dict[str, Any]:
    found = {name: getattr(value, "__func__", value) for name, value in inspect.getmembers(cls, inspect.isroutine)}
    return {
        name: value
        for name, value in found.items()
        if inspect.isfunction(value) and not name.startswith("_") and value.__module__.startswith("django_natskv.")
    }


def pairs(cls: type[Any]) -> list[str]:
    """Return the plain names that have an awaited twin."""
    found = methods(cls)
    return [name for name in found if is_awaited(found.get(f"a{name}"))]


def is_awaited(function: Any) -> bool:
    """Tell whether ``function`` is awaited, or iterated over with ``async for``."""
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


class Plain(ast.NodeTransformer):
    """Takes the waiting out of an awaited method: ``await x.acall(f)`` becomes ``x.call(f)``."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def visit_Await(self, node: ast.Await) -> Any:
        return self.visit(node.value)

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        node = self.generic_visit(node)  # type: ignore[assignment]
        return ast.Attribute(node.value, self._plain(node.attr), node.ctx)

    def visit_Name(self, node: ast.Name) -> Any:
        return ast.Name(self._plain(node.id), node.ctx)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> Any:
        node = self.generic_visit(node)  # type: ignore[assignment]
        return ast.With(node.items, node.body, node.type_comment)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> Any:
        node = self.generic_visit(node)  # type: ignore[assignment]
        return ast.For(node.target, node.iter, node.body, node.orelse, node.type_comment)

    def _plain(self, name: str) -> str:
        for prefix in ("_a", "a"):
            rest = name.removeprefix(prefix)
            if rest != name and (rest in self.names or rest in WAITS):
                return prefix[:-1] + rest
        return name


def body(function: Any, names: set[str] | None = None) -> str:
    """Return the code of a method without its name, decorators and docstring; made plain when ``names`` are given."""
    definition = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef)
    statements = definition.body[1 if ast.get_docstring(definition) is not None else 0 :]
    if names is not None:
        statements = [Plain(names).visit(statement) for statement in statements]
    return "\n".join(ast.unparse(ast.fix_missing_locations(statement)) for statement in statements)


@pytest.mark.parametrize("name", FACES)
def test_every_public_method_has_its_twin(name):
    cls = face(name)
    found = methods(cls)
    assert pairs(cls)
    paired = set(pairs(cls)) | {f"a{plain}" for plain in pairs(cls)}
    assert set(found) - paired == SINGLE[name]


@pytest.mark.parametrize("name", FACES)
def test_only_the_awaited_twin_is_a_coroutine_function(name):
    found = methods(face(name))
    assert {plain for plain in pairs(face(name)) if is_awaited(found[plain])} == set()


@pytest.mark.parametrize("name", FACES)
def test_twins_have_one_signature(name):
    found = methods(face(name))
    plain = {one: str(inspect.signature(found[one])) for one in pairs(face(name))}
    awaited = {one: str(inspect.signature(found[f"a{one}"])).replace("AsyncI", "I") for one in pairs(face(name))}
    assert awaited == plain


@pytest.mark.parametrize("name", FACES)
def test_the_plain_twin_is_documented_and_the_other_points_to_it(name):
    found = methods(face(name))
    assert [one for one in pairs(face(name)) if len(found[one].__doc__ or "") < 20] == []
    assert {one: found[f"a{one}"].__doc__ for one in pairs(face(name))} == {
        one: f"See {one}()." for one in pairs(face(name))
    }


@pytest.mark.parametrize("name", FACES)
def test_twins_have_one_body_but_for_the_waiting(name):
    cls = face(name)
    found = methods(cls)
    names = {one.lstrip("_") for one in dir(cls)}
    plain = {one: body(found[one]) for one in pairs(cls)}
    awaited = {one: body(found[f"a{one}"], names) for one in pairs(cls)}
    for one in OWN_BODIES.get(name, ()):
        awaited.pop(one, None)
        plain.pop(one, None)
    assert awaited == plain


# ---------------------------------------------------------------------- the comparison itself


class Sample:
    """Twins, some of which are not."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def same(self, key: str) -> Any:
        """Return something of a key, that much is said."""
        return self._checked(self._driver.call(self._verb, key))

    async def asame(self, key: str) -> Any:
        """See same()."""
        return self._checked(await self._driver.acall(self._verb, key))

    def other(self, key: str) -> Any:
        return self._driver.call(self._verb, key)

    async def aother(self, key: str) -> Any:
        return await self._driver.acall(self._verb, key.lower())

    def _verb(self) -> None: ...

    def _checked(self, value: Any) -> Any:
        return value


def test_the_comparison_sees_through_the_waiting_and_nothing_else():
    names = {one.lstrip("_") for one in vars(Sample)}
    assert pairs_of_sample() == {"same", "other"}
    assert body(Sample.asame, names) == body(Sample.same)
    assert body(Sample.aother, names) != body(Sample.other)


def pairs_of_sample() -> set[str]:
    return {name for name in vars(Sample) if f"a{name}" in vars(Sample)}
