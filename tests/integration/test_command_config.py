"""``manage.py natskv_config``, run as a user runs it, on a real server of its own."""

from __future__ import annotations

import getpass
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import execute_from_command_line
from django.test import override_settings

from django_natskv import connections, kv, signals
from django_natskv.registry import _declaring, _place, buckets, documents
from tests import config_classes
from tests.fix_commands import PROMPT, Finished, Manage
from tests.fix_servers import MakeServer, NatsServer

pytestmark = pytest.mark.timeout(240)  # interpreters start, each of them in seconds on a busy machine


class Project:
    """The classes of ``tests.config_classes``, the bucket that they are kept in, and the command on them.

    It is run in this process, which takes a tenth of the time; on a terminal, in one of its own.
    """

    def __init__(self, directory: Path, connection: kv.Connection, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.connection = connection
        self._capsys = capsys

    def __call__(self, verb: str, *arguments: str) -> Finished:
        code: Any = 0
        try:
            execute_from_command_line(["manage.py", "natskv_config", verb, *arguments])
        except SystemExit as ended:
            code = ended.code
        out, err = self._capsys.readouterr()
        return Finished(code, out, err)

    def json(self, verb: str, *arguments: str) -> Any:
        """Run it without an error and read its JSON back."""
        done = self(verb, *arguments, "--format", "json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    @property
    def bucket(self) -> kv.Bucket:
        context = self.connection.kv()
        if "config" not in context.bucket_names():
            context.create_bucket({"bucket": "config", "history": 20})
        return context.open_bucket("config", codec="json")

    def stored(self, key: str) -> Any:
        entry = self.bucket.get(key)
        return None if entry is None else entry.value


CLASSES = [config_classes.ShopConfig, config_classes.Carrier, config_classes.Far]
for _declared in CLASSES:
    _declaring.declared.remove(_declared)  # to be declared in the tests of this module alone


@pytest.fixture
def server(make_server: MakeServer) -> NatsServer:
    return make_server()


@pytest.fixture
def natskv(server: NatsServer) -> dict[str, Any]:
    return {"default": {"SERVERS": [server.url]}, "down": {"SERVERS": ["nats://127.0.0.1:1"]}}


@pytest.fixture
def project(
    tmp_path: Path,
    natskv: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Project]:
    monkeypatch.chdir(tmp_path)
    mine = list(CLASSES)
    for module in (documents, buckets, _place):
        monkeypatch.setattr(module, "declared", mine)
    with override_settings(NATSKV=natskv):
        yield Project(tmp_path, connections["default"], capsys)
        connections.close_all()


@pytest.fixture
def made(manage: Manage, natskv: dict[str, Any]) -> Manage:
    """The same as a project of its own, for a terminal and a pipe."""
    apps = ["django.contrib.contenttypes", "django.contrib.auth", "django_natskv", "store"]
    manage.configure(natskv, INSTALLED_APPS=apps)
    (manage.directory / "store").mkdir()
    (manage.directory / "store" / "__init__.py").touch()
    (manage.directory / "store" / "config.py").write_text(Path(config_classes.__file__).read_text())
    return manage


# ---------------------------------------------------------------- get, set, unset


def test_what_is_set_is_read_back_and_says_who_and_why(project: Project):
    assert project("get", "store.ShopConfig.banner").out == "\n"
    done = project("set", "store.ShopConfig.banner", "Sale", "--comment", "promo")
    first = int(done.out)
    assert (done.code, done.error) == (0, f"Saved store.ShopConfig, revision {first}.")
    assert project.stored("store.ShopConfig") == {"banner": "Sale", "$version": 2}
    entry = project.bucket.get("store.ShopConfig")
    assert entry is not None
    assert entry.headers == {"Natskv-Actor": getpass.getuser(), "Natskv-Comment": "promo"}
    assert project("get", "store.ShopConfig.banner").out == "Sale\n"
    assert project.json("get", "store.ShopConfig.banner") == "Sale"
    shown = project.json("get", "store.ShopConfig")
    assert (shown["class"], shown["object"], shown["revision"]) == ("store.ShopConfig", None, first)
    assert (shown["values"]["free_shipping_from"], shown["values"]["banner"]) == ("50", "Sale")
    assert (shown["from"]["free_shipping_from"], shown["from"]["banner"]) == ("default", "stored")
    table = project("get", "store.ShopConfig").out.splitlines()
    assert table[0] == "Field               Value   From"
    assert table[2] == 'banner              "Sale"  stored'
    again = project("set", "store.ShopConfig.banner", "Sale", "--format", "json")
    assert again.error == "store.ShopConfig is that already."
    assert json.loads(again.out) == {"class": "store.ShopConfig", "object": None, "revision": first}


def test_several_fields_are_one_change_and_each_is_read_by_its_form_field(project: Project):
    refused = project("set", "store.ShopConfig.closed", "yes")
    assert (refused.code, refused.out) == (2, "")
    assert "store.ShopConfig would not be valid: banner: Say why the shop is closed." in refused.error
    texts = ("closed=on", "banner= Inventory", "free_shipping_from=7.5", 'tags=["a", 1]', "size=2", "maybe=No")
    assert project("set", "store.ShopConfig", *texts, "since=2027-03-01 12:00").code == 0
    values = project.json("get", "store.ShopConfig")["values"]
    assert values == {
        "free_shipping_from": "7.5",
        "banner": "Inventory",
        "closed": True,
        "maybe": False,
        "since": "2027-03-01T12:00:00-06:00",
        "tags": ["a", 1],
        "size": 2,
    }
    assert project("set", "store.ShopConfig", "maybe=", "since=").code == 0
    values = project.json("get", "store.ShopConfig")["values"]
    assert (values["maybe"], values["since"]) == (None, None)


def test_the_value_of_one_field_comes_from_stdin_or_a_file(project: Project, monkeypatch: pytest.MonkeyPatch):
    for given, arguments, stored in (
        (b'["a",\n "b"]\n', ("store.ShopConfig.tags",), {"tags": ["a", "b"]}),
        (b"2\r\n", ("store.ShopConfig.size",), {"size": 2}),
        (b"\xc3\xa9", ("store.ShopConfig.banner",), {"banner": "é"}),
    ):
        (project.directory / "value").write_bytes(given)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        for where in (["--file", "value"], ["-"]):
            assert project("unset", "store.ShopConfig", "--no-input").code == 0
            assert project("set", *arguments, *where).code == 0
            assert {**stored, "$version": 2} == project.stored("store.ShopConfig")
    project("set", "store.Carrier", "dhl", "--create")
    (project.directory / "value").write_text("7\n")
    assert project("set", "store.Carrier.price", "dhl", "--file", "value").code == 0
    assert project("set", "store.ShopConfig", "banner=-").code == 0
    assert (project.stored("store.Carrier.dhl"), project.stored("store.ShopConfig")["banner"]) == ({"price": 7}, "-")
    (project.directory / "value").write_bytes(b"\xff")
    assert "The file is not UTF-8." in project("set", "store.ShopConfig.banner", "--file", "value").error


def test_objects_of_a_model_are_made_only_when_that_is_said(project: Project):
    done = project("set", "store.Carrier.price", "dhl", "7")
    assert (done.code, done.out) == (3, "")
    assert "There is no store.Carrier dhl in bucket 'config'." in done.error
    done = project("set", "store.Carrier", "dhl", "price=-7", "--create", "--actor", "Jörg")
    assert done.code == 0
    assert project.stored("store.Carrier.dhl") == {"price": -7}
    assert project("set", "store.Carrier.active", "dhl", "false").code == 0
    assert project.stored("store.Carrier.dhl") == {"price": -7, "active": False}
    assert project("set", "store.Carrier", "ups", "--create").code == 0
    assert project.stored("store.Carrier.ups") == {}
    assert project.json("get", "store.Carrier", "dhl")["object"] == "dhl"
    assert project("get", "store.Carrier", "none").code == 3


def test_unset_gives_the_default_back_also_where_nothing_could_be_read(project: Project):
    project.bucket.put("store.ShopConfig", {"size": "?", "banner": "Sale", "$version": 2})
    shown = project("get", "store.ShopConfig.size")
    assert shown.out == "1\n"
    assert shown.error == "Of store.ShopConfig cannot be read: size. See natskv_config check."
    assert project("unset", "store.ShopConfig.size").code == 0
    assert project.stored("store.ShopConfig") == {"banner": "Sale", "$version": 2}
    assert project("unset", "store.ShopConfig.banner").code == 0
    assert project.stored("store.ShopConfig") == {"$version": 2}


def test_unset_of_an_object_asks_and_deletes_it(project: Project, made: Manage):
    project("set", "store.Carrier", "dhl", "--create")
    done = project("unset", "store.Carrier", "dhl")
    assert (done.code, "--no-input" in done.error) == (1, True)
    kept = made.on_terminal("natskv_config", "unset", "store.Carrier", "dhl", answer="n\n")
    assert f"Delete all that is stored of store.Carrier dhl? {PROMPT}" in kept.screen
    assert (kept.code, project.stored("store.Carrier.dhl")) == (1, {})
    gone = made.on_terminal("natskv_config", "unset", "store.Carrier", "dhl", answer="y\n")
    assert (gone.code, project.stored("store.Carrier.dhl")) == (0, None)
    assert project("unset", "store.Carrier", "dhl", "--no-input").code == 3
    assert project.json("unset", "store.ShopConfig", "--no-input")["deleted"] is False


def test_a_guard_holds_every_change(project: Project):
    first = int(project("set", "store.ShopConfig.banner", "a", "--if-revision", "0").out)
    assert project("set", "store.ShopConfig.banner", "b", "--if-revision", "0").code == 1
    second = int(project("set", "store.ShopConfig.banner", "b", "--if-revision", str(first)).out)
    for verb, after in (("set", ("size=2",)), ("unset", ("--no-input",)), ("rollback", (str(first),))):
        done = project(verb, "store.ShopConfig", *after, "--if-revision", str(first))
        assert (done.code, done.out) == (1, "")
        assert f"store.ShopConfig is at revision {second}, not at revision {first}. Nothing was written." in done.error
    assert project.stored("store.ShopConfig")["banner"] == "b"


def test_a_document_that_cannot_be_read_is_not_written_over(project: Project):
    project.bucket.put("store.ShopConfig", "no object")
    for verb, *rest in (("set", "store.ShopConfig.size", "2"), ("unset", "store.ShopConfig.size")):
        done = project(verb, *rest)
        assert (done.code, "a save would overwrite it" in done.error) == (1, True)
    assert project("export").code == 1
    assert project("unset", "store.ShopConfig", "--no-input").code == 0
    assert project.stored("store.ShopConfig") is None


def _once(sender: Any, meanwhile: Any) -> None:
    """Have ``meanwhile`` done between the first reading of an object of ``sender`` and its write."""

    def receiver(**_: Any) -> None:
        signals.pre_save.disconnect(receiver, sender=sender)
        meanwhile()

    signals.pre_save.connect(receiver, sender=sender, weak=False)


def test_a_change_of_a_field_is_made_again_where_somebody_is_faster_unless_it_is_guarded(project: Project):
    first = int(project("set", "store.ShopConfig.banner", "a").out)
    _once(config_classes.ShopConfig, lambda: project.bucket.put("store.ShopConfig", {"size": 2, "$version": 2}))
    done = project("set", "store.ShopConfig.banner", "b")
    assert (done.code, int(done.out)) == (0, first + 2)
    assert project.stored("store.ShopConfig") == {"size": 2, "banner": "b", "$version": 2}
    _once(config_classes.ShopConfig, lambda: project.bucket.put("store.ShopConfig", {"size": 1}))
    done = project("set", "store.ShopConfig.banner", "c", "--if-revision", str(first + 2))
    assert (done.code, done.out) == (1, "")
    assert "store.ShopConfig was changed by somebody else meanwhile. Nothing was written" in done.error
    assert project.stored("store.ShopConfig") == {"size": 1}


def test_going_back_to_what_is_not_valid_any_more_is_refused(project: Project):
    bad = project.bucket.put("store.ShopConfig", {"size": 3})
    project("set", "store.ShopConfig", "size=2", "banner=x", "closed=on")
    for arguments in (("rollback", "store.ShopConfig", str(bad)), ("unset", "store.ShopConfig.banner")):
        done = project(*arguments)
        assert (done.code, done.out) == (1, "")
        assert "store.ShopConfig would not be valid: " in done.error
    assert project.stored("store.ShopConfig")["size"] == 2


def test_whoever_has_no_name_gives_one(project: Project, monkeypatch: pytest.MonkeyPatch):
    def nobody() -> str:
        raise OSError

    monkeypatch.setattr(getpass, "getuser", nobody)
    done = project("set", "store.ShopConfig.banner", "a")
    assert (done.code, "say --actor NAME" in done.error) == (2, True)
    assert project("set", "store.ShopConfig.banner", "a", "--actor", "ann").code == 0


# ---------------------------------------------------------------- list, history, diff, rollback


def test_list_tells_of_classes_and_of_objects(project: Project):
    project("set", "store.Carrier", "dhl", "price=3", "--create")
    project("set", "store.Carrier", "ups", "--create")
    listed = project.json("list", "--using", "default")
    assert [(row["class"], row["kind"], row["stored"]) for row in listed] == [
        ("store.Carrier", "model", 2),
        ("store.ShopConfig", "config", 0),
    ]
    assert listed[0]["description"] == "a carrier"
    objects = project.json("list", "store.Carrier")
    assert [(row["object"], row["values"]) for row in objects] == [("dhl", {"price": 3}), ("ups", {})]
    assert project("history", "store.ShopConfig").error == "No change of store.ShopConfig is kept."
    assert "Not as by default" in project("list", "store.Carrier").out
    assert project("list", "store.ShopConfig").error == "Nothing is stored of store.ShopConfig."
    project("set", "store.ShopConfig.banner", "a")
    assert project("list", "store.ShopConfig").out.splitlines()[1].split()[:2] == ["store.ShopConfig", "3"]
    down = project("list")
    assert (down.code, down.out) == (1, "")
    assert 'Check SERVERS of NATSKV["down"]' in down.error


def test_history_diff_and_rollback(project: Project):
    first = int(project("set", "store.ShopConfig.banner", "a", "--actor", "ann", "--comment", "promo").out)
    second = int(project("set", "store.ShopConfig", "banner=b", "size=2", "--actor", "eve").out)
    rows = project.json("history", "store.ShopConfig")
    assert [(row["revision"], row["actor"], row["comment"], row["changes"]) for row in rows] == [
        (first, "ann", "promo", {"banner": ["", "a"]}),
        (second, "eve", "", {"banner": ["a", "b"], "size": [1, 2]}),
    ]
    assert [row["revision"] for row in project.json("history", "store.ShopConfig.size")] == [second]
    assert 'ann  promo    banner: "" -> "a"' in project("history", "store.ShopConfig").out
    changed = [("banner", "a", "b"), ("size", 1, 2)]
    for revisions in ((first,), (first, second)):
        rows = project.json("diff", "store.ShopConfig", *map(str, revisions))
        assert [(row["field"], row["old"], row["new"]) for row in rows] == changed
    assert project("diff", "store.ShopConfig", str(first), "--check").code == 1
    assert project("diff", "store.ShopConfig", str(second), "--check").error == "There is no difference."
    done = project("rollback", "store.ShopConfig", str(first))
    assert (done.code, int(done.out)) == (0, second + 1)
    assert project.stored("store.ShopConfig")["banner"] == "a"
    assert project.json("history", "store.ShopConfig")[-1]["comment"] == f"Back to revision {first}"
    for verb in ("rollback", "diff"):
        done = project(verb, "store.ShopConfig", "999")
        assert (done.code, "has no revision 999" in done.error) == (3, True)


def test_a_deleted_object_comes_back(project: Project):
    first = int(project("set", "store.Carrier", "dhl", "price=3", "--create").out)
    project("unset", "store.Carrier", "dhl", "--no-input")
    assert [row["operation"] for row in project.json("history", "store.Carrier", "dhl")] == ["put", "delete"]
    assert project("diff", "store.Carrier", "dhl", str(first)).code == 3
    assert project("rollback", "store.Carrier", "dhl", str(first), "--if-revision", "0").code == 0
    assert project.stored("store.Carrier.dhl") == {"price": 3}
    assert project("history", "store.Carrier", "never").code == 3


# ---------------------------------------------------------------- export, import


def _exported(project: Project, *arguments: str) -> Path:
    done = project("export", "--using", "default", "--file", "config.json", *arguments)
    assert done.code == 0, done.err
    return project.directory / "config.json"


def test_an_import_makes_what_the_export_says(project: Project):
    project("set", "store.ShopConfig.banner", "a")
    project("set", "store.Carrier", "dhl", "price=3", "--create")
    file = _exported(project)
    assert json.loads(project("export", "--using", "default").out)["classes"] == json.loads(file.read_text())["classes"]
    assert project("diff", "--against", "config.json", "--check").code == 0
    project("set", "store.ShopConfig.banner", "b")
    project("set", "store.Carrier", "ups", "--create")
    project("unset", "store.Carrier", "dhl", "--no-input")
    rows = project.json("diff", "--against", "config.json")
    assert [(row["class"], row["object"], row["change"], row["old"], row["new"]) for row in rows] == [
        ("store.Carrier", "dhl", "removed", {"active": True, "price": 3}, None),
        ("store.Carrier", "ups", "added", None, {"active": True, "price": None}),
        ("store.ShopConfig", None, "changed", "a", "b"),
    ]
    planned = project.json("import", "config.json", "--dry-run")
    assert [(row["object"], row["action"]) for row in planned] == [("dhl", "create"), (None, "change")]
    assert project.stored("store.ShopConfig")["banner"] == "b"
    done = project("import", "config.json", "--comment", "back")
    assert (done.code, done.error) == (0, "Wrote 2 objects; 0 were as in the export already.")
    assert project.stored("store.ShopConfig")["banner"] == "a"
    assert project.stored("store.Carrier.dhl") == {"price": 3}
    assert project.stored("store.Carrier.ups") == {}  # it stays
    assert project.json("history", "store.ShopConfig")[-1]["comment"] == "back"
    assert project("import", "config.json").error == "Wrote 0 objects; 2 were as in the export already."


def test_one_of_a_thing_is_told_in_the_singular(project: Project):
    project("set", "store.ShopConfig.banner", "a")
    done = project("export", "store.ShopConfig", "--file", "one.json")
    assert done.error == "Wrote 1 object of 1 class to one.json."
    assert project("import", "one.json").error == "Wrote 0 objects; 1 was as in the export already."
    assert project("check", "store.ShopConfig").error == "1 document, and nothing is wrong."
    project.bucket.put("store.ShopConfig", {"banner": "b", "old": 1, "$version": 2})
    assert project("check", "store.ShopConfig").error == "CommandError: 1 problem in 1 document."
    assert project("diff", "--against", "one.json", "--check").error == "CommandError: 1 difference."


def test_an_export_that_fails_names_the_connection_of_the_class(project: Project):
    done = project("export")
    assert (done.code, done.out) == (1, "")
    assert 'Check SERVERS of NATSKV["down"] in the settings.' in done.error


def test_an_export_to_a_file_tells_tools_where_it_is(project: Project):
    project("set", "store.ShopConfig.banner", "a")
    told = project.json("export", "store.ShopConfig", "store.Carrier", "--file", "shop.json")
    assert told == {"file": "shop.json", "classes": 2, "objects": 1}
    assert json.loads((project.directory / "shop.json").read_text())["format"] == "natskv-config"
    assert project("export", "store.ShopConfig", "--file", "shop.json").out == ""


def test_nothing_of_an_import_is_written_unless_all_of_it_is_valid(project: Project):
    project("set", "store.Carrier", "dhl", "--create")
    file = _exported(project)
    good = file.read_text()
    content = json.loads(good)
    content["classes"]["store.Carrier"]["dhl"]["values"] = {"price": 9}
    for values, said in (({"size": 3}, "size:"), ({"size": "?"}, "size:"), ({"closed": True}, "banner:")):
        content["classes"]["store.ShopConfig"][""]["values"] = values
        file.write_text(json.dumps(content))
        done = project("import", "config.json")
        assert (done.code, done.out) == (1, "")
        assert f"store.ShopConfig: {said}" in done.error
        assert project.stored("store.Carrier.dhl") == {}
    for value in (float("nan"), "\ud800"):
        content["classes"]["store.ShopConfig"][""]["values"] = {"tags": value}
        file.write_text(json.dumps(content))
        assert "config.json is no export of natskv_config: it is not JSON" in project("import", "config.json").error
    for text in (
        "",
        "[]",
        '{"format": "natskv-config"}',
        '{"format": "natskv-config", "version": 1, "classes": [1]}',
    ):
        file.write_text(text)
        done = project("import", "config.json")
        assert (done.code, "config.json is no export of natskv_config: " in done.error) == (1, True)
    file.write_text(good.replace("store.Carrier", "store.Gone"))
    assert project("import", "config.json").code == 2
    assert project("import", "config.json", "store.ShopConfig").code == 0
    assert "The export has nothing of store.Carrier." in project("import", "config.json", "store.Carrier").error


def test_what_no_export_and_no_import_takes(project: Project):
    raw = project.connection.kv()
    project.bucket.put("notes", 1)
    raw.open_bucket("config", codec="bytes").put("store.Carrier.dhl", b"\xff{")
    done = project("export", "store.Carrier")
    assert (done.code, done.out) == (1, "")
    assert "What is stored of store.Carrier dhl cannot be read." in done.error
    project.bucket.put("store.Carrier.dhl", {"price": 1})
    file = _exported(project)
    text = file.read_text()
    for old, new, said in (
        ('"dhl"', '""', "This cannot be the primary key of an entry: it is empty."),
        ('"price": 1', '"price": "?"', "store.Carrier dhl: price:"),
    ):
        file.write_text(text.replace(old, new))
        done = project("import", "config.json", "store.Carrier")
        assert (done.code, said in done.error) == (1, True), done
    file.write_text(text.replace('"dhl"', '""'))
    done = project("diff", "--against", "config.json")
    assert (done.code, "in the export: code: This cannot be the primary key" in done.error) == (1, True), done
    content = json.loads(text)
    content["classes"]["store.ShopConfig"]["dhl"] = {"revision": 1, "values": {}}
    file.write_text(json.dumps(content))
    for verb in (("import",), ("diff", "--against")):
        done = project(*verb, "config.json")
        assert (done.code, "store.ShopConfig in the export: 'dhl' is no scope" in done.error) == (1, True), done
    file.write_text("[" * 100_000)
    done = project("import", "config.json")
    assert (done.code, "it is not JSON" in done.error) == (1, True), done
    file.write_text(text)
    file.write_text(file.read_text().replace('"price": 1', '"price": "?"'))
    done = project("diff", "--against", "config.json", "store.Carrier")
    assert (done.code, "store.Carrier dhl in the export: price " in done.error) == (1, True)
    file.write_text(file.read_text().replace("store.Carrier", "store.Other"))
    done = project("diff", "--against", "config.json", "store.Carrier")
    assert (done.code, "The export has nothing of store.Carrier." in done.error) == (1, True)


def test_a_guarded_import_writes_nothing_over_what_has_moved_on(project: Project):
    project("set", "store.ShopConfig.banner", "a")
    project("set", "store.Carrier", "dhl", "--create")
    file = _exported(project)
    file.write_text(file.read_text().replace('"a"', '"c"').replace('"values": {}', '"values": {"price": 2}'))
    project("set", "store.ShopConfig.banner", "b")
    done = project("import", "config.json", "--if-revision")
    assert (done.code, "store.ShopConfig is at revision 3, and was at 1 in the export." in done.error) == (1, True)
    assert project.stored("store.Carrier.dhl") == {}
    assert project("import", "config.json", "store.Carrier", "--if-revision").code == 0
    assert project.stored("store.Carrier.dhl") == {"price": 2}


def test_an_import_looks_at_all_objects_at_once(project: Project, server: NatsServer):
    many = 100
    project.bucket.write_many([kv.Change.put(f"store.Carrier.c{number}", {"price": 1}) for number in range(many)])
    _exported(project)
    before = server.ask("varz")["in_msgs"]
    done = project("import", "config.json")
    assert done.error == f"Wrote 0 objects; {many + 1} were as in the export already."
    assert server.ask("varz")["in_msgs"] - before < many / 2


def test_an_import_that_loses_a_race_says_what_was_written_and_is_finished_by_itself(project: Project):
    project("set", "store.Carrier", "dhl", "price=1", "--create")
    project("set", "store.ShopConfig.banner", "a")
    _exported(project)
    project("set", "store.Carrier.price", "dhl", "2")
    project("set", "store.ShopConfig.banner", "b")
    _once(config_classes.ShopConfig, lambda: project.bucket.put("store.ShopConfig", {"banner": "c"}))
    done = project("import", "config.json", "--format", "json")
    assert done.code == 1
    assert "store.ShopConfig was changed by somebody else meanwhile. 1 object was written, 1 was not" in done.error
    assert [(row["object"], row["action"]) for row in json.loads(done.out)] == [("dhl", "change"), (None, "left")]
    assert project.stored("store.ShopConfig") == {"banner": "c"}
    assert project("import", "config.json").error == "Wrote 1 object; 1 was as in the export already."
    assert project.stored("store.ShopConfig")["banner"] == "a"


# ---------------------------------------------------------------- check, prune


def _litter(project: Project) -> None:
    bucket = project.bucket
    bucket.put("store.ShopConfig", {"size": 3, "old": 1, "$version": 2})
    bucket.put("store.Carrier.dhl", {"price": "?", "weight": 2})
    bucket.put("store.Gone", {"a": 1})
    bucket.put("notes", "of another program")
    bucket.put("store.ShopConfig.below", {"whose": "not known"})


def test_check_finds_what_does_not_fit(project: Project):
    assert project("check", "--using", "default").error == "0 documents, and nothing is wrong."
    project.bucket.put("store.ShopConfig", {"title": "Sale"})  # of version 1: upgraded, and no unknown field
    assert project("check", "store.ShopConfig").code == 0
    _litter(project)
    done = project("check", "--using", "default", "--format", "json")
    assert done.code == 1
    assert done.error == "CommandError: 5 problems in 3 documents."
    assert [(row["problem"], row["key"], row["field"]) for row in json.loads(done.out)] == [
        ("undecodable", "store.Carrier.dhl", "price"),
        ("unknown", "store.Carrier.dhl", "weight"),
        ("unknown", "store.ShopConfig", "old"),
        ("invalid", "store.ShopConfig", "size"),
        ("orphan", "store.Gone", ""),
    ]


def test_check_looks_at_what_cannot_be_read_at_all(project: Project):
    project.bucket.put("store.Carrier.=FF", {})
    raw = project.connection.kv().open_bucket("config", codec="bytes")
    raw.put("store.ShopConfig", b"{")
    raw.put("notes", b"\xff")
    done = project("check", "--using", "default", "--format", "json")
    assert [(row["problem"], row["key"], row["detail"][:20]) for row in json.loads(done.out)] == [
        ("undecodable", "store.Carrier.=FF", "its key holds no pri"),
        ("undecodable", "store.ShopConfig", "it is not JSON: Expe"),
    ]
    for key in ("store.ShopConfig", "notes"):
        raw.put(key, b"[" * 100_000)  # deeper than Python goes
    assert "it is not JSON: it has more than 100 lists" in project("check", "--using", "default").out
    assert project("get", "store.ShopConfig").code == 0
    done = project("export", "store.ShopConfig")
    assert (done.code, "cannot be read" in done.error) == (1, True)
    assert project.json("list", "store.Carrier") == []
    assert project("prune", "--using", "default", "--no-input").error == "There is nothing to remove."


def test_prune_removes_what_is_unknown_and_gone_and_nothing_else(project: Project, made: Manage):
    _litter(project)
    shown = project("prune", "--using", "default", "--dry-run")
    assert (shown.code, shown.err) == (0, "")
    assert [line.split()[1:] for line in shown.out.splitlines()[1:]] == [
        ["store.Carrier.dhl", "weight"],
        ["store.ShopConfig", "old"],
        ["store.Gone", "the", "document"],
    ]
    assert "--no-input" in project("prune", "--using", "default").error
    assert project.stored("store.Gone") == {"a": 1}
    arguments = ("natskv_config", "prune", "--using", "default")
    done = made.on_terminal(*arguments, answer="y\n", meanwhile=lambda: project.bucket.put("store.Gone", {"a": 2}))
    assert f"Remove weight of store.Carrier.dhl, old of store.ShopConfig, all of store.Gone? {PROMPT}" in done.screen
    assert (done.code, "Changed by somebody else meanwhile, and left: store.Gone." in done.screen) == (1, True)
    assert [line.split()[1:] for line in done.screen.splitlines() if line.startswith("config ")] == [
        ["store.Carrier.dhl", "weight"],
        ["store.ShopConfig", "old"],
    ]
    assert project.stored("store.Carrier.dhl") == {"price": "?"}
    assert project.stored("store.ShopConfig") == {"size": 3, "$version": 2}
    assert project.stored("store.Gone") == {"a": 2}
    assert project("prune", "--using", "default", "--no-input").code == 0
    assert project.stored("store.Gone") is None
    assert project.stored("notes") == "of another program"
    assert project.stored("store.ShopConfig.below") == {"whose": "not known"}


def test_a_question_about_many_documents_names_some_and_counts_the_rest(project: Project, made: Manage):
    for number in range(13):
        project.bucket.put(f"store.Gone.{number:02}", {"a": 1})
    done = made.on_terminal("natskv_config", "prune", "--using", "default", answer="n\n", columns=200)
    last = f"all of store.Gone.09 and 3 more? {PROMPT}"
    assert (done.code, last in done.screen, "store.Gone.10" in done.screen) == (1, True, False)


def test_fields_of_a_later_version_and_of_an_earlier_one_are_not_pruned(project: Project):
    project.bucket.put("store.ShopConfig", {"banner": "a", "new": 1, "$version": 3})
    done = project("prune", "store.ShopConfig", "--no-input")
    assert (done.code, done.error) == (0, "There is nothing to remove.")
    project.bucket.put("store.ShopConfig", {"title": "a", "old": 1})
    assert project("prune", "store.ShopConfig", "--no-input").code == 0
    assert project.stored("store.ShopConfig") == {"banner": "a", "$version": 2}


def test_buckets_that_no_class_is_kept_in_any_more_are_named(project: Project):
    context = project.connection.kv()
    context.create_bucket({"bucket": "old"}).put("store.Gone", {})
    assert project("check", "--using", "default").code == 0
    assert project("check", "--using", "default", "--bucket", "old").code == 1
    assert project("prune", "--using", "default", "--bucket", "old", "--no-input").code == 0
    assert context.open_bucket("old").keys() == []


def test_in_a_pipe_results_and_talk_are_apart(made: Manage):
    done = made("natskv_config", "set", "store.ShopConfig", "banner=Größe", "--format", "json")
    assert (done.code, done.error) == (0, f"Saved store.ShopConfig, revision {json.loads(done.out)['revision']}.")
    assert made("natskv_config", "get", "store.ShopConfig.banner").out == "Größe\n"
    failed = made("natskv_config", "get", "store.Far")
    assert (failed.code, failed.out) == (1, "")
    assert 'Check SERVERS of NATSKV["down"]' in failed.error


# ---------------------------------------------------------------- mistakes


def test_a_mistake_is_one_line_and_exit_status_2(project: Project):
    for arguments, said in (
        (("get",), "the following arguments are required: CLASS[.FIELD]; see"),
        (("import",), "the following arguments are required: FILE; see"),
        (
            ("get", "store.Gone"),
            "No class 'store.Gone' is declared. Declared are: store.Carrier, store.Far, store.ShopConfig.",
        ),
        (("get", "store.ShopConfig.nope"), "store.ShopConfig has no field 'nope'. It has: free_shipping_from, banner,"),
        (("get", "store.Carrier"), "PK is missing"),
        (("get", "store.Carrier", ""), "cannot be a primary key of store.Carrier"),
        (("get", "store.ShopConfig", "x"), "There are too many arguments: x."),
        (("get", "store.Far", "--using", "default"), "store.Far is kept on the connection 'down'."),
        (("list", "--using", "nowhere"), 'The connection "nowhere" doesn\'t exist'),
        (("set", "store.ShopConfig.banner"), "VALUE is missing"),
        (("set", "store.ShopConfig.banner", "a", "b"), "quote a VALUE that has spaces"),
        (("set", "store.ShopConfig.banner", "a", "--file", "x"), "--file stands in the place of VALUE"),
        (("set", "store.ShopConfig.banner", "--file", "x"), "--file: 'x' cannot be read: No such file"),
        (("set", "store.ShopConfig", "banner=a", "--file", "x"), "--file is for the value of one field"),
        (("set", "store.ShopConfig.banner", "\udcff"), "'\\udcff' is not UTF-8."),
        (("set", "store.ShopConfig", "banner=\udcff"), "is not UTF-8."),
        (("set", "store.ShopConfig.banner", "a", "--comment", "\udcff"), "'\\udcff' is not UTF-8."),
        (("set", "store.ShopConfig.tags", "NaN"), "tags: This cannot be stored: Out of range float values"),
        (("set", "store.ShopConfig.tags", '"\\ud800"'), "tags: This cannot be stored: half of a character"),
        (("set", "store.ShopConfig"), "FIELD=VALUE is missing"),
        (("set", "store.ShopConfig", "banner"), "'banner' is not FIELD=VALUE."),
        (("set", "store.ShopConfig", "banner=a", "banner=b"), "banner is given twice."),
        (("set", "store.ShopConfig", "--create"), "--create is for objects of a Model"),
        (("set", "store.ShopConfig.closed", "maybe"), "closed: 'maybe' is neither true nor false."),
        (("set", "store.ShopConfig.closed", ""), "closed: '' is neither true nor false."),
        (("set", "store.ShopConfig.size", "3"), "size: Select a valid choice."),
        (("set", "store.ShopConfig.tags", "{"), "tags: Enter a valid JSON."),
        (("set", "store.ShopConfig.banner", "eleven chars"), "banner: Ensure this value has at most 10 characters"),
        (("set", "store.ShopConfig.banner", "a", "--if-revision", "-1"), "--if-revision: a revision is at least 0"),
        (("rollback", "store.ShopConfig"), "REVISION is missing"),
        (("rollback", "store.ShopConfig", "first"), "REVISION: 'first' is not a whole number."),
        (("rollback", "store.ShopConfig.banner", "1"), "rollback is for whole objects: leave out the field 'banner'."),
        (("diff",), "CLASS is missing, or --against FILE."),
        (("diff", "store.ShopConfig"), "REVISION is missing"),
        (("check", "store.ShopConfig", "--bucket", "x"), "--bucket contradicts CLASS"),
        (("prune", "--bucket", "x y", "--no-input"), "cannot be a bucket's name"),
    ):
        done = project(*arguments)
        assert (done.code, done.out) == (2, ""), (arguments, done)
        assert said in done.error
