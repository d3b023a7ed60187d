"""How a plan looks, in the three formats. Owns its words; knows nothing of how it came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from django_natskv.management.bucket.show import show_option
from django_natskv.management.plan.difference import Action, BucketPlan, Difference
from django_natskv.management.terminal.output import Style, exact, printable, to_json

_WIDTH = max(map(len, Action))
_LOSES = "may lose data"
_REFUSED = f"{_LOSES}: needs --allow-data-loss"
_FIXED = "cannot be changed in place: make the bucket anew"


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan as a result; ``loss_allowed``: what may lose data was said to be fine."""

    buckets: Sequence[BucketPlan]
    loss_allowed: bool = False

    def lines(self, format: str, heading: Style) -> list[str]:  # noqa: A002 - named as the option is
        """See Result.lines()."""
        if format == "json":
            return [to_json([_as_json(plan) for plan in self.buckets])]
        if format == "plain":
            return [line for plan in self.buckets for line in _plain(plan)]
        loses = _LOSES if self.loss_allowed else _REFUSED
        return [line for plan in self.buckets for line in _table(plan, heading, loses)]


def _as_json(plan: BucketPlan) -> dict[str, Any]:
    return {
        "bucket": plan.bucket,
        "action": plan.action.value,
        "declared_by": list(plan.sources),
        "changes": [asdict(difference) for difference in plan.differences],
    }


def _plain(plan: BucketPlan) -> list[str]:
    head = f"{plan.action}\t{plan.bucket}"
    if not plan.differences:
        return [f"{head}\t\t\t\t"]
    return [f"{head}\t{each.option}\t{exact(each.old)}\t{exact(each.new)}\t{_mark(each)}" for each in plan.differences]


def _table(plan: BucketPlan, heading: Style, loses: str) -> list[str]:
    lines = [f"{heading(f'{plan.action:<{_WIDTH}}')}  {plan.bucket}"]
    for each in plan.differences:
        new = show_option(each.option, each.new)
        change = new if plan.action is Action.CREATE else f"{show_option(each.option, each.old)} -> {new}"
        note = {"": "", "fixed": f"  ({_FIXED})", "loses": f"  ({loses})"}[_mark(each)]
        lines.append(f"{'':<{_WIDTH}}    {printable(f'{each.option}: {change}')}{note}")
    return lines


def _mark(difference: Difference) -> str:
    if not difference.in_place:
        return "fixed"
    return "loses" if difference.loses_data else ""
