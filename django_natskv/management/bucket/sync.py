"""``natskv_bucket sync``. Owns what is done in which order; knows nothing of how configurations are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from django.core.management.base import CommandError, CommandParser

from django_natskv import conf
from django_natskv.declarations import Declared, declared_buckets
from django_natskv.kv import KVContext
from django_natskv.management.plan.difference import Action, BucketPlan, compare, made_anew
from django_natskv.management.plan.look import Plan
from django_natskv.management.terminal.failing import fail_with
from django_natskv.management.terminal.output import Result, counted
from django_natskv.management.terminal.verb import Call, Verb, add_no_input


class Sync(Verb):
    """Make the buckets what is declared."""

    name = "sync"
    help = (
        "Make the buckets what is declared. Declared are those of BUCKETS in the settings of the connection, of "
        "caches, of the registry and of code that has registered its own. Missing ones are created, options that are "
        "declared and differ are changed; options that are not declared stay as they are. What may lose data wants "
        "--allow-data-loss, and nothing is deleted without --prune."
    )
    examples: ClassVar[tuple[str, ...]] = (
        "--plan",
        "",
        "--check --using reports",
        "--allow-data-loss --prune --no-input",
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add what is allowed, and the two ways to look only."""
        looking = parser.add_mutually_exclusive_group()
        looking.add_argument("--plan", action="store_true", help="change nothing, show what would be done")
        looking.add_argument(
            "--check", action="store_true", help="as --plan, with exit status 1 when there is something to do"
        )
        parser.add_argument(
            "--allow-data-loss", action="store_true", help="less history, smaller limits and a shorter life are fine"
        )
        parser.add_argument("--prune", action="store_true", help="delete the buckets that nobody declares; asks first")
        add_no_input(parser)

    def run(self, call: Call) -> Result:
        """Compare, and do what is to be done."""
        declared = declared_buckets(call.alias)
        if call.options["prune"] and not declared:
            raise CommandError("No bucket is declared: --prune would delete all there are. Use delete for that.")
        context = call.kv()
        plan = _plan(context, declared)
        result = Plan(plan, loss_allowed=call.options["allow_data_loss"])
        prune: bool = call.options["prune"]
        drifted = [each for each in plan if each.action in _pending(prune=prune)]
        if call.options["check"] and drifted:
            be = "is" if len(drifted) == 1 else "are"
            fail_with(call, result, f"{len(drifted)} of {counted(len(plan), 'bucket')} {be} not as declared.")
        if not (call.options["plan"] or call.options["check"]):
            refused = _apply(call, context, declared, drifted)
            if refused:
                left = "Left as it is" if len(refused) == 1 else "Left as they are"
                fail_with(call, result, f"{left}: {'; '.join(refused)}.")
        return result


def _pending(*, prune: bool) -> tuple[Action, ...]:
    return (Action.CREATE, Action.CHANGE, *((Action.UNDECLARED,) if prune else ()))


def _plan(context: KVContext, declared: Mapping[str, Declared]) -> list[BucketPlan]:
    present = set(context.bucket_names())
    plan = []
    for name, wanted in declared.items():
        if name not in present:
            plan.append(BucketPlan(name, Action.CREATE, made_anew(wanted.config), wanted.sources))
            continue
        differences = compare(wanted.config, context.open_bucket(name).config)
        action = Action.CHANGE if differences else Action.UNCHANGED
        plan.append(BucketPlan(name, action, differences, wanted.sources))
    # Several connections may lead to one server: what any of them declares is somebody's.
    others = {name for alias in conf.aliases() for name in declared_buckets(alias)}
    plan += [BucketPlan(name, Action.UNDECLARED) for name in sorted(present - others - declared.keys())]
    return plan


def _apply(
    call: Call, context: KVContext, declared: Mapping[str, Declared], pending: Sequence[BucketPlan]
) -> list[str]:
    """Do what is allowed; return why what is not was left."""
    undeclared = [plan.bucket for plan in pending if plan.action is Action.UNDECLARED]
    if undeclared:
        one = len(undeclared) == 1
        named = f"bucket{'' if one else 's'} {', '.join(undeclared)} and all that is in {'it' if one else 'them'}"
        call.confirm(lambda: f"Delete the undeclared {named}?")
    refused = []
    for plan in pending:
        if plan.action is Action.UNDECLARED:
            context.delete_bucket(plan.bucket)
            call.say(f"Deleted the bucket {plan.bucket!r}.")
        elif not plan.in_place:
            refused.append(f"{plan.bucket!r}, which would have to be made anew (dump, delete, sync, restore)")
        elif plan.loses_data and not call.options["allow_data_loss"]:
            refused.append(f"{plan.bucket!r}, which might lose data (--allow-data-loss)")
        else:
            _make(call, context, declared[plan.bucket], plan)
    return refused


def _make(call: Call, context: KVContext, wanted: Declared, plan: BucketPlan) -> None:
    if plan.action is Action.CREATE:
        context.create_bucket(wanted.config)
        call.say(f"Created the bucket {plan.bucket!r}.")
    else:
        given = wanted.config.given()
        context.update_bucket({"bucket": plan.bucket, **{each.option: given[each.option] for each in plan.differences}})
        call.say(f"Changed the bucket {plan.bucket!r}.")
    # A server takes in silence what it does not know (F14): what it says now is what counts.
    left = compare(wanted.config, context.open_bucket(plan.bucket).config)
    if left:
        options = ", ".join(each.option for each in left)
        raise CommandError(f"The server did not apply all that is declared for the bucket {plan.bucket!r}: {options}.")
