"""A backend for django-constance: ``CONSTANCE_BACKEND = "django_natskv.contrib.constance.NatsKVBackend"``.

Owns how constance's settings are keys of a bucket. Knows nothing of how a bucket is copied and written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from constance import config, signals
from constance.backends import Backend
from constance.codecs import dumps, loads
from django.conf import settings

from django_natskv.exceptions import OperationalError
from django_natskv.kv import Change
from django_natskv.registry._names import to_token
from django_natskv.registry._place import Place, place_at
from django_natskv.registry._steps import Operation, arun, ask, run

logger = logging.getLogger("django_natskv.registry")


class NatsKVBackend(Backend):  # type: ignore[misc]  # constance has no types
    """Keeps constance's settings in a bucket, one key each, in constance's own JSON, and reads them from memory.

    ``CONSTANCE_NATSKV_CONNECTION`` ("default") and ``CONSTANCE_NATSKV_BUCKET`` ("constance") say where. All instances
    of a process share one copy of the bucket. A read raises nothing because of NATS: what cannot be read is not there,
    and constance shows its default. The first write makes a missing bucket.
    """

    @property
    def _place(self) -> Place:
        alias = getattr(settings, "CONSTANCE_NATSKV_CONNECTION", "default")
        return place_at(alias, getattr(settings, "CONSTANCE_NATSKV_BUCKET", "constance"))

    def get(self, key: str) -> Any:
        """Return the value of ``key``, or None."""
        return run(self._get(key))

    async def aget(self, key: str) -> Any:
        """See get()."""
        return await arun(self._get(key))

    def mget(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return the values of those ``keys`` that are there, all of one moment."""
        return run(self._mget(keys))

    async def amget(self, keys: Iterable[str]) -> dict[str, Any]:
        """See mget()."""
        return await arun(self._mget(keys))

    def set(self, key: str, value: Any) -> None:
        """Store ``value`` under ``key``, whatever is there, and send constance's ``config_updated``."""
        run(self._set(key, value))

    async def aset(self, key: str, value: Any) -> None:
        """See set()."""
        await arun(self._set(key, value))

    def _get(self, key: str) -> Operation[Any]:
        return (yield from self._mget([key])).get(key)

    def _mget(self, keys: Iterable[str]) -> Operation[dict[str, Any]]:
        place = self._place
        tokens = {key: to_token(key) for key in keys}
        if not tokens:
            return {}
        try:
            # The first read of a process waits for the copy, on either face.
            yield ask(place.cache, "get", next(iter(tokens.values())))
        except OperationalError:
            logger.debug("The copy of %s cannot be read, which the next line tells", place.bucket)
        entries = place.entries({})
        found = {key: _value(place, key, entries[token]) for key, token in tokens.items() if token in entries}
        return {key: value for key, value in found.items() if value is not None}

    def _set(self, key: str, value: Any) -> Operation[None]:
        old = yield from self._get(key)
        yield from self._place.write(Change.put(to_token(key), dumps(value).encode()), makes=True)
        signals.config_updated.send(sender=config, key=key, old_value=old, new_value=value)


def _value(place: Place, key: str, entry: Any) -> Any:
    try:
        found = loads(entry.value.decode())
    except Exception as error:  # noqa: BLE001 - whatever a codec makes of what it does not know
        if place.note(entry.key, entry):  # once, and not at every read
            text = "The setting %s in bucket %s cannot be read (%r): its default stands in"
            logger.error(text, key, place.bucket, error)  # noqa: TRY400
        return None
    place.note(entry.key, None)
    return found
