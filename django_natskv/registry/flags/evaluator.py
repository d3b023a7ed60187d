"""Evaluation: what a definition says, compiled once a change, and asked once a context.

Owns what becomes of a definition that fails. Knows nothing of where definitions come from, nor of requests: a context
gathers what it is asked for.
"""

from __future__ import annotations

import copy
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from types import MappingProxyType
from typing import Any, Protocol

from django.core.exceptions import ImproperlyConfigured

from django_natskv.registry.flags.definitions import Declaration
from django_natskv.registry.flags.programs import Program, data_of, program_of
from django_natskv.registry.flags.targeting import Asked, asked_by, is_split, with_evaluators

logger = logging.getLogger("django_natskv.flags")

STATIC = "STATIC"
"""A reason: the definition says the same to everyone. The reasons are those of the OpenFeature specification."""
DEFAULT = "DEFAULT"
"""A reason: no rule matched, or nothing is stored."""
TARGETING_MATCH = "TARGETING_MATCH"
"""A reason: a rule matched."""
SPLIT = "SPLIT"
"""A reason: a percentage decided, and nothing else."""
DISABLED = "DISABLED"
"""A reason: the definition is switched off, and the declared default holds."""
ERROR = "ERROR"
"""A reason: something failed, and the declared default holds; ``error`` says what."""

PARSE_ERROR = "PARSE_ERROR"
"""An error's code: the definition cannot be used. The codes are those of the OpenFeature specification."""
GENERAL = "GENERAL"
"""An error's code: anything else, such as a context that cannot be had."""
NOT_READY = "PROVIDER_NOT_READY"
"""An error's code: no definition can be read."""

_FIELDS = ("state", "variants", "defaultVariant", "targeting", "metadata")  # others are not for the evaluator
_EVALUATORS_LOGGER = "openfeature.contrib"
_asking = threading.local()  # whether this thread is in the evaluator
_NO_METADATA: Mapping[str, Any] = MappingProxyType({})
_ANSWER = "answer"
_CHOOSE = {"var": _ANSWER}  # targeting that says what a program said
_NAMES = frozenset({str, bool, type(None)})  # the types of an answer that names a variant, or none
_NOTHING = Asked(frozenset(), by_time=False, splits=False)


@dataclass(frozen=True, slots=True)
class Details:
    """What a flag says, and why."""

    value: Any
    variant: str | None
    """The name of the variant, None where the declared default holds in place of one."""
    reason: str
    metadata: Mapping[str, Any] = field(default_factory=lambda: _NO_METADATA)
    error: str = ""
    revision: int | None = None
    """The revision of the definition; None when nothing is stored."""
    error_code: str = ""
    """What kind of failure ``error`` is, in OpenFeature's words: "PARSE_ERROR", "GENERAL", ...; empty without any."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy: a view of metadata cannot be."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return _restored, ({**values, "metadata": dict(self.metadata)},)


def _restored(values: dict[str, Any]) -> Details:
    return Details(**{**values, "metadata": MappingProxyType(values["metadata"])})


class Context(Protocol):
    """Who asks. ``context.Context`` is one."""

    results: dict[Compiled, Details]
    """What was answered to this context, so that it is answered the same again."""

    def gather(self, needs: frozenset[str], *, splits: bool) -> tuple[str | None, Mapping[str, Any]]:
        """Return the targeting key and the attributes, those in ``needs`` at least. May raise anything."""
        ...

    async def agather(self, needs: frozenset[str], *, splits: bool) -> tuple[str | None, Mapping[str, Any]]:
        """See gather()."""
        ...


Tell = Callable[["Compiled", str], None]
"""Is told of the first failure of a definition, in words."""


def _log(failed: Compiled, text: str) -> None:
    name, revision = failed.declaration.name, failed.revision
    logger.warning('The flag "%s" (revision %s) gives its declared default: %s', name, revision, text)


class Compiled:
    """A definition that is ready to be asked; ``compiled()``, ``undefined()`` and ``broken()`` make one.

    It never changes: a new definition is a new one. Nothing that it does raises.
    """

    __slots__ = (
        "_asked",
        "_fixed",
        "_outcomes",
        "_program",
        "_resolve",
        "_split",
        "_tell",
        "_told",
        "_variants",
        "constant",
        "declaration",
        "revision",
    )

    def __init__(
        self, declaration: Declaration, revision: int | None, asked: Asked = _NOTHING, tell: Tell | None = None
    ) -> None:
        self.declaration = declaration
        self.revision = revision
        self.constant: Details | None = None
        """What it says to everyone at any time; None when that depends, and when the value can be changed in place."""
        self._asked = asked
        self._fixed: Details | None = None
        self._program: Program | None = None
        self._outcomes: dict[tuple[str | bool | None, bool], Details] = {}
        self._resolve: Callable[..., Any] | None = None
        self._variants: Mapping[str, Any] = {}
        self._split = False
        self._tell = tell or _log
        self._told = False

    @property
    def needs(self) -> frozenset[str]:
        """The attributes that it asks for; ``targeting.ANYTHING`` among them when they cannot be told."""
        return self._asked.needs

    @property
    def splits(self) -> bool:
        """Whether it divides people by their targeting key, so that each needs one that lasts."""
        return self._asked.splits

    def details(self, context: Context) -> Details:
        """Return what the flag says in ``context``; asked again there, it says the same."""
        if self._fixed is not None:
            return self._own(self._fixed)
        found = context.results.get(self)
        if found is None:
            try:
                key, attributes = context.gather(self._asked.needs, splits=self._asked.splits)
            except Exception as error:  # noqa: BLE001 - it runs code of the project and of its user model
                return self._failed(error)
            found = context.results[self] = self._evaluated(key, attributes)
        return self._own(found)

    async def adetails(self, context: Context) -> Details:
        """See details()."""
        if self._fixed is not None:
            return self._own(self._fixed)
        found = context.results.get(self)
        if found is None:
            try:
                key, attributes = await context.agather(self._asked.needs, splits=self._asked.splits)
            except Exception as error:  # noqa: BLE001 - it runs code of the project and of its user model
                return self._failed(error)
            found = context.results[self] = self._evaluated(key, attributes)
        return self._own(found)

    def _fix(self, details: Details) -> Compiled:
        self._fixed = details
        self.constant = details if self.declaration.kind != "object" else None
        return self

    def _own(self, details: Details) -> Details:
        """Return ``details`` with a value that the caller may change."""
        if self.declaration.kind != "object":
            return details
        try:
            return replace(details, value=copy.deepcopy(details.value))
        except RecursionError as error:
            return self._failed(error)

    def _evaluated(self, key: str | None, attributes: Mapping[str, Any]) -> Details:
        _asking.now = True
        try:
            if self._program is None:
                return self._chosen(key, key, attributes)
            answer = self._program(data_of(self.declaration.name, key, attributes))
            if type(answer) not in _NAMES:
                return self._chosen(key, None, {_ANSWER: answer})
            found = self._outcomes.get((answer, bool(key)))
            if found is None:
                # What names no variant raises: there are no more of these than variants.
                found = self._outcomes[answer, bool(key)] = self._chosen(key, None, {_ANSWER: answer})
        except Exception as error:  # noqa: BLE001 - any that an operator may raise
            # What the evaluator raises has a code; of an operator that it does not know it says this one.
            kind = PARSE_ERROR if isinstance(error, ReferenceError) else GENERAL
            return self._failed(error, str(getattr(error, "error_code", kind)))
        finally:
            _asking.now = False
        return found

    def _chosen(self, key: str | None, asked_key: str | None, attributes: Mapping[str, Any]) -> Details:
        """Return what the evaluator makes of the targeting that it was given."""
        declaration = self.declaration
        context = _evaluator()[1](asked_key, attributes)
        found = self._resolve(declaration.name, declaration.value, context)  # type: ignore[misc]
        # What is stored, and not what is found: the evaluator has made a float of a bool.
        wrong = None if found.variant is None else declaration.allows(self._variants[found.variant])
        if wrong:
            return self._failed(f'the variant "{found.variant}": {wrong}')
        reason = SPLIT if self._split and (key or found.reason == TARGETING_MATCH) else str(found.reason)
        return Details(found.value, found.variant, reason, MappingProxyType(found.flag_metadata), "", self.revision)

    def _failed(self, error: Exception | str, code: str = GENERAL) -> Details:
        cause = error.__cause__ or error if isinstance(error, Exception) else error
        text = str(cause) or type(cause).__name__
        if not self._told:
            self._told = True  # once a definition, not once a request
            self._tell(self, text)
        value = copy.deepcopy(self.declaration.value)  # an object is the caller's own
        return Details(value, None, ERROR, _NO_METADATA, text, self.revision, code)


def compiled(
    declaration: Declaration,
    definition: Any,
    *,
    evaluators: Mapping[str, Any] | None = None,
    revision: int | None = None,
    tell: Tell | None = None,
) -> Compiled:
    """Return ``definition``, a flagd flag definition, ready to be asked.

    ``evaluators`` are the shared rules that its targeting may name. Whatever is wrong with it makes it one that gives
    the declared default, with ``ERROR`` and a text; ``tell`` hears of it in place of the log, once. Raises
    ``ImproperlyConfigured`` alone: see ``require()``.
    """
    core, _ = require()
    try:
        if not isinstance(definition, Mapping):
            text = f"a definition is an object, not {type(definition).__name__}"
            return broken(declaration, text, revision=revision, tell=tell)
        targeting = with_evaluators(definition.get("targeting"), evaluators or {})
        result = Compiled(declaration, revision, asked_by(targeting) if targeting else _NOTHING, tell)
        flag = {name: definition[name] for name in _FIELDS if definition.get(name) is not None}
        json.dumps([flag.get("variants"), flag.get("metadata")], allow_nan=False)  # Python reads NaN and 1e999
        if flag.get("state") != "DISABLED":
            result._program = program_of(targeting)
        asked = targeting if result._program is None else _CHOOSE
        evaluator = core()
        evaluator.set_flags({"flags": {declaration.name: {**flag, "targeting": asked}}})
    except Exception as error:  # noqa: BLE001 - a definition may be anything
        return broken(declaration, error, revision=revision, tell=tell)
    result._resolve = getattr(evaluator, f"resolve_{declaration.kind}_value")
    result._variants = flag["variants"]
    result._split = is_split(targeting)
    if flag.get("state") == "DISABLED" or not (result.needs or result._asked.by_time):
        result._fix(result._evaluated(None, {}))
    return result


def undefined(declaration: Declaration) -> Compiled:
    """Return what ``declaration`` says when nothing is stored: its default."""
    return Compiled(declaration, None)._fix(Details(declaration.value, declaration.default, DEFAULT))


def overridden(declaration: Declaration, value: Any) -> Compiled:
    """Return what ``declaration`` says while tests have it say ``value``, which it must allow."""
    name = next((name for name, known in declaration.variants.items() if known == value), None)
    value = float(value) if declaration.kind == "float" else value
    return Compiled(declaration, None)._fix(Details(value, name, STATIC))


def broken(
    declaration: Declaration,
    error: Exception | str,
    *,
    code: str = PARSE_ERROR,
    revision: int | None = None,
    tell: Tell | None = None,
) -> Compiled:
    """Return what ``declaration`` says when its definition cannot be read because of ``error``: its default."""
    result = Compiled(declaration, revision, tell=tell)
    return result._fix(result._failed(error, code))


def require() -> tuple[Callable[[], Any], Callable[..., Any]]:
    """Return the evaluator's classes. Raises ``ImproperlyConfigured`` when the extra "flags" is not installed."""
    return _evaluator()


@cache
def _evaluator() -> tuple[Callable[[], Any], Callable[..., Any]]:
    # Not when this module is imported: a project without flags does without the packages.
    try:
        from openfeature.contrib.tools.flagd.core import FlagdCore  # noqa: PLC0415
        from openfeature.evaluation_context import EvaluationContext  # noqa: PLC0415
    except ImportError as error:
        message = (
            'Feature flags are evaluated by the package openfeature-flagd-core, of the extra "flags": '
            "pip install 'django-natskv[flags]'."
        )
        raise ImproperlyConfigured(message) from error
    logging.getLogger(_EVALUATORS_LOGGER).addFilter(_is_not_ours)
    return FlagdCore, EvaluationContext


def _is_not_ours(_record: logging.LogRecord) -> bool:
    """Tell whether the evaluator logs for somebody else. What we ask it is told by ``Details``, and once by us.

    It would write an error each time that somebody without a targeting key asks for a percentage, and a traceback
    whenever what a browser sends as its version is none.
    """
    return not getattr(_asking, "now", False)
