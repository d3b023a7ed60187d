"""What is stored of flags is read by another implementation of flagd, which answers the same: that of JavaScript.

The npm package @openfeature/flagd-core, run by node.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import mmh3
import pytest

from django_natskv.registry import AnyFlag, rules as r
from django_natskv.registry.flags.schema import problems
from tests.fix_commands import ROOT
from tests.fix_registry import Shelf
from tests.flag_classes import Features

PACKAGES = ("@openfeature/flagd-core@4.0.1", "@openfeature/core@1.12.0")
SCRIPT = """
const { FlagdCore } = require("@openfeature/flagd-core");
const asked = JSON.parse(require("fs").readFileSync(0, "utf8"));
const told = [];
const log = { debug: (text) => told.push(String(text)), info() {}, warn() {}, error() {} };
const kinds = { boolean: "Boolean", string: "String", integer: "Number", float: "Number", object: "Object" };
const accepts = (configuration) => {
  told.length = 0;
  try {
    const core = new FlagdCore(undefined, log);
    core.setConfigurations(JSON.stringify(configuration));
    return told.some((text) => text.startsWith("invalid")) ? null : core;
  } catch (error) {
    return null;
  }
};
const valid = asked.definitions.map((flag) => accepts({ flags: { flag }, $evaluators: asked.shared }) !== null);
const core = accepts({ flags: asked.flags, $evaluators: asked.shared });
const answers = asked.questions.map(([name, kind, fallback, context]) => {
  const found = core[`resolve${kinds[kind]}Evaluation`](name, fallback, context, log);
  return [found.value, found.variant ?? null, found.reason];
});
console.log(JSON.stringify({ valid, answers }));
"""
CONTEXTS: tuple[dict[str, Any], ...] = (
    {},
    {"key": "7"},
    {"key": "8", "groups": ["beta", "x"], "is_staff": True, "is_authenticated": True},
    {"key": "9", "groups": [], "plan": "pro", "language": "de-at", "version": "2.1.0"},
    {"language": "den", "version": "2.0.0-rc.1", "plan": "", "mail": "ann@example.com"},
    {"language": "de", "version": "v2", "is_superuser": True, "mail": None, "plan": 3},
    {"version": "<script>", "account": {"plan": "pro"}, "plan": "prof", "is_staff": False},
)
PAST, FUTURE = dt.datetime(2000, 1, 1, tzinfo=dt.UTC), dt.datetime(2999, 1, 1, tzinfo=dt.UTC)
RULES = (
    r.users(7, 8),
    r.groups("beta", "gamma") & ~r.users(7),
    r.staff | r.superusers & r.authenticated,
    r.authenticated,
    r.languages("de"),
    r.languages("de-at", "pt_br"),
    r.between(PAST, FUTURE),
    r.between(FUTURE, None) | r.between(None, PAST),
    r.attribute("plan") == "pro",
    r.attribute("plan") != "pro",
    r.attribute("plan").in_("pro", 3, None),
    r.attribute("plan").startswith("pro"),
    r.attribute("mail").endswith("@example.com"),
    r.attribute("account.plan") == "pro",
    r.attribute("version").semver(">=", "2.0.0"),
    r.attribute("version").semver("~", "2.1.3"),
    r.attribute("version").semver("^", "2.0.0") | r.nobody,
    ~(r.staff & r.everyone),
    r.percentage(0) | r.users(7),
    r.percentage(100) & r.attribute("plan").in_("pro"),
)


@pytest.fixture(scope="session")
def flagd_js() -> Path:
    """A directory in which node finds flagd's evaluator, installed once."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    directory = ROOT / ".cache" / "node-flagd"
    directory.parent.mkdir(exist_ok=True)
    # One after another: what another process has half installed would be taken for whole.
    with (directory.parent / "node-flagd.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        run, failed = os.environ.get("PYTEST_XDIST_TESTRUNUID", "alone"), lock.read()
        if not all((directory / "node_modules" / package.rpartition("@")[0]).is_dir() for package in PACKAGES):
            if failed == run != "alone":  # or this test would wait once more for what was waited for
                pytest.skip("another process of this run could not install @openfeature/flagd-core")
            lock.truncate(0)
            lock.write(run)
            lock.flush()
            install(npm, directory)
    return directory


def install(npm: str, directory: Path) -> None:
    aside = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".node-flagd-"))
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(aside), *PACKAGES]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
        if done.returncode == 0:
            shutil.rmtree(directory, ignore_errors=True)
            aside.rename(directory)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not install @openfeature/flagd-core in time")
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if done.returncode:
        pytest.skip(f"npm could not install @openfeature/flagd-core: {done.stderr.strip().splitlines()[-1]}")


def run(directory: Path, **given: Any) -> Any:
    asked = {"flags": {}, "shared": {}, "questions": [], "definitions": [], **given}
    done = subprocess.run(
        ["node", "-e", SCRIPT],  # of no file, which another process would be writing too
        cwd=directory,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answers(directory: Path, flags: Shelf, questions: list[tuple[AnyFlag[Any], dict[str, Any]]]) -> list[list[Any]]:
    """Return value, variant and reason of each question, as the other implementation reads what is stored."""
    stored = {flag.name: flags.read(flag.name) for flag, _ in questions}
    asked = [[flag.name, flag.declaration.kind, flag.declaration.value, context] for flag, context in questions]
    # It answers nothing when its schema, that of flagd, does not allow what is stored.
    found: list[list[Any]] = run(directory, flags=stored, shared=flags.read("_evaluators") or {}, questions=asked)[
        "answers"
    ]
    return found


def theirs(context: dict[str, Any]) -> dict[str, Any]:
    return {("targetingKey" if name == "key" else name): value for name, value in context.items()}


def ours(flag: AnyFlag[Any], context: dict[str, Any]) -> list[Any]:
    details = flag.details(**context)
    assert details.error == ""
    return [details.value, details.variant, "TARGETING_MATCH" if details.reason == "SPLIT" else details.reason]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_what_rules_become_means_the_same_to_another_implementation(flags, flagd_js, rule):
    Features.new_checkout.set(True, when=rule)
    Features.layout.set({"columns": 3}, when=rule, otherwise={"columns": 1})
    Features.share_rules({"shared": rule.logic} if isinstance(rule.logic, dict) else {"shared": {"!!": [rule.logic]}})
    variants = {"old": "old", "new": "new"}
    targeting = {"if": [{"$ref": "shared"}, "new", "old"]}
    Features.theme.define({"state": "ENABLED", "variants": variants, "defaultVariant": "old", "targeting": targeting})
    asked = [
        (flag, context) for flag in (Features.new_checkout, Features.layout, Features.theme) for context in CONTEXTS
    ]
    expected = [ours(flag, context) for flag, context in asked]
    assert answers(flagd_js, flags, [(flag, theirs(context)) for flag, context in asked]) == expected


def test_each_type_without_a_rule_means_the_same_to_another_implementation(flags, flagd_js):
    Features.kill_switch.set(False)
    Features.theme.set("new")
    Features.limit.set(50)
    Features.rate.set(1.5)
    Features.layout.set({"columns": 3})
    asked: list[tuple[AnyFlag[Any], dict[str, Any]]] = [
        (flag, {}) for flag in Features if flag is not Features.new_checkout
    ]
    assert answers(flagd_js, flags, asked) == [ours(flag, {}) for flag, _ in asked]


def definition(**more: Any) -> dict[str, Any]:
    return {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on", **more}


def targeting(logic: Any) -> dict[str, Any]:
    return definition(targeting={"if": [logic, "on", "off"]})


def test_what_flagds_schema_refuses_is_refused(flagd_js):
    mail, version = {"var": "mail"}, {"var": "version"}
    refused = [
        definition(state="ON"),
        {"variants": {"on": True}},
        definition(variants={}),
        definition(variants={"on": True, "off": "no"}),
        definition(variants={"on": None}),
        definition(variants={"": True}),
        definition(defaultVariant=3),
        definition(metadata={"a": {}}),
        definition(metadata=[]),
        definition(targeting="on"),
        targeting({"eval": ["1"]}),
        targeting({"==": [1]}),
        targeting({"starts_with": [mail]}),
        targeting({"ends_with": [mail, 3]}),
        targeting({"sem_ver": [version, ">=", "two"]}),
        targeting({"sem_ver": [version, "=>", "2.0.0"]}),
        targeting({"sem_ver": [version, ">="]}),
        targeting({"reduce": [[1], 2]}),
        targeting({"$ref": 3}),
        definition(targeting={"fractional": [["on", "half"]]}),
        definition(targeting={"fractional": [mail, ["on", 1, 2]]}),
        definition(targeting={"fractional": ["on"]}),
        targeting({"var": "$flagd.secret"}),
    ]
    allowed = [
        definition(),
        definition(defaultVariant=None),
        definition(targeting={}),
        definition(metadata={"a": 1, "b": "c", "d": True}),
        targeting({"or": [{"fractional": [[True, 25], [False, 75]]}, {"in": ["beta", {"var": "groups"}]}]}),
        targeting({"sem_ver": [version, "^", "2.0.0"]}),
        targeting({">=": [{"var": "$flagd.timestamp"}, 3]}),
        definition(targeting={"fractional": [{"cat": [mail, "x"]}, ["on", 1], ["off", 3]]}),
        definition(targeting={"if": [{"$ref": "shared"}, "on"]}),
    ]
    shared: dict[str, Any] = {"shared": {"===": [mail, "ann@example.com"]}}
    told = run(flagd_js, definitions=[*refused, *allowed], shared=shared)["valid"]
    assert told[len(refused) :] == [True] * len(allowed)
    assert [problems(one, shared) for one in allowed] == [[]] * len(allowed)
    assert told[: len(refused)] == [False] * len(refused)
    assert [one for one in refused if not problems(one, shared)] == []


def test_the_implementation_of_javascript_divides_people_by_the_version_before(flags, flagd_js):
    # Its latest release still hashes name and key as text; ours, as flagd does since, their canonical CBOR
    # (tests/unit/test_flag_evaluator.py). The share and who stays are alike, who belongs to it is not.
    keys = [f"user-{number}" for number in range(4_000)]
    before: set[str] = set()
    for percent in (10, 25, 60):
        Features.new_checkout.set(True, when=r.percentage(percent))
        told = answers(flagd_js, flags, [(Features.new_checkout, {"targetingKey": key}) for key in keys])
        chosen = {key for key, (value, _, _) in zip(keys, told, strict=True) if value}
        place = {key: mmh3.hash(f"new_checkout{key}", signed=False) / 2**32 for key in keys}
        assert chosen == {key for key in keys if place[key] < percent / 100}
        assert before < chosen
        assert abs(len(chosen) / len(keys) - percent / 100) < 0.03
        assert chosen != {key for key in keys if Features.new_checkout.on(key=key)}
        before = chosen
