"""An OpenFeature provider, for projects that ask flags through that API: ``api.set_provider(NatsKVProvider())``.

Owns the way from declared flags to the types, errors and events of OpenFeature. Knows nothing of evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEventDetails
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagResolutionDetails
from openfeature.provider import AbstractProvider, Metadata

from django_natskv import signals
from django_natskv.registry import AnyFlag, Details, all_flags, config_changed
from django_natskv.registry.flags.evaluator import DISABLED, ERROR

_KINDS = {bool: ("boolean",), str: ("string",), int: ("integer",), float: ("float", "integer"), dict: ("object",)}


class NatsKVProvider(AbstractProvider):
    """Resolves the flags that the project's FlagSets declare.

    The targeting key of an evaluation context is the key that percentages go by. A flag that nobody declares is
    FLAG_NOT_FOUND, one of another type TYPE_MISMATCH; what fails gives the default of the caller. A bool is neither an
    integer nor a float; an integer flag may be asked for as a float.
    """

    def get_metadata(self) -> Metadata:
        """Return the provider's name."""
        return Metadata(name="django-natskv")

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        """Begin to tell of changes."""
        del evaluation_context
        config_changed.connect(self._changed, dispatch_uid=("django_natskv.openfeature", id(self)))
        signals.connection_status.connect(self._status, dispatch_uid=("django_natskv.openfeature", id(self)))

    def shutdown(self) -> None:
        """Tell of nothing any more."""
        config_changed.disconnect(dispatch_uid=("django_natskv.openfeature", id(self)))
        signals.connection_status.disconnect(dispatch_uid=("django_natskv.openfeature", id(self)))

    def _changed(self, *, sender: Any, changed: Sequence[str], **_: Any) -> None:
        names = {flag.name for flag in all_flags() if flag.flag_set is sender}
        if names:
            told = [name for name in changed if name in names] or sorted(names)  # shared rules may be in any
            self.emit_provider_configuration_changed(ProviderEventDetails(flags_changed=told))

    def _status(self, *, status: str, error: Any = None, **_: Any) -> None:
        message = None if error is None else str(error)
        if status == "connected":
            self.emit_provider_ready(ProviderEventDetails(message=message))
        elif status == "disconnected":
            self.emit_provider_stale(ProviderEventDetails(message=message))

    # --- resolved, for each type and on either face ---

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """Resolve a flag that is on or off."""
        return _resolve(flag_key, default_value, evaluation_context, bool)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """Resolve a string."""
        return _resolve(flag_key, default_value, evaluation_context, str)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """Resolve a whole number."""
        return _resolve(flag_key, default_value, evaluation_context, int)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """Resolve a number."""
        return _resolve(flag_key, default_value, evaluation_context, float)

    def resolve_object_details(
        self, flag_key: str, default_value: Any, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Any]:
        """Resolve an object."""
        return _resolve(flag_key, default_value, evaluation_context, dict)

    async def resolve_boolean_details_async(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """See resolve_boolean_details()."""
        return await _aresolve(flag_key, default_value, evaluation_context, bool)

    async def resolve_string_details_async(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """See resolve_string_details()."""
        return await _aresolve(flag_key, default_value, evaluation_context, str)

    async def resolve_integer_details_async(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """See resolve_integer_details()."""
        return await _aresolve(flag_key, default_value, evaluation_context, int)

    async def resolve_float_details_async(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """See resolve_float_details()."""
        return await _aresolve(flag_key, default_value, evaluation_context, float)

    async def resolve_object_details_async(
        self, flag_key: str, default_value: Any, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[Any]:
        """See resolve_object_details()."""
        return await _aresolve(flag_key, default_value, evaluation_context, dict)


def _resolve(name: str, default: Any, context: EvaluationContext | None, kind: type[Any]) -> FlagResolutionDetails[Any]:
    flag = _found(name, default, kind)
    return flag if isinstance(flag, FlagResolutionDetails) else _told(flag.details(**_about(context)), default, kind)


async def _aresolve(
    name: str, default: Any, context: EvaluationContext | None, kind: type[Any]
) -> FlagResolutionDetails[Any]:
    flag = _found(name, default, kind)
    if isinstance(flag, FlagResolutionDetails):
        return flag
    return _told(await flag.adetails(**_about(context)), default, kind)


def _found(name: str, default: Any, kind: type[Any]) -> AnyFlag[Any] | FlagResolutionDetails[Any]:
    flag = next((flag for flag in all_flags() if flag.name == name), None)
    if flag is None:
        return _failed(default, ErrorCode.FLAG_NOT_FOUND, f'No flag is declared under the name "{name}".')
    if flag.declaration.kind not in _KINDS[kind]:
        return _failed(default, ErrorCode.TYPE_MISMATCH, f'The flag "{name}" is of type {flag.declaration.kind}.')
    return flag


def _about(context: EvaluationContext | None) -> Mapping[str, Any]:
    if context is None:
        return {}
    return {**context.attributes, "user": None, "key": context.targeting_key}


def _told(details: Details, default: Any, kind: type[Any]) -> FlagResolutionDetails[Any]:
    if details.reason == ERROR:
        return _failed(default, ErrorCode.GENERAL, details.error)
    if details.reason == DISABLED:
        return FlagResolutionDetails(default, reason=DISABLED, flag_metadata=details.metadata)
    value = float(details.value) if kind is float else details.value
    return FlagResolutionDetails(value, reason=details.reason, variant=details.variant, flag_metadata=details.metadata)


def _failed(default: Any, code: ErrorCode, message: str) -> FlagResolutionDetails[Any]:
    return FlagResolutionDetails(default, error_code=code, error_message=message, reason=ERROR)
