"""Mistakes in the call of ``manage.py natskv_bucket``: one line, exit status 2, and nothing is sent.

No server runs here: whatever connected would fail with another exit status.
"""

from __future__ import annotations

import pytest
from django.core.management import execute_from_command_line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the following arguments are required: VERB"),
        (("drop",), "invalid choice: 'drop'"),
        (("status",), "the following arguments are required: NAME"),
        (("status", "a", "b"), "unrecognized arguments: b"),
        (("list", "--format", "yaml"), "invalid choice: 'yaml'"),
        (("list", "--using", "nowhere"), 'The connection "nowhere" doesn\'t exist'),
        (("status", "a.b"), "'a.b' cannot be a bucket's name"),
        (("create", "a\nb"), "cannot be a bucket's name"),
        (("create", "x", "--ttl", "90"), "--ttl: '90' is not a duration"),
        (("create", "x", "--limit-marker-ttl", "1 hour"), "--limit-marker-ttl: '1 hour' is not a duration"),
        (("create", "x", "--max-value-size", "64K"), "--max-value-size: '64K' is not a size"),
        (("create", "x", "--max-bucket-size", "0"), "max_bucket_size"),
        (("create", "x", "--history", "many"), "--history: 'many' is not a whole number"),
        (("create", "x", "--history", "65"), "from 1 to 64"),
        (("create", "x", "--replicas", "6"), "from 1 to 5"),
        (("create", "x", "--storage", "tape"), "invalid choice: 'tape'"),
        (("create", "x", "--metadata", "team"), "--metadata: 'team' is not KEY=VALUE"),
        (("create", "x", "--metadata", "=shop"), "--metadata: '=shop' is not KEY=VALUE"),
        (("create", "x", "--republish", "copies"), "--republish: 'copies' is not SOURCE:DESTINATION"),
        (("create", "x", "--republish-headers-only"), "--republish-headers-only needs --republish"),
        (("create", "x", "--mirror", "a b"), "'a b' cannot be a bucket's name"),
        (("create", "x", "--source", "a@"), "--source: 'a@' has no domain"),
        (("create", "x", "--description", "\udcff"), "'\\udcff' is not UTF-8."),
        (("create", "x", "--metadata", "a=b", "--metadata", "c=\udcff"), "'c=\\udcff' is not UTF-8."),
        (("update", "x"), "There is nothing to change"),
        (("update", "x", "--no-republish", "--republish", ">:copies.>"), "--no-republish contradicts --republish"),
        (("update", "x", "--metadata", "a=b", "--no-metadata"), "--no-metadata contradicts --metadata"),
        (("delete", "x y", "--no-input"), "'x y' cannot be a bucket's name"),
        (("purge-deletes", ""), "cannot be a bucket's name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_line_and_exit_status_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
):
    with pytest.raises(SystemExit) as ended:
        execute_from_command_line(["manage.py", "natskv_bucket", *arguments])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err


def test_without_a_mistake_the_call_would_have_connected(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        execute_from_command_line(["manage.py", "natskv_bucket", "create", "x"])
    assert ended.value.code == 1
    assert "Nothing answers" in capsys.readouterr().err
