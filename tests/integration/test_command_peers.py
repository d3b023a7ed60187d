"""What other clients write is read by the commands, and the other way round.

The peers: the key-value of nats-py itself, the npm package @nats-io/kv, run by node, and the client for Go, where a
compiler for it is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from django_natskv.kv import Bucket, KVContext
from tests.fix_commands import ROOT, Manage
from tests.fix_servers import NatsServer

PACKAGES = ("@nats-io/kv@3.4.0", "@nats-io/transport-node@3.4.0")
pytestmark = pytest.mark.timeout(180)  # dozens of commands, each a process of its own
VALUES: tuple[bytes, ...] = (b'{"a": "\xc3\xa9"}', b"plain", b"", b"\xff\x00\x01", b"x" * 500_000)


@pytest.fixture
def bucket(kv: KVContext, bucket_name: str) -> Iterator[Bucket]:
    """A bucket that the package made."""
    yield kv.create_bucket({"bucket": bucket_name, "history": 8})
    kv.delete_bucket(bucket_name)


def _json(manage: Manage, *arguments: str) -> Any:
    done = manage("natskv_key", *arguments, "--format", "json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def _raw(manage: Manage, bucket: str, key: str) -> bytes:
    path = manage.directory / "value"
    with path.open("wb") as stdout:
        process = manage.start("natskv_key", "get", bucket, key, "--raw", stdout=stdout)
        _, err = process.communicate(timeout=50)
    assert (process.returncode, err) == (0, "")
    return path.read_bytes()


# ---------------------------------------------------------------- nats-py


@pytest.fixture
async def peer(nats_server: NatsServer, bucket: Bucket) -> AsyncIterator[KeyValue]:
    """The same bucket, through nats-py."""
    client = await nats.connect(nats_server.url)
    yield await client.jetstream().key_value(bucket.name)
    await client.close()


async def test_what_nats_py_writes_is_read(manage: Manage, bucket: Bucket, peer: KeyValue):
    for value in VALUES:
        await peer.put("k", value)
        assert _raw(manage, bucket.name, "k") == value
    first = await peer.create("other", b"[1]")
    await peer.update("other", b"[2]", last=first)
    await peer.delete("other")
    entries = _json(manage, "history", bucket.name, "other")
    assert [(entry["operation"], entry["value"]) for entry in entries] == [("put", [1]), ("put", [2]), ("delete", None)]
    assert _json(manage, "keys", bucket.name) == ["k"]
    assert manage("natskv_key", "get", bucket.name, "other").code == 3
    _json(manage, "create", bucket.name, "other", "3")
    await peer.purge("other")
    assert [entry["operation"] for entry in _json(manage, "history", bucket.name, "other")] == ["purge"]


async def test_what_is_written_here_nats_py_reads(manage: Manage, bucket: Bucket, peer: KeyValue):
    for value in VALUES:
        (manage.directory / "value").write_bytes(value)
        revision = _json(manage, "put", bucket.name, "k", "--raw", "--file", "value")["revision"]
        read = await peer.get("k")
        assert (read.value or b"", read.revision) == (value, revision)  # F3: it reads an empty value as None
    _json(manage, "put", bucket.name, "k", '{"on": true}')
    read = await peer.get("k")
    assert read.value == b'{"on":true}'
    assert read.revision is not None
    await peer.update("k", b"1", last=read.revision)
    late = manage("natskv_key", "update", bucket.name, "k", "2", str(read.revision))
    assert late.code == 1
    now = _json(manage, "update", bucket.name, "k", "2", str(read.revision + 1))["revision"]
    with pytest.raises(KeyWrongLastSequenceError):
        await peer.update("k", b"3", last=read.revision + 1)
    _json(manage, "delete", bucket.name, "k", "--revision", str(now))
    with pytest.raises(KeyNotFoundError):
        await peer.get("k")
    _json(manage, "revert", bucket.name, "k", str(now))
    assert (await peer.get("k")).value == b"2"


async def test_a_bucket_of_nats_py_is_a_bucket_here(manage: Manage, nats_server: NatsServer, bucket_name: str):
    client = await nats.connect(nats_server.url)
    try:
        peer = await client.jetstream().create_key_value(bucket=bucket_name, history=3)
        await peer.put("a.b", b"1")
        assert _json(manage, "get", bucket_name, "a.b")["value"] == 1
        assert [entry["revision"] for entry in _json(manage, "history", bucket_name, "a.b")] == [1]
        _json(manage, "put", bucket_name, "a.b", "2")
        assert (await peer.get("a.b")).value == b"2"
        assert manage("natskv_bucket", "delete", bucket_name, "--no-input").code == 0
    finally:
        await client.close()


# ---------------------------------------------------------------- node


SCRIPT = """
const { connect } = require("@nats-io/transport-node");
const { Kvm } = require("@nats-io/kv");
(async () => {
  const [url, name] = process.argv.slice(2);
  const nc = await connect({ servers: url });
  const kv = await new Kvm(nc).open(name);
  const said = { read: (await kv.get("ours")).json(), size: (await kv.get("binary")).value.length };
  said.put = await kv.put("theirs", JSON.stringify({ from: "node", é: [1] }));
  await kv.create("gone", "x");
  await kv.delete("gone");
  said.update = await kv.update("ours", JSON.stringify("from node"), (await kv.get("ours")).revision);
  said.history = [];
  for await (const e of await kv.history({ key: "ours" })) said.history.push([e.operation, e.revision]);
  said.keys = [];
  for await (const key of await kv.keys()) said.keys.push(key);
  console.log(JSON.stringify(said));
  await nc.close();
})();
"""


@pytest.fixture(scope="session")
def node() -> Path:
    """A directory in which node finds the packages, installed once."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    directory = ROOT / ".cache" / "node"
    directory.mkdir(parents=True, exist_ok=True)
    if not all((directory / "node_modules" / package.rpartition("@")[0]).is_dir() for package in PACKAGES):
        install = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(directory), *PACKAGES]
        try:
            done = subprocess.run(install, capture_output=True, text=True, timeout=40, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip("npm did not install @nats-io/kv in time")
        if done.returncode:
            pytest.skip(f"npm could not install @nats-io/kv: {done.stderr.strip().splitlines()[-1]}")
    return directory


def test_node_reads_what_is_written_here_and_the_other_way_round(
    manage: Manage, bucket: Bucket, nats_server: NatsServer, node: Path
):
    _json(manage, "put", bucket.name, "ours", '{"é": [1, null]}')
    _json(manage, "put", bucket.name, "binary", "--raw", "\udcff\udcfe")
    (node / "peer.cjs").write_text(SCRIPT)
    done = subprocess.run(
        ["node", "peer.cjs", nats_server.url, bucket.name],
        cwd=node,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said == {
        "read": {"é": [1, None]},
        "size": 2,
        "put": said["put"],
        "update": said["put"] + 3,
        "history": [["PUT", 1], ["PUT", said["update"]]],
        "keys": said["keys"],
    }
    assert sorted(said["keys"]) == ["binary", "ours", "theirs"]
    assert _json(manage, "get", bucket.name, "theirs")["value"] == {"from": "node", "é": [1]}
    shown = _json(manage, "get", bucket.name, "ours")
    assert (shown["value"], shown["revision"]) == ("from node", said["update"])
    assert [entry["operation"] for entry in _json(manage, "history", bucket.name, "gone")] == ["put", "delete"]
    assert _json(manage, "keys", bucket.name) == ["binary", "ours", "theirs"]


# ---------------------------------------------------------------- Go


GO_MOD = "module peer\n\ngo 1.19\n\nrequire github.com/nats-io/nats.go v1.22.1\n"
GO_SOURCE = """
package main

import (
	"encoding/json"
	"errors"
	"os"

	"github.com/nats-io/nats.go"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	url, name, other := os.Args[1], os.Args[2], os.Args[3]
	nc := must(nats.Connect(url))
	defer nc.Close()
	js := must(nc.JetStream())
	kv := must(js.KeyValue(name))
	said := map[string]any{}
	ours := must(kv.Get("ours"))
	said["read"], said["at"] = string(ours.Value()), ours.Revision()
	said["size"] = len(must(kv.Get("binary")).Value())
	_, err := kv.Get("deleted")
	said["deleted"] = errors.Is(err, nats.ErrKeyNotFound)
	said["theirs"] = must(kv.Put("theirs", []byte(`{"from": "Go", "é": [1]}`)))
	must(kv.Create("deleted", []byte("again")))
	must(kv.Create("gone", []byte("x")))
	if kv.Delete("gone") != nil || kv.Purge("purged") != nil {
		panic("neither deleted nor purged")
	}
	said["updated"] = must(kv.Update("ours", []byte(`"from Go"`), ours.Revision()))
	_, err = kv.Update("ours", []byte("late"), ours.Revision())
	said["late"] = err != nil
	history := [][]any{}
	for _, entry := range must(kv.History("ours")) {
		history = append(history, []any{entry.Operation().String(), entry.Revision()})
	}
	said["history"] = history
	said["keys"] = must(kv.Keys())
	watched := []string{}
	watch := must(kv.WatchAll(nats.IgnoreDeletes()))
	for entry := range watch.Updates() {
		if entry == nil {
			break
		}
		watched = append(watched, entry.Key())
	}
	said["watched"] = watched
	mine := must(js.CreateKeyValue(&nats.KeyValueConfig{Bucket: other, History: 3, Description: "of Go"}))
	must(mine.PutString("a.b", "1"))
	must(0, json.NewEncoder(os.Stdout).Encode(said))
}
"""


@pytest.fixture(scope="session")
def go_peer() -> Path:
    """The program above, compiled once: of the module that Debian packages or, elsewhere, that go fetches."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not installed")
    directory = ROOT / ".cache" / "go"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "go.mod").write_text(GO_MOD)
    (directory / "main.go").write_text(GO_SOURCE)
    debian = Path("/usr/share/gocode")
    packaged = (
        {"GO111MODULE": "off", "GOPATH": str(debian)} if (debian / "src/github.com/nats-io/nats.go").exists() else {}
    )
    environment = {**packaged, **os.environ, "GOFLAGS": "-mod=mod", "GOCACHE": str(directory / "cache")}
    try:
        done = subprocess.run(
            [go, "build", "-o", "peer", "main.go"],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("go did not fetch and compile the peer in time")
    if done.returncode and "# command-line-arguments" not in done.stderr:  # as the compiler begins
        pytest.skip(f"go could not fetch the client: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return directory / "peer"


def test_go_reads_what_is_written_here_and_the_other_way_round(
    manage: Manage, kv: KVContext, bucket: Bucket, nats_server: NatsServer, go_peer: Path
):
    written = _json(manage, "put", bucket.name, "ours", '{"é": [1, null]}')["revision"]
    _json(manage, "put", bucket.name, "binary", "--raw", "\udcff\udcfe")
    for key in ("deleted", "purged"):
        _json(manage, "put", bucket.name, key, "1")
    _json(manage, "delete", bucket.name, "deleted")
    other = f"{bucket.name}-go"
    done = subprocess.run(
        [str(go_peer), nats_server.url, bucket.name, other], capture_output=True, text=True, timeout=40, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    live = ["binary", "deleted", "ours", "theirs"]
    assert (sorted(said.pop("keys")), sorted(said.pop("watched"))) == (live, live)
    assert said == {
        "read": '{"é":[1,null]}',
        "at": written,
        "size": 2,
        "deleted": True,
        "late": True,
        "theirs": said["theirs"],
        "updated": said["updated"],
        "history": [["KeyValuePutOp", written], ["KeyValuePutOp", said["updated"]]],
    }
    assert _json(manage, "keys", bucket.name) == live
    assert _json(manage, "get", bucket.name, "theirs")["value"] == {"from": "Go", "é": [1]}
    shown = _json(manage, "get", bucket.name, "ours")
    assert (shown["value"], shown["revision"]) == ("from Go", said["updated"])
    operations = {
        key: [entry["operation"] for entry in _json(manage, "history", bucket.name, key)] for key in ("gone", "purged")
    }
    assert operations == {"gone": ["put", "delete"], "purged": ["purge"]}
    assert _json(manage, "get", other, "a.b")["value"] == 1
    assert kv.bucket_status(other).description == "of Go"
    assert manage("natskv_bucket", "delete", other, "--no-input").code == 0
