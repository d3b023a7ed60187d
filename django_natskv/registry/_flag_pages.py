"""Pages: what is stored of flags at one moment, compiled as it is asked for.

Owns when a definition is read and compiled anew, and who is told of what cannot be. Knows nothing of who asks.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from django_natskv import signals
from django_natskv.exceptions import CodecError, OperationalError
from django_natskv.registry import _views
from django_natskv.registry._place import Place
from django_natskv.registry._steps import Operation, ask
from django_natskv.registry.flags import evaluator
from django_natskv.registry.flags.evaluator import Compiled

logger = logging.getLogger("django_natskv.flags")

SHARED = "_evaluators"
"""The key of the shared rules."""


class Page:
    """The definitions of one place at one moment.

    ``unread`` says why none can be read; it is empty when what is stored can be. ``cache`` and ``moment`` are the copy
    that it was read from, and its moment then; None for what was read from elsewhere.
    """

    __slots__ = ("_compiled", "_place", "_rules", "cache", "entries", "moment", "unread")

    def __init__(self, place: Place, entries: Mapping[str, Any], unread: str = "", before: Page | None = None) -> None:
        self.entries = entries
        self.unread = unread
        self.cache: Any = None
        self.moment: Any = None
        self._place = place
        self._rules: Mapping[str, Any] | None = None
        self._compiled: dict[Any, Compiled] = {}
        if before is not None and before.unread == unread and _same(before, self, SHARED):
            # What has not changed stays compiled.
            self._rules = before._rules
            known = list(before._compiled.items())
            self._compiled = {flag: one for flag, one in known if _same(before, self, flag.name)}

    def of(self, flag: Any) -> Compiled:
        """Return what ``flag`` says, as one object until its definition changes."""
        found = self._compiled.get(flag)
        if found is None:
            found = self._compiled[flag] = self._made(flag)
        return found

    @property
    def rules(self) -> Mapping[str, Any]:
        """The shared rules."""
        if self._rules is None:
            entry = self.entries.get(SHARED)
            try:
                found = {} if entry is None else decoded(self._place, entry)
            except CodecError as error:
                _tell_undecodable(self._place, None, error)
                found = {}
            self._rules = found if isinstance(found, Mapping) else {}
        return self._rules

    def _made(self, flag: Any) -> Compiled:
        entry = self.entries.get(flag.name)
        tell = partial(_tell, self._place, flag)
        if entry is None:
            if not self.unread:
                return evaluator.undefined(flag.declaration)
            tell = partial(_tell_unread, self._place)
            return evaluator.broken(flag.declaration, self.unread, code=evaluator.NOT_READY, tell=tell)
        try:
            definition = decoded(self._place, entry)
        except CodecError as error:
            _tell_undecodable(self._place, flag.flag_set, error)
            return evaluator.broken(flag.declaration, str(error), revision=entry.revision, tell=tell)
        rules = self.rules if b"$ref" in entry.value else {}
        return evaluator.compiled(flag.declaration, definition, evaluators=rules, revision=entry.revision, tell=tell)


_pages: dict[Place, Page] = {}


def page_of(place: Place) -> Page:
    """Return the page that this context sees: the newest, or that of the moment that it has pinned."""
    pin = _views.current_pin()
    if pin is None:
        return newest(place)
    known = pin.made.get(place)
    entries = pin.entries.get(place)
    if known is None or known.entries is not entries:
        known = newest(place)
        if entries is None:
            pin.entries[place] = known.entries
        elif entries is not known.entries:  # pinned by another class of the same bucket
            known = Page(place, entries, known.unread, known)
        pin.made[place] = known
    return known


def newest(place: Place) -> Page:
    """Return the page of what is stored now, as far as this process knows."""
    cache = place.cache
    moment = cache.moment  # before the entries: what comes in between is seen by the next read
    known = _pages.get(place)
    if known is not None and cache is known.cache and moment is known.moment:
        return known
    entries, unread = _read(place, cache)
    before = known if known is not None and cache is known.cache else None
    if before is not None and unread and before.unread == unread and not before.entries:
        return before  # nothing to be had, as before
    page = Page(place, entries, unread, before)
    # Nobody is told that a copy which failed from the start has got to an empty bucket: it is looked at each time.
    page.cache, page.moment = cache, object() if unread else moment
    _pages[place] = page
    return page


def stored(place: Place, names: list[str]) -> Operation[Page]:
    """Return a page of what the server has under ``names``, and of the shared rules. Raises what reading raises."""
    return Page(place, (yield from place.some([*names, SHARED])))


def settled(place: Place) -> Operation[None]:
    """Wait, if this is the first read of the process, until there is something to read, or no more reason to wait."""
    known = _pages.get(place)
    if known is not None and known.cache.moment is known.moment:
        return
    try:
        yield ask(place.cache, "get", SHARED)
    except OperationalError:
        return  # refused, which the read itself tells


def decoded(place: Place, entry: Any) -> Any:
    """Return the JSON of an entry; ``CodecError``."""
    try:
        return json.loads(entry.value)
    except (ValueError, RecursionError, TypeError) as error:
        message = f"Bucket {place.bucket!r}, key {entry.key!r}, revision {entry.revision} holds no JSON: {error}."
        raise CodecError(message, bucket=place.bucket, key=entry.key) from error


def _read(place: Place, cache: Any) -> tuple[dict[str, Any], str]:
    try:
        entries: dict[str, Any] = cache.items()
    except OperationalError as error:
        return {}, f"the flags in bucket {place.bucket!r} cannot be read: {error}"
    if entries:
        return entries, ""
    status = cache.status()
    absent = status.reason.startswith(f"There is no bucket {place.bucket!r}")
    if status.state == "live" or status.age is not None or absent:
        return entries, ""
    why = status.reason or "they have not been read yet."
    return entries, f"the flags in bucket {place.bucket!r} cannot be read: {why}"


def _same(one: Page, other: Page, key: str) -> bool:
    first, second = one.entries.get(key), other.entries.get(key)
    if first is second or first is None or second is None:
        return first is second
    return bool(first.revision == second.revision and first.value == second.value)


# --- what is told: one line in the log, and a signal ---


def _tell(place: Place, flag: Any, failed: Compiled, text: str) -> None:
    logger.warning('The flag "%s" (revision %s) gives its declared default: %s', flag.name, failed.revision, text)
    _send(place, flag.flag_set, flag.name, text, failed.revision)


def _tell_unread(place: Place, failed: Compiled, text: str) -> None:
    del failed  # one line for all of them
    if place.complain(text):
        _send(place, None, None, text, None)


def _tell_undecodable(place: Place, sender: Any, error: CodecError) -> None:
    if sender is None:
        logger.error("%s No shared rule is known; nothing was changed.", error)
    arguments = {"connection": place.connection, "bucket": place.bucket, "key": error.key, "error": error}
    signals.dispatcher.send(signals.undecodable, sender, arguments)


def _send(place: Place, sender: Any, key: str | None, text: str, revision: int | None) -> None:
    arguments = {"connection": place.connection, "bucket": place.bucket, "key": key}
    signals.dispatcher.send(signals.flag_failed, sender, {**arguments, "error": text, "revision": revision})
