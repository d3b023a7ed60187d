"""The pages on the cache: their code runs, their settings pass the checks, and the reference leaves nothing out."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.test import override_settings

from django_natskv.cache import Lock, NatsKVCache, options
from django_natskv.connections import connections
from tests.integration.test_tutorial import blocks

DOCS = Path(__file__).parents[2] / "docs"
HOW_TO = ("cache", "from-redis")
REFERENCE = (DOCS / "reference" / "cache.md").read_text()


def code_of(page: str) -> list[str]:
    text = (DOCS / "how-to" / f"{page}.md").read_text()
    return [block.text for block in blocks(text) if block.language == "python"]


def settings_in(code: str) -> dict[str, Any]:
    """Return the settings that ``code`` gives; none where it does something else."""
    found: dict[str, Any] = {}
    if all(isinstance(each, ast.Assign) for each in ast.parse(code).body):
        exec(code, {}, found)
    return {name: value for name, value in found.items() if name.isupper()}


@pytest.mark.parametrize("page", HOW_TO)
def test_the_settings_on_the_pages_have_no_mistake_and_make_a_cache(page, settings, natskv):
    given = [found for found in map(settings_in, code_of(page)) if found]
    assert given
    for found in given:
        with override_settings(**{"NATSKV": {"default": dict(natskv)}, **found}):
            assert list(options.setting_problems()) == []
            for alias, params in found["CACHES"].items():
                if params["BACKEND"] == options.BACKEND:
                    made = caches[alias]
                    assert type(made) is NatsKVCache
                    assert made._place.options.bucket


def test_the_code_of_the_how_to_runs_from_top_to_bottom(natskv, settings, bucket_name):
    settings.CACHES = {
        "default": {"BACKEND": options.BACKEND, "LOCATION": bucket_name, "KEY_PREFIX": "shop", "TIMEOUT": 300}
    }
    page: dict[str, Any] = {}

    async def run() -> None:
        for code in code_of("cache"):
            if settings_in(code):
                continue
            compiled = compile(code, "cache.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(compiled, page)
            if inspect.isawaitable(result):
                await result

    asyncio.run(run())
    assert page["cache"].get("cart") == ["apple", "pear"]
    assert page["cache"].get("visits") is None  # cleared
    connections["default"].kv().delete_bucket(bucket_name)


def table(after: str) -> set[str]:
    """Return the names in the first column of the table under a heading."""
    section = REFERENCE.split(f"\n## {after}\n")[1].split("\n## ")[0]
    return {
        name for row in re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE) for name in re.findall(r"\w+", row)[:1]
    }


def test_the_reference_names_every_option_and_every_rule():
    assert table("Options") == set(options._RULES)
    raised = set(re.findall(r'"(E1\d\d)"', Path(inspect.getfile(options)).read_text()))
    assert table("Checks") == raised


def test_the_reference_names_every_operation_beyond_djangos():
    own = {name for name in vars(NatsKVCache) if not name.startswith("_")} - set(dir(BaseCache))
    assert table("Beyond Django") == {name for name in own if name[0] != "a" or name[1:] not in own}
    section = REFERENCE.split("\n`Lock`: ")[1].split("\n\n")[0]
    named = set(re.findall(r"\w+", section))
    assert {name for name in dir(Lock) if not name.startswith("_")} - {"acquiring", "releasing"} <= named
