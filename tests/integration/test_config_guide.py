"""The how-to on config, done as a reader would: its files are written, its lines are run, in one process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.fix_servers import PATIENT, SERVER_VERSIONS, takes_several_as_one

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "how-to" / "config.md"

SETUP = """
import json, os, sys
import django
from django.conf import settings
settings.configure(NATSKV=json.loads(os.environ["TEST_NATSKV"]), INSTALLED_APPS=["django_natskv", "shop"], USE_TZ=True)
django.setup()
from django.core.checks import run_checks
assert run_checks() == [], run_checks()
assert "shop.config" in sys.modules  # found by itself
"""
END = """
assert (basket(49), basket(50)) == (5, 0)
assert carriers() == []
assert [one.code for one in Carrier.objects.all()] == ["dhl"]
cfg = ShopConfig.objects.strong().get()
assert (cfg.banner, cfg.closed) == ("Sale", False), cfg.__dict__
assert [one.actor for one in ShopConfig.history()] == ["ann", "ann", "", "ann", "ann"]
test_the_banner()
import asyncio
asyncio.run(startup())
from tests.fix_waiting import eventually
assert registry.wait_ready(30)  # what the first replay brings is no change
told = []
config_changed.connect(lambda **arguments: told.append(arguments), weak=False)  # after the guide's own receiver
ShopConfig.objects.update(lambda cfg: setattr(cfg, "banner", "Over"), actor="eve")
from django_natskv import connections
eventually(lambda: told)
connections.close_all()
"""


def test_the_lines_of_the_guide_do_what_it_says(make_server, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    declared = [block for block in blocks if block.startswith("# shop/config.py")]
    upgraded = [block for block in blocks if "def upgrade" in block]
    lines = [block for block in blocks if block not in declared + upgraded]
    assert (len(declared), len(upgraded), len(lines)) == (2, 1, 9)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "config.py").write_text("\n".join(declared))
    (tmp_path / "guide.py").write_text(SETUP + "\n".join(lines) + END)
    server = make_server() if takes_several_as_one() else make_server(version=SERVER_VERSIONS[-1])
    natskv = {"default": {**PATIENT, "SERVERS": [server.url]}}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "guide.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TEST_NATSKV": json.dumps(natskv)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "eve: 'Sale' is 'Over' now" in done.stdout
