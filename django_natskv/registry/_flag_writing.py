"""Writing flags: make a definition, check it, compare and set.

Owns the operations that change what is stored of a flag, and those that read its revisions. Knows nothing of
evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from django_natskv.exceptions import WrongRevision
from django_natskv.kv import Change, Operation as Done, spread
from django_natskv.registry import _views
from django_natskv.registry._declaring import Declaration
from django_natskv.registry._flag_pages import SHARED
from django_natskv.registry._history import Revision
from django_natskv.registry._names import from_headers, to_headers
from django_natskv.registry._place import place_of
from django_natskv.registry._steps import Operation, pause
from django_natskv.registry.flags import definitions
from django_natskv.registry.flags.definitions import check, check_evaluators

ATTEMPTS = 20  # times that a write which somebody else was faster with begins again
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.5  # seconds

Make = Callable[[definitions.Declaration], Any]


def defining(flag: Any, make: Make, actor: Any, comment: str, doing: str) -> Operation[int]:
    """Store what ``make`` makes of the declaration, over whatever is there, if it is valid; return its revision."""
    stored = make(flag.declaration)
    where = flag.flag_set._declaration
    rules = (yield from _shared_rules(where)) if _may_refer(stored) else {}
    check(flag.declaration, stored, rules, doing=doing)
    return (yield from _put(where, flag.name, stored, to_headers(actor, comment)))


def sharing(where: Declaration, rules: Mapping[str, Any], actor: Any, comment: str) -> Operation[int]:
    """Store the shared rules of a bucket, if they are valid; return their revision."""
    check_evaluators(rules)
    return (yield from _put(where, SHARED, dict(rules), to_headers(actor, comment)))


def resetting(flag: Any, actor: Any, comment: str) -> Operation[None]:
    """Delete the definition, if there is one."""
    where = flag.flag_set._declaration
    place = place_of(where)
    for attempt in range(ATTEMPTS):
        entry = yield from place.get(flag.name)
        if entry is None:
            return
        try:
            headers = to_headers(actor, comment)
            yield from place.delete(Change.delete(flag.name, revision=entry.revision, headers=headers))
        except WrongRevision:
            if attempt == ATTEMPTS - 1:
                raise
            yield _wait(attempt)
        else:
            _wrote(where)
            return


def reading(flag: Any) -> Operation[list[Revision[Any]]]:
    """Read the revisions that are kept of a flag, oldest first."""
    entries = yield from place_of(flag.flag_set._declaration).history(flag.name)
    found: list[Revision[Any]] = []
    before: dict[str, Any] = {}
    for entry in entries:
        value = _definition(entry.value) if entry.operation is Done.PUT else None
        now = value if isinstance(value, dict) else {}
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        changes = {name: (before.get(name), now.get(name)) for name in names}
        actor, comment = from_headers(entry.headers)
        found.append(Revision(entry.revision, entry.created, actor, comment, entry.operation, value, changes))
        before = _definition(entry.value) if now else {}  # another copy: each revision is the caller's own
    return found


def _may_refer(stored: Any) -> bool:
    try:
        return "$ref" in json.dumps(stored, default=str)
    except (TypeError, ValueError, RecursionError):
        return False  # check() says what is wrong


def _definition(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _shared_rules(where: Declaration) -> Operation[Any]:
    entry = yield from place_of(where).get(SHARED)
    found = None if entry is None else _definition(entry.value)
    return found if isinstance(found, dict) else {}


def _put(where: Declaration, key: str, stored: Any, headers: Mapping[str, str]) -> Operation[int]:
    data = json.dumps(stored, ensure_ascii=False, allow_nan=False).encode()
    place = place_of(where)
    for attempt in range(ATTEMPTS):
        entry = yield from place.get(key)
        try:
            if entry is None:
                change = Change.create(key, data, headers=headers)
            else:
                change = Change.update(key, data, entry.revision, headers=headers)
            revision = yield from place.write(change, makes=where.create)
        except WrongRevision:
            if attempt == ATTEMPTS - 1:
                raise
            yield _wait(attempt)
        else:
            _wrote(where)
            return revision
    raise AssertionError  # the last attempt returns or raises


def _wrote(where: Declaration) -> None:
    pin = _views.current_pin()
    if pin is not None:
        pin.forget(place_of(where))


def _wait(attempt: int) -> Any:
    return pause(spread.between(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**attempt)))
