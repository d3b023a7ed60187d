"""``manage.py natskv_config --scope``: one site's or tenant's value of a Config."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.management import execute_from_command_line

from tests.fix_commands import Finished
from tests.registry_classes import BUCKET, SiteConfig

KEY = "shop.SiteConfig"
LABEL = "shop.SiteConfig"
SITE = f"{KEY}.site.3"
BOTH = f"{KEY}.site.3.tenant.a=26b"


@pytest.fixture
def manage(shelf, monkeypatch, capsys, only):
    """Run the command with the class declared alone."""
    only(SiteConfig)

    def run(verb, *arguments):
        code: Any = 0
        try:
            execute_from_command_line(["manage.py", "natskv_config", verb, *arguments])
        except SystemExit as ended:
            code = ended.code
        out, err = capsys.readouterr()
        return Finished(code, out, err)

    return run


@pytest.fixture
def only(monkeypatch):
    def declare(*classes):
        for module in ("_declaring", "_place", "buckets", "documents", "_changes"):
            monkeypatch.setattr(f"django_natskv.registry.{module}.declared", list(classes))

    return declare


def answer(manage, verb, *arguments):
    done = manage(verb, *arguments, "--format", "json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_scope_is_set_shown_and_unset_field_by_field(manage, shelf):
    shelf.put(KEY, {"banner": "all", "limit": 5})
    assert manage("set", f"{LABEL}.banner", "three", "--scope", "site=3", "--actor", "ann").code == 0
    assert manage("set", LABEL, "limit=5", "--scope", "site=3").code == 0  # what it falls back to, set all the same
    assert shelf.read(SITE) == {"banner": "three", "limit": 5}
    assert manage("set", f"{LABEL}.limit", "5", "--scope", "site=3").err.startswith(f"{LABEL} site=3 is that already")
    assert manage("set", f"{LABEL}.limit", "7", "--scope", "site=3", "--scope", "tenant=a&b").code == 0
    assert shelf.read(BOTH) == {"limit": 7}
    shown = answer(manage, "get", LABEL, "--scope", "tenant=a&b", "--scope", "site=3")
    assert shown["object"] == "site=3&tenant=a%26b"
    assert shown["values"] == {"banner": "three", "limit": 7, "tags": []}
    assert shown["from"] == {"banner": "site=3", "limit": "stored", "tags": "default"}
    assert answer(manage, "get", LABEL, "--scope", "site=4")["from"]["banner"] == "everybody"
    assert manage("unset", f"{LABEL}.banner", "--scope", "site=3").code == 0
    assert shelf.read(SITE) == {"limit": 5}
    gone = answer(manage, "unset", LABEL, "--scope", "site=3", "--no-input")
    assert (gone, shelf.read(SITE)) == ({"class": LABEL, "object": "site=3", "deleted": True}, None)
    assert shelf.read(KEY) == {"banner": "all", "limit": 5}


def test_revisions_of_a_scope_are_shown_compared_and_gone_back_to(manage, shelf):
    shelf.put(KEY, {"limit": 5})
    first = answer(manage, "set", LABEL, "banner=one", "--scope", "site=3")["revision"]
    answer(manage, "set", LABEL, "banner=two", "limit=6", "--scope", "site=3")
    rows = answer(manage, "history", LABEL, "--scope", "site=3")
    assert [row["changes"] for row in rows] == [{"banner": ["", "one"]}, {"banner": ["one", "two"], "limit": [5, 6]}]
    rows = answer(manage, "diff", LABEL, str(first), "--scope", "site=3")
    assert [(row["object"], row["field"], row["old"], row["new"]) for row in rows] == [
        ("site=3", "banner", "one", "two"),
        ("site=3", "limit", 5, 6),
    ]
    assert answer(manage, "rollback", LABEL, str(first), "--scope", "site=3")["object"] == "site=3"
    assert shelf.read(SITE) == {"banner": "one"}


def test_all_scopes_are_listed_exported_compared_and_imported(manage, shelf, tmp_path):
    shelf.put(KEY, {"banner": "all"})
    shelf.put(SITE, {"banner": "three", "limit": 10})
    shelf.put(BOTH, {"limit": 7})
    [row] = answer(manage, "list")
    assert row["stored"] == 3
    rows = answer(manage, "list", LABEL)
    assert [(row["object"], row["values"]) for row in rows] == [
        (None, {"banner": "all"}),
        ("site=3", {"banner": "three", "limit": 10}),
        ("site=3&tenant=a%26b", {"limit": 7}),
    ]
    assert [row["object"] for row in answer(manage, "list", LABEL, "--scope", "site=3")] == ["site=3"]
    path = tmp_path / "export.json"
    assert manage("export", "--file", str(path)).code == 0
    export = json.loads(path.read_text())["classes"][LABEL]
    assert {pk: item["values"] for pk, item in export.items()} == {
        "": {"banner": "all"},
        "site=3": {"banner": "three", "limit": 10},
        "site=3&tenant=a%26b": {"limit": 7},
    }
    shelf.put(KEY, {"banner": "other"})
    shelf.put(SITE, {"tags": [1]})
    shelf.put(f"{KEY}.site.4", {"limit": 1})
    rows = answer(manage, "diff", "--against", str(path), LABEL)
    assert [(row["object"] or "", row["change"], row["field"]) for row in rows] == [
        ("", "changed", "banner"),
        ("site=3", "changed", "banner"),
        ("site=3", "changed", "tags"),
        ("site=4", "added", None),
    ]
    assert {row["object"] for row in answer(manage, "diff", "--against", str(path), "--scope", "site=3")} == {"site=3"}
    rows = answer(manage, "import", str(path), "--scope", "site=3")
    assert [(row["object"], row["action"]) for row in rows] == [("site=3", "change")]
    assert (shelf.read(KEY), shelf.read(SITE)) == ({"banner": "other"}, {"banner": "three", "limit": 10})
    rows = answer(manage, "import", str(path))
    assert [row["action"] for row in rows] == ["change", "unchanged", "unchanged"]
    assert shelf.read(SITE) == {"banner": "three", "limit": 10}  # the limit too, though it is as by default
    only_one = json.loads(manage("export", "--scope", "site=3").out)["classes"][LABEL]
    assert set(only_one) == {"site=3"}


def test_an_import_is_validated_over_what_the_import_brings(manage, shelf, tmp_path):
    export = {"format": "natskv-config", "version": 1, "classes": {LABEL: {}}}
    path = tmp_path / "export.json"

    def bring(**objects):
        export["classes"] = {LABEL: {pk: {"revision": 0, "values": values} for pk, values in objects.items()}}
        path.write_text(json.dumps(export))
        return manage("import", str(path))

    shelf.put(KEY, {"limit": 500})
    assert "Nothing was written" in bring(**{"site=3": {"banner": "x"}}).err
    done = bring(**{"": {"limit": 5}, "site=3": {"banner": "x"}})
    assert (done.code, shelf.read(SITE)) == (0, {"banner": "x"})
    assert bring(**{"nowhere=3": {}}).code == 1
    assert bring(site={}).code == 1
    assert bring(**{"site=3&site=4": {}}).code == 1
    done = bring(**{"site=3&tenant=a": {}, "tenant=a&site=3": {"limit": 7}})
    assert (done.code, "site=3&tenant=a once more. Nothing was written." in done.err) == (1, True)


def test_scopes_are_checked_and_pruned_and_those_that_are_gone_are_orphans(manage, shelf, only):
    shelf.put(KEY, {"limit": 500})
    shelf.put(SITE, {"later": 1, "limit": "many"})
    shelf.put(f"{KEY}.site.4", {"banner": "forbidden"})
    shelf.put(f"{KEY}.shop.4", {"banner": "of a scope that was removed"})
    shelf.put(f"{KEY}.below", {"banner": "somebody's"})
    done = manage("check", "--format", "json")
    assert done.code == 1
    assert [(row["problem"], row["key"], row["field"]) for row in json.loads(done.out)] == [
        ("invalid", KEY, "limit"),
        ("undecodable", SITE, "limit"),
        ("unknown", SITE, "later"),
        ("invalid", f"{KEY}.site.4", "banner"),
        ("orphan", f"{KEY}.shop.4", ""),
    ]
    assert len(json.loads(manage("check", "--format", "json", "--scope", "site=3").out)) == 2
    assert answer(manage, "prune", "--no-input", "--scope", "site=4") == []
    rows = answer(manage, "prune", "--no-input")
    assert [(row["bucket"], row["key"], row["removed"]) for row in rows] == [
        (BUCKET, SITE, ["later"]),
        (BUCKET, f"{KEY}.shop.4", []),
    ]
    assert shelf.read(SITE) == {"limit": "many"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("get", LABEL, "--scope", "site"), "'site' is not NAME=VALUE"),
        (("get", LABEL, "--scope", "site=3", "--scope", "site=4"), "site is given twice"),
        (("get", LABEL, "--scope", "sit=3"), "no scope 'sit'"),
        (("get", LABEL, "--scope", "site="), "site is empty"),
        (("list", LABEL, "--scope", "sit=3"), "no scope 'sit'"),
        (("export", "--scope", "sit=3"), "no class has the scopes sit"),
        (("check", "--scope", "site=3", "--bucket", "x"), "--bucket contradicts --scope"),
        (("set", f"{LABEL}.limit", "5", "--create", "--scope", "site=3"), "--create is for objects of a Model"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(manage, arguments, said):
    done = manage(*arguments)
    assert (done.code, said in done.err, done.err.count("\n")) == (2, True, 1), done.err
