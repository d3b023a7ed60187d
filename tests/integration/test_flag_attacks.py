"""Whatever is planted among the flags, no view fails for it, and people can find out and mend it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.template import RequestContext, Template
from django.test import AsyncClient, Client, RequestFactory

from django_natskv import connections, registry
from django_natskv.registry import rules as r
from tests.fix_commands import Manage
from tests.fix_waiting import eventually
from tests.flag_classes import Features

ON_OFF = {"on": True, "off": False}
PATHS = ("/checkout/3", "/checkout-awaited/3", "/class", "/class-or", "/many", "/share", "/plain", "/flags.json")
DEEP = b'{"!":' * 450 + b'{"var":"plan"}' + b"}" * 450


def enabled(**more: Any) -> dict[str, Any]:
    return {"state": "ENABLED", "variants": ON_OFF, "defaultVariant": "on", **more}


def laughing(depth: int) -> dict[str, Any]:
    rules: dict[str, Any] = {f"a{n}": {"or": [{"$ref": f"a{n + 1}"}] * 2} for n in range(depth)}
    return {**rules, f"a{depth}": {"===": [1, 2]}}


PLANTED: dict[str, tuple[Any, Any]] = {  # the definition, and the shared rules
    "no JSON": (b"\xff\x00{", None),
    "no text": (b"", None),
    "null": (b"null", None),
    "a list": ([enabled()], None),
    "no state": ({"variants": ON_OFF}, None),
    "no variants": (enabled(variants={}), None),
    "another type": (enabled(variants={"on": "yes", "off": "no"}), None),
    "an unknown default": (enabled(defaultVariant="maybe"), None),
    "an unknown variant": (enabled(targeting={"if": [True, "maybe"]}), None),
    "an unknown operator": (enabled(targeting={"eval": ["1"]}), None),
    "wrong arguments": (enabled(defaultVariant="off", targeting={"fractional": 3}), None),
    "strange metadata": (enabled(metadata=[1]), None),
    "a shared rule that is missing": (enabled(targeting={"if": [{"$ref": "a"}, "on"]}), None),
    "shared rules that are no object": (enabled(targeting={"if": [{"$ref": "a"}, "on"]}), b"[1"),
    "a circle": (enabled(targeting={"if": [{"$ref": "a"}, "on"]}), {"a": {"!": [{"$ref": "a"}]}}),
    "rules that multiply": (enabled(targeting={"if": [{"$ref": "a0"}, "on"]}), laughing(60)),
    "depth": (b'{"state":"ENABLED","variants":{"on":true},"targeting":' + DEEP + b"}", None),
    "more depth": (b"[" * 100_000, None),
    "no number": (b'{"state":"ENABLED","variants":{"on":NaN},"defaultVariant":"on"}', None),
    "a huge number": (b'{"state":"ENABLED","variants":{"on":' + b"9" * 5_000 + b'},"defaultVariant":"on"}', None),
    "many people": (
        enabled(targeting={"if": [{"in": [{"var": "targetingKey"}, [str(n) for n in range(50_000)]]}, "off", "off"]}),
        None,
    ),
    "the whole context": (enabled(targeting={"var": ""}), None),
}


@pytest.fixture
def site(flags, settings):
    settings.ROOT_URLCONF = "tests.flag_urls"
    settings.MIDDLEWARE = ["django_natskv.middleware.RegistryMiddleware"]
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
    return flags


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def visit(path: str) -> None:
    """Get ``path`` on both faces; an exception in a view is raised here."""

    async def awaited() -> Any:
        return await AsyncClient().get(path)

    for answer in (Client().get(path), asyncio.run(awaited())):
        assert answer.status_code in (200, 404)
        if path == "/flags.json":
            assert strict(answer.content.decode())["new_checkout"] is False


@pytest.mark.parametrize("name", PLANTED)
def test_no_view_fails_for_what_is_planted(site, name):
    planted, shared = PLANTED[name]
    if shared is not None:
        site.put("_evaluators", shared)
    site.put("theme", planted)
    revision = site.put("new_checkout", planted)
    eventually(lambda: Features.new_checkout.details().revision == revision)
    for path in PATHS:
        visit(path)
    assert Features.new_checkout.on(key="a", plan="pro") is False
    assert Features.theme.value(key="a", plan="pro") == "old"
    request = RequestFactory().get("/")
    request.user = AnonymousUser()
    source = '{% load natskv %}{% flag "new_checkout" %}on{% else %}off{% endflag %}{% variant "theme" %}'
    assert Template(source).render(RequestContext(request)) == "offold"


@pytest.mark.parametrize("given", ["acct-7", 7, object(), None], ids=["text", "number", "object", "nothing"])
def test_what_is_no_request_does_not_fail_when_a_rule_is_added(flags, given):
    assert Features.new_checkout.on(given) is False
    Features.new_checkout.set(True, when=r.staff)
    assert Features.new_checkout.on(given) is False
    assert asyncio.run(Features.new_checkout.aon(given)) is False


def test_keys_that_are_no_flags_disturb_nobody(site):
    for key in ("nobody", "a.b.c", "_x", "__class__", "flag_set"):
        site.put(key, b"{")
    Features.theme.set("new")
    assert Features.theme.value() == "new"
    assert {flag.name for flag in registry.all_flags()}.isdisjoint({"nobody", "a.b.c", "_x", "__class__"})


@pytest.mark.slow
@pytest.mark.timeout(180)  # eight processes, each of which takes some seconds to begin on a busy machine
def test_people_see_what_is_planted_and_mend_it(flags, manage: Manage, nats_server):
    (manage.directory / "shop").mkdir()
    (manage.directory / "shop" / "__init__.py").touch()
    (manage.directory / "shop" / "config.py").write_text("from tests.flag_classes import Features\n")
    apps = ["django.contrib.contenttypes", "django.contrib.auth", "django_natskv", "shop"]
    manage.configure({"default": {"SERVERS": [nats_server.url]}}, INSTALLED_APPS=apps)
    flags.put("_evaluators", laughing(40))
    for flag, name in ((Features.theme, "depth"), (Features.limit, "no JSON"), (Features.rate, "more depth")):
        flags.put(flag.name, PLANTED[name][0])
    flags.put("new_checkout", PLANTED["rules that multiply"][0])
    done = manage("natskv_flag", "list", "--format", "json")
    assert done.code == 0, done.err
    assert {one["name"] for one in json.loads(done.out)} >= {flag.name for flag in Features}
    for known in ("theme", "limit", "new_checkout"):
        for verb in ("show", "explain"):
            done = manage("natskv_flag", verb, known)
            assert (done.code, "Traceback" in done.err) == (0, False), (verb, known, done.err)
    assert manage("natskv_flag", "reset", "theme").code == 0
    assert flags.read("theme") is None


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_without_a_server_at_the_start_each_view_answers(site, settings, make_proxy, nats_server, how):
    proxy = make_proxy(nats_server.url)
    if how == "silent":
        proxy.blackhole()
    url = proxy.url if how == "silent" else "nats://127.0.0.1:1"
    options = {"SERVERS": [url], "CONNECT_TIMEOUT": 0.5, "REQUEST_TIMEOUT": 0.5, "LOCAL_CACHE": {"WAIT": 0.5}}
    settings.NATSKV = {"default": options}
    for path in PATHS:
        visit(path)
    assert Features.kill_switch.on() is True
    assert Features.theme.details().error_code == "PROVIDER_NOT_READY"
    connections.close_all()
