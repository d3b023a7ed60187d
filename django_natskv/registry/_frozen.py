"""Lists and dicts that cannot be changed, for the values of snapshots that everybody shares.

Owns these two classes, which are still lists and dicts to JSON, templates and comparisons. Knows nothing of fields.
"""

from __future__ import annotations

import copy
from typing import Any, NoReturn


def _refuse(self: Any, *_arguments: Any, **_options: Any) -> NoReturn:
    kind = "dict" if isinstance(self, dict) else "list"
    message = f"This {kind} belongs to a snapshot, which everybody shares: change a copy of it."
    raise TypeError(message)


class FrozenList(list[Any]):
    """A list that cannot be changed. A copy of it can."""

    __slots__ = ()
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse

    def __reduce__(self) -> Any:
        return list, (list(self),)

    def __copy__(self) -> list[Any]:
        return list(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return [copy.deepcopy(value, memo) for value in self]


class FrozenDict(dict[Any, Any]):
    """A dict that cannot be changed. A copy of it can."""

    __slots__ = ()
    clear = pop = popitem = setdefault = update = _refuse
    __setitem__ = __delitem__ = __ior__ = _refuse

    def __reduce__(self) -> Any:
        return dict, (dict(self),)

    def __copy__(self) -> dict[Any, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        return {key: copy.deepcopy(value, memo) for key, value in self.items()}


def freeze(value: Any) -> Any:
    """Return ``value``, with the lists and dicts in it replaced by ones that cannot be changed."""
    if isinstance(value, dict):
        return FrozenDict({key: freeze(each) for key, each in value.items()})
    if isinstance(value, list):
        return FrozenList([freeze(each) for each in value])
    return value
