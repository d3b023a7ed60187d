"""The snapshot file of a local cache: its entries, for a process that starts while NATS is down.

Owns the format, and that a file is whole and one's own, or ignored. Knows nothing of when it is written and served.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import logging
import os
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from django_natskv.exceptions import CodecError
from django_natskv.kv._breath import breathe, paced
from django_natskv.kv._kept import Keeper, SpecialEntry, weight
from django_natskv.kv.entries import Entry

logger = logging.getLogger("django_natskv.local")

SUFFIX = ".natskv"
_UNFINISHED = ".natskv-unfinished"  # of a file that is being written, and of no file that is not ours
_MAGIC = b"natskv local cache 2\n"  # another version is another magic
_DIGEST = 32  # bytes
_LENGTH = struct.Struct(">I")
_RECORD = struct.Struct(">HIIQqd")  # lengths of key, headers and value, revision, created (us), lives (s, or -1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_HEAD = 2**16  # bytes, more than there are before the first entry
_TOO_LARGE = "it takes more than the bytes that a local cache may have (MAX_BYTES)"
_ABANDONED = 60.0  # seconds after which a file that was not finished has no writer any more


class _UnusableError(Exception):
    """The file cannot be served; the message says why."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a file held: entries, and the server's time when they were equal to the bucket."""

    entries: dict[str, Entry]
    taken: datetime


class SnapshotFile:
    """A file for the entries of one local cache. ``identity`` says of what: a file of anything else is ignored."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self._identity = identity

    def write(self, entries: Iterable[Entry], keeper: Keeper, taken: datetime) -> bool:
        """Write ``entries``, atomically and for the owner's eyes only; return whether that was possible.

        A failure is logged and leaves the file that was there.
        """
        try:
            self._replace(self._head(taken), self._body(entries, keeper))
        except (OSError, CodecError) as error:
            logger.warning("The snapshot file %s could not be written: %s", self.path, error)
            return False
        return True

    def read(self, keeper: Keeper, most: int) -> Snapshot | None:
        """Return what is in the file, or None, with a log line, when it cannot be relied on. No file, no line.

        Neither can one whose entries count for more than ``most`` bytes.
        """
        try:
            data = self._content(most)
            return None if data is None else self._fitting(self._parse(data, keeper), most)
        except (OSError, _UnusableError) as error:
            reason = error.strerror or error if isinstance(error, OSError) else error
            logger.warning("The snapshot file %s is ignored: %s", self.path, reason)
        except (ValueError, KeyError, TypeError, struct.error, OverflowError):
            logger.warning("The snapshot file %s is ignored: it is damaged", self.path)
        return None

    # --- writing ---

    def _body(self, entries: Iterable[Entry], keeper: Keeper) -> Iterator[bytes]:
        for entry in paced(entries):
            key, data = entry.key.encode(), keeper.encode(entry)
            lives = entry.lives.total_seconds() if isinstance(entry, SpecialEntry) and entry.lives is not None else -1.0
            created = (entry.created - _EPOCH) // _MICROSECOND
            headers = json.dumps(dict(entry.headers)).encode() if entry.headers else b""
            record = _RECORD.pack(len(key), len(headers), len(data), entry.revision, created, lives)
            yield b"".join((record, key, headers, data))

    def _head(self, taken: datetime) -> bytes:
        head = json.dumps({"of": self._identity, "taken": taken.isoformat()}).encode()
        return _LENGTH.pack(len(head)) + head

    def _replace(self, head: bytes, body: Iterable[bytes]) -> None:
        directory = self.path.parent
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._clear_away(directory)
        # Made with mode 0600.
        descriptor, aside = tempfile.mkstemp(_UNFINISHED, f".{self.path.name}.", directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                self._put(file, head, body)
                file.flush()
                os.fsync(descriptor)
            Path(aside).replace(self.path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise

    @staticmethod
    def _put(file: BinaryIO, head: bytes, body: Iterable[bytes]) -> None:
        """Write part by part: all of them at once would take more than the copy itself."""
        digest = hashlib.blake2b(head, digest_size=_DIGEST)
        file.write(_MAGIC + bytes(_DIGEST) + head)
        for part in body:
            digest.update(part)
            file.write(part)
        file.seek(len(_MAGIC))
        file.write(digest.digest())

    def _clear_away(self, directory: Path) -> None:
        """Remove what writers left behind that were killed in the middle."""
        for left in directory.glob(f".{glob.escape(self.path.name)}.*{_UNFINISHED}"):
            with contextlib.suppress(OSError):
                if left.stat().st_mtime < time.time() - _ABANDONED:
                    left.unlink()

    # --- reading ---

    def _content(self, most: int) -> bytes | None:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
                # Whoever can write it decides what this process believes.
                message = "it is not a file that only this user can write"
                raise _UnusableError(message)
            if facts.st_size > most + _HEAD:  # its entries count for more than they take here
                raise _UnusableError(_TOO_LARGE)
            return file.read()

    @staticmethod
    def _fitting(found: Snapshot, most: int) -> Snapshot:
        if sum(map(weight, found.entries.values())) > most:
            raise _UnusableError(_TOO_LARGE)
        return found

    def _parse(self, data: bytes, keeper: Keeper) -> Snapshot:
        if not data.startswith(_MAGIC):
            message = "it was written by another version, or is no snapshot"
            raise _UnusableError(message)
        start = len(_MAGIC) + _DIGEST
        if hashlib.blake2b(memoryview(data)[start:], digest_size=_DIGEST).digest() != data[len(_MAGIC) : start]:
            message = "it is damaged"
            raise _UnusableError(message)
        (length,) = _LENGTH.unpack_from(data, start)
        start += _LENGTH.size
        head: dict[str, Any] = json.loads(data[start : start + length])
        if head["of"] != self._identity:
            message = "it holds something else"
            raise _UnusableError(message)
        return Snapshot(dict(self._entries(data, start + length, keeper)), datetime.fromisoformat(head["taken"]))

    @staticmethod
    def _entries(data: bytes, start: int, keeper: Keeper) -> Iterator[tuple[str, Entry]]:
        while start < len(data):
            key_length, headers_length, length, revision, created, seconds = _RECORD.unpack_from(data, start)
            start += _RECORD.size
            key = data[start : start + key_length].decode()
            start += key_length
            headers = json.loads(data[start : start + headers_length]) if headers_length else {}
            start += headers_length
            lives = None if seconds < 0 else timedelta(seconds=seconds)
            value = data[start : start + length]
            entry = keeper.restore(key, value, revision, _EPOCH + created * _MICROSECOND, lives, headers)
            start += length
            if entry is not None:
                yield key, entry
            breathe()


def path_in(directory: str | os.PathLike[str], bucket: str, identity: str) -> Path:
    """Return where, in ``directory``, the file of a local cache is that nothing else has."""
    short = hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()
    return Path(directory) / f"{bucket}-{short}{SUFFIX}"


class Saver:
    """Has ``save`` called a while after there is something to save, on a thread that lives only for that."""

    def __init__(self, save: Callable[[], None]) -> None:
        self._save = save
        self._guard = threading.Lock()
        self._timer: threading.Timer | None = None

    def mark(self, delay: float) -> None:
        """Take that there is something to save, at the latest in ``delay`` seconds."""
        if self._timer is None:
            timer = threading.Timer(delay, self._run)
            timer.name, timer.daemon = "natskv-snapshot", True
            self._timer = timer
            timer.start()

    def flush(self) -> None:
        """Save now what there is to save; wait for a save that has begun."""
        timer = self._timer
        if timer is not None:
            timer.cancel()
        self._run()

    def _run(self) -> None:
        with self._guard:
            if self._timer is not None:
                self._timer = None
                self._save()
