"""An OpenFeature provider, for projects that ask flags through that API: ``api.set_provider(NatsKVProvider())``.

Owns the way from declared flags to the types, errors and events of OpenFeature. Knows nothing of evaluation.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEventDetails
from openfeature.exception import ErrorCode, ProviderNotReadyError
from openfeature.flag_evaluation import FlagResolutionDetails
from openfeature.provider import AbstractProvider, Metadata, ProviderStatus

from django_natskv import signals
from django_natskv.registry import AnyFlag, Details, all_flags, config_changed
from django_natskv.registry._flag_sets import declared_flag, flags_are_cut_off, stored_flags, unread_flags
from django_natskv.registry.flags.context import Context
from django_natskv.registry.flags.evaluator import DEFAULT, DISABLED, ERROR

_KINDS = {bool: ("boolean",), str: ("string",), int: ("integer",), float: ("float", "integer"), dict: ("object",)}


class NatsKVProvider(AbstractProvider):
    """Resolves the flags that the project's FlagSets declare.

    The targeting key of an evaluation context is the key that percentages go by. A flag that nobody declares is
    FLAG_NOT_FOUND, one of another type TYPE_MISMATCH; what fails gives the default of the caller, and so does what is
    disabled or decides for no variant. A bool is neither an integer nor a float; an integer flag may be asked for as
    a float.

    It is ready when the definitions can be read, or when nobody has stored any; in error when they cannot; stale while
    a connection is gone and what was read last holds.
    """

    def __init__(self) -> None:
        super().__init__()
        self._status = ProviderStatus.NOT_READY
        self._changing = threading.Lock()
        self._known: set[str] = set()

    def get_metadata(self) -> Metadata:
        """Return the provider's name."""
        return Metadata(name="django-natskv")

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        """Begin to tell of changes, and read the definitions: waits for them, up to LOCAL_CACHE["WAIT"].

        Raises ``ProviderNotReadyError`` when they cannot be read; the provider becomes ready by itself when they can.
        """
        del evaluation_context
        name = ("django_natskv.openfeature", id(self))
        config_changed.connect(self._changed, dispatch_uid=name)
        signals.connection_status.connect(self._look, dispatch_uid=name)
        signals.initialized.connect(self._first_read, dispatch_uid=name)
        why = unread_flags()
        self._known = stored_flags()
        self._status = ProviderStatus.ERROR if why else ProviderStatus.READY
        if why:
            raise ProviderNotReadyError(why)

    def shutdown(self) -> None:
        """Tell of nothing any more."""
        for signal in (config_changed, signals.connection_status, signals.initialized):
            signal.disconnect(dispatch_uid=("django_natskv.openfeature", id(self)))
        self._status = ProviderStatus.NOT_READY

    def _changed(self, *, sender: Any, changed: Sequence[str], **_: Any) -> None:
        names = {flag.name for flag in all_flags() if flag.flag_set is sender}
        if names:
            told = [name for name in changed if name in names] or sorted(names)  # shared rules may be in any
            self.emit_provider_configuration_changed(ProviderEventDetails(flags_changed=told))

    def _first_read(self, **_: Any) -> None:
        if self._status is ProviderStatus.NOT_READY:
            return  # initialize() is at it
        self._look()
        # What is found in a bucket that was not there, or could not be read, has not been told as a change.
        found = stored_flags()
        new, self._known = found - self._known, self._known | found
        if new:
            self.emit_provider_configuration_changed(ProviderEventDetails(flags_changed=sorted(new)))

    def _look(self, *, waits: bool = True, **_: Any) -> None:
        """See how it is about the definitions now, and tell if that is another than before."""
        # One after another: who looked first must not tell last.
        if not self._changing.acquire(blocking=waits):
            return
        try:
            if self._status is not ProviderStatus.NOT_READY:  # initialize() is at it, or it was shut down
                self._tell(*_how_it_is())
        finally:
            self._changing.release()

    def _tell(self, status: ProviderStatus, why: str) -> None:
        told, self._status = self._status, status
        if told is status:
            return
        if status is ProviderStatus.READY:
            self.emit_provider_ready(ProviderEventDetails())
        elif status is ProviderStatus.STALE:
            self.emit_provider_stale(ProviderEventDetails(message=why))
        else:
            self.emit_provider_error(ProviderEventDetails(message=why, error_code=ErrorCode.PROVIDER_NOT_READY))

    def _answer(self, details: Details, default: Any, kind: type[Any]) -> FlagResolutionDetails[Any]:
        if self._status is ProviderStatus.ERROR and details.error_code != ErrorCode.PROVIDER_NOT_READY:
            self._look(waits=False)  # nobody is told that an empty bucket can be read
        return _told(details, default, kind)

    def _resolve(
        self, name: str, default: Any, context: EvaluationContext | None, kind: type[Any]
    ) -> FlagResolutionDetails[Any]:
        flag = _found(name, default, kind)
        if isinstance(flag, FlagResolutionDetails):
            return flag
        return self._answer(flag.details_for(_about(context)), default, kind)

    async def _aresolve(
        self, name: str, default: Any, context: EvaluationContext | None, kind: type[Any]
    ) -> FlagResolutionDetails[Any]:
        flag = _found(name, default, kind)
        if isinstance(flag, FlagResolutionDetails):
            return flag
        return self._answer(await flag.adetails_for(_about(context)), default, kind)

    # --- resolved, for each type and on either face ---

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """Resolve a flag that is on or off."""
        return self._resolve(flag_key, default_value, evaluation_context, bool)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """Resolve a string."""
        return self._resolve(flag_key, default_value, evaluation_context, str)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """Resolve a whole number."""
        return self._resolve(flag_key, default_value, evaluation_context, int)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """Resolve a number."""
        return self._resolve(flag_key, default_value, evaluation_context, float)

    def resolve_object_details(
        self, flag_key: str, default_value: Any, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Any]:
        """Resolve an object."""
        return self._resolve(flag_key, default_value, evaluation_context, dict)

    async def resolve_boolean_details_async(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """See resolve_boolean_details()."""
        return await self._aresolve(flag_key, default_value, evaluation_context, bool)

    async def resolve_string_details_async(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """See resolve_string_details()."""
        return await self._aresolve(flag_key, default_value, evaluation_context, str)

    async def resolve_integer_details_async(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """See resolve_integer_details()."""
        return await self._aresolve(flag_key, default_value, evaluation_context, int)

    async def resolve_float_details_async(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """See resolve_float_details()."""
        return await self._aresolve(flag_key, default_value, evaluation_context, float)

    async def resolve_object_details_async(
        self, flag_key: str, default_value: Any, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Any]:
        """See resolve_object_details()."""
        return await self._aresolve(flag_key, default_value, evaluation_context, dict)


def _how_it_is() -> tuple[ProviderStatus, str]:
    why = unread_flags()
    if why:
        return ProviderStatus.ERROR, why
    if flags_are_cut_off():
        return ProviderStatus.STALE, "The connection is gone: what was read last holds."
    return ProviderStatus.READY, ""


def _found(name: str, default: Any, kind: type[Any]) -> AnyFlag[Any] | FlagResolutionDetails[Any]:
    flag = declared_flag(name)
    if flag is None:
        return _failed(default, ErrorCode.FLAG_NOT_FOUND, f'No flag is declared under the name "{name}".')
    if flag.declaration.kind not in _KINDS[kind]:
        return _failed(default, ErrorCode.TYPE_MISMATCH, f'The flag "{name}" is of type {flag.declaration.kind}.')
    return flag


def _about(context: EvaluationContext | None) -> Context:
    # Not as arguments: an attribute may be called "user" or "key".
    if context is None:
        return Context()
    return Context(key=context.targeting_key, attributes=context.attributes)


def _told(details: Details, default: Any, kind: type[Any]) -> FlagResolutionDetails[Any]:
    if details.reason == ERROR:
        return _failed(default, ErrorCode(details.error_code), details.error)
    if details.reason == DISABLED or (details.reason == DEFAULT and details.variant is None):
        return FlagResolutionDetails(default, reason=details.reason, flag_metadata=details.metadata)
    value = float(details.value) if kind is float else details.value
    return FlagResolutionDetails(value, reason=details.reason, variant=details.variant, flag_metadata=details.metadata)


def _failed(default: Any, code: ErrorCode, message: str) -> FlagResolutionDetails[Any]:
    return FlagResolutionDetails(default, error_code=code, error_message=message, reason=ERROR)
