"""Contests: the same work by several peers in interleaved rounds, and what their ratios were.

Owns the statistics. Knows nothing of servers.

A machine that does other things too is never equally fast for long, so that two means taken one after another say
little. Here the peers take turns within each round, in an order that changes from round to round; a ratio is formed
within the round, and the median of these ratios, with its quartiles, is what counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Sample = Mapping[str, float]  # by what was measured ("time", or "median" and "p99"): seconds
Batch = Callable[[int], Sample]  # do so many operations
MOST = 200_000  # operations a batch
TIME = "time"  # the measure that limits are about


@dataclass(frozen=True)
class Contest:
    """``peers`` by name, of which ratios are formed to ``baseline``. ``targets`` bound a peer's ratio, ``limits`` its
    seconds.

    ``count`` is the number of operations a batch; without it, as many as the baseline does in the batch's time.
    """

    title: str
    baseline: str
    peers: dict[str, Batch]
    targets: dict[str, float] = field(default_factory=dict)
    count: int | None = None
    rounds: int | None = None  # at most
    limits: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Spread:
    """The quartiles of what was measured."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, median, high)


@dataclass(frozen=True)
class Row:
    """What came out for one peer: seconds an operation, and the ratio to the baseline of the same round."""

    contest: str
    baseline: str
    measure: str
    peer: str
    seconds: Spread
    ratio: Spread
    target: float | None
    rounds: int
    count: int
    limit: float | None = None  # seconds

    @property
    def met(self) -> bool | None:
        if self.limit is not None:
            return self.seconds.median <= self.limit
        return None if self.target is None else self.ratio.median <= self.target


def run(contest: Contest, rounds: int, seconds: float) -> list[Row]:
    """Let the peers take turns for ``rounds`` rounds of about ``seconds`` a batch."""
    names = list(contest.peers)
    count = contest.count or calibrate(contest.peers[contest.baseline], seconds)
    for name in names:
        contest.peers[name](min(count, 20))  # connect, and warm what can be warmed
    rounds = min(rounds, contest.rounds or rounds)
    taken: list[dict[str, Sample]] = []
    for number in range(rounds):
        shift = (number // 2) % len(names)
        order = names[shift:] + names[:shift]
        if number % 2:
            order.reverse()
        taken.append({name: contest.peers[name](count) for name in order})
    return [row(contest, name, measure, taken, count) for name in names for measure in taken[0][contest.baseline]]


def calibrate(batch: Batch, seconds: float) -> int:
    """Return how many operations take about ``seconds``."""
    batch(3)
    count = 8
    while True:
        took = batch(count)["time"] * count
        if took >= seconds / 4 or count >= MOST:
            return max(8, min(MOST, round(count * seconds / took)))
        count *= 4


def row(contest: Contest, name: str, measure: str, taken: list[dict[str, Sample]], count: int) -> Row:
    seconds = [each[name][measure] for each in taken]
    ratios = [each[name][measure] / each[contest.baseline][measure] for each in taken]
    target = contest.targets.get(f"{name}: {measure}", contest.targets.get(name))
    return Row(
        contest.title,
        contest.baseline,
        measure,
        name,
        Spread.of(seconds),
        Spread.of(ratios),
        target if name != contest.baseline else None,
        len(taken),
        count,
        contest.limits.get(name) if measure == TIME else None,
    )
