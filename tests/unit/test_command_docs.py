"""The reference of the commands names every option that there is, and none that there is not."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from django.core.management import load_command_class

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"
# Django's own, which its documentation tells of.
OTHERS = {
    "--help",
    "--version",
    "--verbosity",
    "--settings",
    "--pythonpath",
    "--traceback",
    "--no-color",
    "--force-color",
}
SPELLINGS = {"--noinput"}  # as Django's own commands have it beside --no-input


def _options(parser: argparse.ArgumentParser) -> set[str]:
    found = set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                found |= _options(verb)
        elif action.help != argparse.SUPPRESS:
            found |= {option for option in action.option_strings if option.startswith("--")}
    return found


@pytest.mark.parametrize("command", ["natskv_bucket", "natskv_config", "natskv_flag", "natskv_key", "natskv_server"])
def test_every_option_is_documented_and_none_is_made_up(command: str):
    section = DOCUMENT.read_text().partition(f"\n## `{command}`\n")[2].split("\n## ")[0]
    parser = load_command_class("django_natskv", command).create_parser("manage.py", command)
    assert set(re.findall(r"--[a-z][a-z-]+", section)) == _options(parser) - OTHERS - SPELLINGS
