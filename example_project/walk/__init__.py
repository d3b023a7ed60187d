"""The walk through django-natskv that ``make demo`` takes: every line of it is executed, every number measured.

Owns the order of the chapters; each knows what it shows, and counts on those before it.
"""

from __future__ import annotations

import time

from example_project.transcript import Transcript
from example_project.walk import buckets, shop

CHAPTERS = (
    buckets.a_server,
    buckets.a_bucket,
    buckets.entries,
    buckets.a_race,
    buckets.history,
    buckets.a_watch,
)


def walk(transcript: Transcript) -> None:
    """Take the walk; ``WalkFailed`` when a step does not do what it says."""
    began = time.perf_counter()
    for chapter in CHAPTERS:
        chapter(transcript)
    shop.at_work(transcript)
    transcript.say()
    transcript.good(f"The walk took {time.perf_counter() - began:.1f} s, and everything in it was checked.")
