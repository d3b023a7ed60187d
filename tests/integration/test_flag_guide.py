"""The how-to on flags, done as a reader would: its file is written, its lines are run, its commands are called."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from django_natskv import registry
from django_natskv.registry import rules

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "how-to" / "flags.md"
REFERENCE = ROOT / "docs" / "reference" / "flags.md"

SETUP = """
import asyncio, json, os, sys
import django
from django.conf import settings
settings.configure(
    NATSKV=json.loads(os.environ["TEST_NATSKV"]),
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_natskv", "shop"],
    USE_TZ=True,
    DEBUG=True,
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
)
django.setup()
from django.core.checks import run_checks
assert run_checks() == [], run_checks()
assert "shop.config" in sys.modules  # found by itself
"""
END = """
from types import SimpleNamespace
from django.core.management import call_command
from django.http import HttpRequest
from django.template import Context, Template
from django_natskv import connections
assert (invoice(SimpleNamespace(pk=7, plan="pro")), asyncio.run(basket(HttpRequest()))) == (
    Features.new_checkout.on(key="account-7"), "old"
)
assert Features.page_size.value() == 20
[one] = Features.new_checkout.history()
assert (one.actor, one.comment) == ("ann", "beta")
test_the_checkout()
for command in json.loads(os.environ["TEST_COMMANDS"]):
    call_command(*command)
assert beta(HttpRequest()) == "new"
shown = Template(json.loads(os.environ["TEST_TEMPLATE"])).render(Context({"request": HttpRequest()}))
assert "Try it!" in shown and '<body class="old">' in shown and '{"new_checkout": true}' in shown, shown
connections.close_all()
"""


def test_the_lines_of_the_guide_do_what_it_says(make_server, tmp_path):
    text = GUIDE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    declared, settings, *lines = blocks
    assert declared.startswith("# shop/config.py")
    assert settings.startswith("# settings.py")
    assert len(lines) == 5
    [template] = re.findall(r"^```html\+django\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line)[3:] for line in text.splitlines() if line.startswith("$ python manage.py")]
    assert len(commands) == 6
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "config.py").write_text(declared)
    (tmp_path / "guide.py").write_text(SETUP + "\n".join(lines) + END)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "guide.py")],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TEST_NATSKV": json.dumps({"default": {"SERVERS": [make_server().url], "LOCAL_CACHE": {"WAIT": 30}}}),
            "TEST_COMMANDS": json.dumps(commands),
            "TEST_TEMPLATE": json.dumps(template),
        },
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "new_checkout: on for everyone" in done.stderr
    assert "theme" in done.stdout


def test_the_reference_names_what_there_is():
    text = REFERENCE.read_text(encoding="utf-8")
    for name in re.findall(r"\br\.(\w+)", text):
        assert hasattr(rules, name), name
    for name in re.findall(r"\bregistry\.(\w+)", text):
        assert hasattr(registry, name), name
    for name in re.findall(r"`flag\.(\w+)", text):
        assert hasattr(registry.Flag, name), name
    for name in re.findall(r"`, `(a\w+)` \|", text):
        assert hasattr(registry.Flag, name) or hasattr(registry.FlagSet, name), name
