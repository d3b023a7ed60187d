"""Clearing: a whole cache, and as much of it as is too much.

Owns that what was cleared is not read again, and the bound of MAX_ENTRIES. Knows nothing of single values.
"""

from __future__ import annotations

from collections.abc import Collection

from django_natskv.cache import keys
from django_natskv.cache.steps import Operation
from django_natskv.cache.store import Store
from django_natskv.cache.writes import remove_many


def clear(store: Store) -> Operation[None]:
    """Remove everything under the store's KEY_PREFIX, or, when it has none, everything in the bucket.

    First the clear marker: what is older counts as gone from then on, even if it comes back (F1). Then the space is
    reclaimed.
    """
    prefix = store.prefix or None
    marker: int = yield from store.place.ask("put", keys.clear_marker(prefix), b"")
    patterns = [keys.all_of_prefix(prefix), keys.all_chunks(prefix)] if prefix else None
    yield from store.place.ask("erase", patterns, before=marker)
    store.chunks.forget()


def make_room(store: Store, wanted: Collection[str], most: int, frequency: int) -> Operation[None]:
    """Remove the oldest entries if with ``wanted`` there would be more than ``most``: one in ``frequency``, 0 for all.

    Entries are counted when this process has seen as many keys as there may be, and not at each write: with several
    processes there may be more for a while.
    """
    if store.seen is None or len(store.seen) + sum(name not in store.seen for name in wanted) > most:
        there = yield from _list(store)
        over = len({*there, *wanted}) - most
        if over > 0:
            count = max(over, len(there) // frequency if frequency else len(there))
            yield from remove_many(store, there[:count])
            there = there[count:]
        store.seen = set(there)
    store.seen.update(wanted)


def _list(store: Store) -> Operation[list[str]]:
    names = yield from store.place.ask("keys", keys.all_of_prefix(store.prefix))
    return [name for name in names if keys.decode(name) is not None]
