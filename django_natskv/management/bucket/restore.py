"""``natskv_bucket restore``. Owns the words of it; knows nothing of how a bucket is filled."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import IO, ClassVar

from django.core.management.base import CommandError, CommandParser

from django_natskv.exceptions import OperationalError, UsageError
from django_natskv.kv import Bucket
from django_natskv.management.bucket.named import add_name, name_of
from django_natskv.management.dumps.files import called, readable_twice
from django_natskv.management.dumps.lines import DumpError, Header, Line, Trailer, read_header, read_line
from django_natskv.management.dumps.restoring import Clock, Mode, Outcome, Restoring
from django_natskv.management.terminal.failing import fail_with
from django_natskv.management.terminal.output import Done, Result, counted
from django_natskv.management.terminal.progress import Progress
from django_natskv.management.terminal.verb import Call, Verb, add_no_input

_MODES = (Mode.REPLACE, Mode.SKIP_EXISTING, Mode.IF_REVISION)
_OF_COPIES = ("mirror", "sources")


@dataclass(slots=True)
class Dump:
    """A dump that was read through."""

    header: Header
    entries: int = 0
    counted: int | None = None  # by its last line
    superseded: dict[str, int] = field(default_factory=dict)


class Restore(Verb):
    """Write the entries of a dump into a bucket."""

    name = "restore"
    help = (
        "Write the entries of a dump into a bucket. The dump is read through first: one that is broken off or damaged "
        "changes nothing. Revisions and times are new, everything else is as it was; what has expired meanwhile is "
        "left out. A bucket that is not empty wants one of --replace, which asks first, --skip-existing and "
        "--if-revision. A restore that was interrupted is finished by the same one again, or by --replace where the "
        "bucket was empty before."
    )
    examples: ClassVar[tuple[str, ...]] = (
        "flags flags.jsonl",
        "flags-copy flags.jsonl --create",
        "flags flags.jsonl --replace --dry-run",
        "shop - --skip-existing < shop.jsonl",
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the name, the file and what to do with what is there."""
        add_name(parser)
        parser.add_argument("file", metavar="FILE", help="the dump; - for stdin")
        modes = parser.add_mutually_exclusive_group()
        for mode, text in (
            (Mode.REPLACE, "keys of the dump become what it says, history included; other keys stay"),
            (Mode.SKIP_EXISTING, "keys that exist stay as they are"),
            (
                Mode.IF_REVISION,
                "write only what has still the revision of the dump; exit status 1 if something has not",
            ),
        ):
            modes.add_argument(f"--{mode}", action="store_const", const=mode, dest="mode", help=text)
        parser.add_argument("--create", action="store_true", help="make the bucket, as the dump says, if it is missing")
        parser.add_argument("--partial", action="store_true", help="take a dump that is broken off, as far as it goes")
        parser.add_argument("--dry-run", action="store_true", help="write nothing, and say what would be")
        add_no_input(parser)

    def run(self, call: Call) -> Result:
        """Read the dump, and restore it."""
        name = name_of(call)
        mode: Mode | None = call.options["mode"]
        with readable_twice(call.options["file"]) as file:
            dump = _read_through(call, file)
            if dump.header.history and mode in (Mode.SKIP_EXISTING, Mode.IF_REVISION):
                raise UsageError(
                    f"A dump with history is restored into an empty bucket or with --replace, not --{mode}."
                )
            bucket = _open(call, name, dump.header)
            if bucket is not None:
                _look(call, bucket, dump, mode)
            outcome = _restore(call, file, dump, bucket, mode)
        return _told(call, name, outcome)


def _read_through(call: Call, file: IO[bytes]) -> Dump:
    """Return what the dump is about, having looked at every line; ``CommandError`` when it is not whole."""
    lines = _lines(call, file)
    try:
        dump = Dump(read_header(next(lines, (0, b""))[1]))
    except DumpError as error:
        raise CommandError(f"{called(call.options['file'])}, line 1: {str(error).rstrip('.')}.") from None
    with Progress(call, "Checking") as progress:
        size = file.seek(0, 2)
        file.seek(0)
        for line in _entries(call, file):
            if dump.counted is not None:
                raise CommandError(f"{called(call.options['file'])} goes on after its last line.")
            if isinstance(line, Trailer):
                dump.counted = line.entries
                continue
            dump.entries += 1
            if not dump.header.history and line.revision > dump.header.revision:
                dump.superseded[line.key] = line.revision
            progress.update(dump.entries, file.tell() / size)
    if dump.counted != dump.entries and not call.options["partial"]:
        told = "has no last line" if dump.counted is None else f"should have {dump.counted:,}"
        raise CommandError(
            f"{called(call.options['file'])} is not whole: "
            f"it has {counted(dump.entries, 'entry', 'entries')} and {told}. "
            "Nothing was restored; --partial takes it as far as it goes."
        )
    return dump


def _lines(call: Call, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the numbered lines; one that was broken off counts as missing where that was said to be fine."""
    file.seek(0)
    for number, raw in enumerate(iter(file.readline, b""), 1):
        if raw.endswith(b"\n") or not call.options["partial"]:
            yield number, raw


def _entries(call: Call, file: IO[bytes]) -> Iterator[Line | Trailer]:
    """Yield what the lines after the first say; ``CommandError`` for one that says nothing."""
    for number, raw in _lines(call, file):
        if number > 1:
            try:
                yield read_line(raw)
            except DumpError as error:
                broken = "" if raw.endswith(b"\n") else " The dump is not whole; --partial takes it as far as it goes."
                message = f"{called(call.options['file'])}, line {number}: {error}. Nothing was restored.{broken}"
                raise CommandError(message) from None


def _open(call: Call, name: str, header: Header) -> Bucket | None:
    """Return the bucket; None where it is missing and a dry run makes none."""
    context = call.kv()
    if call.options["create"] and name not in context.bucket_names():
        if call.options["dry_run"]:
            return None
        # The bucket is to have the entries itself: what is written to a mirror goes to the bucket that it copies.
        config = {key: value for key, value in header.config.items() if key not in _OF_COPIES}
        context.create_bucket({**config, "bucket": name})
        call.say(f"Created the bucket {name!r}.")
    return context.open_bucket(name, codec="bytes")


def _look(call: Call, bucket: Bucket, dump: Dump, mode: Mode | None) -> None:
    """Make sure that the bucket is what the caller takes it for; ``CommandError``."""
    if mode in (None, Mode.REPLACE) and next(bucket.entries(history=True), None) is not None:
        if mode is None:
            raise CommandError(
                f"The bucket {bucket.name!r} is not empty: say --replace, --skip-existing or --if-revision. After a "
                "restore that was interrupted, --replace finishes it."
            )
        if not call.options["dry_run"]:
            entries = counted(dump.entries, "entry", "entries")
            call.confirm(
                lambda: (
                    f"Restore {entries} over what the bucket {bucket.name!r} has at their keys, history included? "
                    "Other keys stay."
                )
            )
    kept, dumped = bucket.config.history or 1, dump.header.config.get("history", 1)
    if dump.header.history and kept < dumped:
        few = counted(kept, "revision")
        call.warn(f"The bucket {bucket.name!r} keeps {few} of a key, and the one that was dumped {dumped}.")


def _restore(call: Call, file: IO[bytes], dump: Dump, bucket: Bucket | None, mode: Mode | None) -> Outcome:
    with Progress(call, "Restoring") as progress:
        restoring = Restoring(
            bucket,
            dump.header,
            mode or Mode.EMPTY,
            # Without a bucket nothing is written, and this machine's time is near enough to say what has expired.
            clock=Clock(bucket.server_time() if bucket else datetime.now(UTC)),
            superseded=dump.superseded,
            dry_run=call.options["dry_run"],
            tell=lambda count: progress.update(count, count / max(1, dump.entries)),
        )
        with closing(restoring):
            try:
                for line in _entries(call, file):
                    if isinstance(line, Line):
                        restoring.add(line)
                restoring.finish()
            except (OperationalError, OSError, sqlite3.Error, KeyboardInterrupt) as error:
                ended = "was interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
                call.warn(
                    f"{counted(restoring.outcome.written, 'entry was', 'entries were')} written before it {ended}."
                )
                if isinstance(error, OperationalError | KeyboardInterrupt):
                    raise
                why = getattr(error, "strerror", None) or error
                text = f"The dump, or what is kept aside of it meanwhile, cannot be read or written: {why}."
                raise CommandError(text) from error
    return restoring.outcome


def _told(call: Call, name: str, outcome: Outcome) -> Result:
    dry_run = call.options["dry_run"]
    written = counted(outcome.written, "entry", "entries")
    call.say(f"{'Would restore' if dry_run else 'Restored'} {written} into the bucket {name!r}.")
    if outcome.skipped:
        call.say(f"{counted(outcome.skipped, 'was', 'were')} skipped: what exists, or is as the dump says already.")
    if outcome.expired:
        call.say(f"{counted(outcome.expired, 'was', 'were')} left out: expired since the dump.")
    facts = {key: value for key, value in asdict(outcome).items() if key != "named"}
    done = Done({"bucket": name, **facts, "dry_run": dry_run})
    if outcome.conflicts or outcome.unfit:
        fail_with(call, done, _why(outcome))
    return done


def _why(outcome: Outcome) -> str:
    why = [f"{counted(outcome.conflicts, 'has', 'have')} moved on since the dump"] if outcome.conflicts else []
    if outcome.unfit:
        why.append(f"{counted(outcome.unfit, 'has a key or header', 'have keys or headers')} that cannot be written")
    more = ", ..." if outcome.conflicts + outcome.unfit > len(outcome.named) else ""
    return f"Not restored: {' and '.join(why)}: {', '.join(map(repr, outcome.named))}{more}."
