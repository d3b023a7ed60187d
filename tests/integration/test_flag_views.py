"""Flags around views: decorator, mixin, middleware, templates, and what the browser is told."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpResponse
from django.template import Context, Engine, RequestContext, Template, TemplateSyntaxError
from django.test import AsyncClient, Client, RequestFactory
from django.utils import timezone
from django.views import View

from django_natskv import registry
from django_natskv.decorators import flag_required
from django_natskv.middleware import RegistryMiddleware
from django_natskv.mixins import FlagRequiredMixin
from django_natskv.registry import rules as r
from django_natskv.registry.flags import anonymous
from django_natskv.testing import override_flag
from tests.fix_waiting import eventually
from tests.flag_classes import Features, Many
from tests.registry_classes import ShopConfig


@pytest.fixture
def site(flags, settings):
    settings.ROOT_URLCONF = "tests.flag_urls"
    settings.MIDDLEWARE = ["django_natskv.middleware.RegistryMiddleware"]
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
    return Client(raise_request_exception=False)


# --- the decorator and the mixin ---


@pytest.mark.parametrize(
    ("path", "off", "on"),
    [
        ("/checkout/3", (404, None), "new 3"),
        ("/checkout-or/3", (200, "old 3"), "new 3"),
        ("/checkout-redirecting/3", (302, ""), "new awaited 3"),
        ("/checkout-awaited/3", (200, "old awaited 3"), "new awaited 3"),
        ("/class", (404, None), "class"),
        ("/class-or", (200, "old 0"), "class awaited"),
    ],
)
@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_view_is_there_for_those_who_have_the_flag(site, client, path, off, on):
    def get():
        found = client().get(path)
        return asyncio.run(found) if asyncio.iscoroutine(found) else found

    answer = get()
    assert answer.status_code == off[0]
    assert off[1] in (None, answer.content.decode())
    Features.new_checkout.set(True)
    answer = get()
    assert (answer.status_code, answer.content.decode()) == (200, on)


def test_what_a_mixin_answers_otherwise_may_be_a_static_method(flags):
    async def closed(request):
        return HttpResponse("closed")

    class Checkout(FlagRequiredMixin, View):
        flag = Features.new_checkout
        otherwise = staticmethod(closed)

        async def get(self, request):
            return HttpResponse("open")

    view: Any = Checkout.as_view()
    assert asyncio.run(view(RequestFactory().get("/"))).content == b"closed"


def test_a_mixin_without_a_flag_says_so(site):
    with pytest.raises(ImproperlyConfigured, match="Unfinished needs a flag"):
        Client().get("/unfinished")


# --- the middleware ---


def test_a_visitor_gets_an_id_when_a_percentage_asks_and_keeps_the_answer(site):
    assert site.get("/share").cookies == {}  # nothing is stored
    Features.new_checkout.set(True, when=r.percentage(50))
    first = site.get("/share")
    cookie = first.cookies[anonymous.COOKIE]
    assert anonymous.from_cookie(cookie.value)
    assert (cookie["httponly"], cookie["samesite"], cookie["max-age"]) == (True, "Lax", anonymous.MAX_AGE)
    assert "Cookie" in first["Vary"]
    one, other = first.content.decode().split()
    assert one == other
    again = site.get("/share")
    assert again.cookies == {}
    assert again.content == first.content
    assert {Client().get("/share").content for _ in range(20)} == {b"True True", b"False False"}


def test_no_cache_keeps_a_visitors_id_for_others(site, settings):
    settings.MIDDLEWARE = [
        "django.middleware.cache.UpdateCacheMiddleware",
        "django.middleware.cache.FetchFromCacheMiddleware",
        "django_natskv.middleware.RegistryMiddleware",
    ]
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "flags"}}
    Features.new_checkout.set(True, when=r.percentage(50))
    ids = set()
    for _ in range(3):
        visitor = Client()
        visitor.cookies["consent"] = "yes"  # as everybody has it: the answers vary by the same cookies
        first = visitor.get("/share")
        assert "private" in first["Cache-Control"]
        ids.add(first.cookies[anonymous.COOKIE].value)
        again = visitor.get("/share")
        assert (again.content, anonymous.COOKIE in again.cookies) == (first.content, False)
        assert "private" not in again.get("Cache-Control", "")
    assert len(ids) == 3


def test_a_cookie_that_was_tampered_with_is_none(site):
    Features.new_checkout.set(True, when=r.percentage(50))
    site.cookies[anonymous.COOKIE] = "anon-me:forged"
    assert anonymous.COOKIE in site.get("/share").cookies


def test_the_cookie_is_sent_where_that_of_the_session_is(site, settings):
    Features.new_checkout.set(True, when=r.percentage(50))

    def told(**options):
        cookie = Client().get("/share", **options).cookies[anonymous.COOKIE]
        return cookie["domain"], cookie["path"], cookie["secure"]

    assert told() == ("", "/", "")
    assert told(secure=True) == ("", "/", True)
    settings.SESSION_COOKIE_DOMAIN, settings.SESSION_COOKIE_PATH = ".example.com", "/shop"
    settings.SESSION_COOKIE_SECURE = True
    assert told() == (".example.com", "/shop", True)


def test_caches_are_told_of_the_cookie_when_a_view_asked_with_more_than_the_request(flags):
    Features.new_checkout.set(True, when=r.percentage(50))
    request = RequestFactory().get("/")
    request.COOKIES[anonymous.COOKIE] = anonymous.to_cookie(anonymous.make())

    def view(request):
        return HttpResponse(Features.new_checkout.on(request, plan="pro"))

    response: Any = RegistryMiddleware(view)(request)
    assert response["Vary"] == "Cookie"


def test_no_cookie_without_a_percentage_and_none_without_the_middleware(site, settings):
    Features.new_checkout.set(True, when=r.groups("beta"))
    assert site.get("/share").cookies == {}
    assert site.get("/plain").cookies == {}
    assert "Vary" not in site.get("/plain")
    Features.new_checkout.set(True, when=r.percentage(100))
    settings.MIDDLEWARE = []
    answer = Client().get("/share")
    assert (answer.cookies, answer.content) == ({}, b"False False")


def test_a_request_is_one_context_and_one_moment(flags):
    seen = []

    def view(request):
        seen.append(Features.theme.details(request))
        flags.bucket.delete("theme")
        seen.append(Features.theme.details(request))
        return HttpResponse()

    Features.theme.set("new", when=r.attribute("plan") == "pro", otherwise="new")
    RegistryMiddleware(view)(RequestFactory().get("/"))
    assert seen[0].value == "new"
    assert seen[1] is seen[0]
    eventually(lambda: Features.theme.value() == "old")


def test_an_awaited_request_is_one_context_and_one_moment_too(flags):
    seen = []

    async def view(request):
        seen.append((Features.theme.value(request), await Features.new_checkout.aon(request)))
        await flags.bucket.adelete("theme")
        outside = asyncio.get_running_loop().run_in_executor  # where nothing is pinned
        await outside(None, eventually, lambda: Features.theme.value() == "old")
        seen.append((Features.theme.value(request), await Features.new_checkout.aon(request)))
        return HttpResponse()

    Features.theme.set("new")
    Features.new_checkout.set(True, when=r.percentage(50))
    middleware: Any = RegistryMiddleware(view)
    response = asyncio.run(middleware(RequestFactory().get("/")))
    assert seen[0] == seen[1]
    assert seen[0][0] == "new"
    assert anonymous.from_cookie(response.cookies[anonymous.COOKIE].value)


@pytest.mark.django_db
def test_twenty_flags_cost_no_query_and_no_way_to_the_server(make_server, settings, django_assert_num_queries, flags):
    server = make_server()
    settings.NATSKV = {"default": {"SERVERS": [server.url], "LOCAL_CACHE": {"WAIT": 30}}}
    settings.ROOT_URLCONF = "tests.flag_urls"
    settings.MIDDLEWARE = ["django_natskv.middleware.RegistryMiddleware"]
    for number, flag in enumerate(Many):
        if number % 2:
            flag.set(True, when=r.everyone if number % 3 else r.languages("en"))
    expected = Client().get("/many").content
    assert expected.count(b"True") == 10
    server.freeze()
    try:
        with django_assert_num_queries(0):
            assert Client().get("/many").content == expected
    finally:
        server.thaw()


@pytest.mark.django_db
def test_flags_that_ask_nothing_of_the_user_leave_the_session_alone(site, settings, django_assert_num_queries):
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django_natskv.middleware.RegistryMiddleware",
    ]
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    over = r.between(None, timezone.now() - dt.timedelta(hours=1))
    rules = (None, r.languages("en"), r.attribute("plan") == "pro", over, ~r.nobody)
    for number, flag in enumerate(Many):
        flag.set(True, when=rules[number % len(rules)])
    site.cookies[settings.SESSION_COOKIE_NAME] = "s" * 32
    with django_assert_num_queries(0):
        answer = site.get("/many")
    assert answer.content.count(b"True") == 12
    assert (answer.cookies, answer.get("Vary")) == ({}, None)
    Features.new_checkout.set(True, when=r.staff)
    assert "Cookie" in site.get("/share")["Vary"]  # the session was opened


# --- the browser and templates ---


def test_the_browser_sees_public_flags_alone(site):
    Features.theme.set("new")
    answer = site.get("/flags.json")
    assert answer.json() == {"new_checkout": False, "theme": "new"}
    assert "no-store" in answer["Cache-Control"]
    assert site.post("/flags.json").status_code == 405


def render(source, request=None, **values):
    context = Context(values) if request is None else RequestContext(request, values)
    return Template("{% load natskv %}" + source).render(context)


def test_flags_in_templates(flags, settings):
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
    request = RequestFactory().get("/")
    request.user = AnonymousUser()
    source = '{% flag "new_checkout" %}on{% else %}off{% endflag %}{% flag "kill_switch" %} alive{% endflag %}'
    assert render(source, request) == "off alive"
    Features.new_checkout.set(True, when=r.attribute("plan") == "pro")
    assert render(source, request) == "off alive"
    assert render('{% flag "new_checkout" plan=p %}on{% endflag %}', request, p="pro") == "on"
    assert render('{% flag f plan="pro" %}on{% endflag %}', f=Features.new_checkout) == "on"
    Features.theme.set("new", when=r.users(7))
    assert render('{% variant "theme" as t %}<{{ t }}>{% variant "theme" key=7 %}', request) == "<old>new"
    assert render("{% natskv_flags as f %}{{ f.theme }}", request) == "old"
    with pytest.raises(registry.UnknownFlag):
        render('{% flag "nobody" %}{% endflag %}', request)


def test_a_template_asks_for_the_request_that_it_has(flags, settings):
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
    Features.new_checkout.set(True, when=r.attribute("host") == "testserver")
    template = Template('{% load natskv %}{% flag "new_checkout" %}on{% else %}off{% endflag %}')
    request = RequestFactory().get("/")
    contexts = (RequestContext(request), Context({"request": request}), Context(), Context({"request": "none"}))
    assert [template.render(context) for context in contexts] == ["on", "on", "off", "off"]


@pytest.mark.parametrize(("on", "shown"), [(True, "one, and more"), (False, "two, and more")])
def test_a_flag_may_stand_around_blocks_that_are_extended(on, shown):
    one, two = "{% block a %}one{% endblock %}", "{% block b %}two{% endblock %}"
    base = f'{{% load natskv %}}{{% flag "new_checkout" %}}{one}{{% else %}}{two}{{% endflag %}}'
    more = "{{ block.super }}, and more{% endblock %}"
    child = f'{{% extends "base" %}}{{% block a %}}{more}{{% block b %}}{more}'
    engine = Engine(
        loaders=[("django.template.loaders.locmem.Loader", {"base": base, "child": child})],
        libraries={"natskv": "django_natskv.templatetags.natskv"},
    )
    with override_flag(Features.new_checkout, on):
        assert engine.get_template("child").render(Context()) == shown


def test_a_name_that_nobody_declares_hides_what_it_guards_in_production(site, settings, monkeypatch):
    with pytest.raises(registry.UnknownFlag):
        render('{% variant "nobody_at_all" %}')
    monkeypatch.delattr(mail, "outbox")  # no test environment any more
    request = RequestFactory().get("/")
    source = '{% flag "nobody_at_all" %}on{% else %}off{% endflag %}<{% variant "nobody_at_all" %}>'
    assert render(source, request) == "off<>"
    with pytest.raises(Http404):
        flag_required("nobody_at_all")(HttpResponse)(request)
    settings.DEBUG = True
    for ask in (lambda: render(source, request), lambda: flag_required("nobody_at_all")(HttpResponse)(request)):
        with pytest.raises(registry.UnknownFlag):
            ask()


def test_a_config_in_a_template(flags, settings):
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
    ShopConfig.objects.update(lambda cfg: setattr(cfg, "banner", "Sale"))
    assert render('{% config "shop.ShopConfig" as cfg %}{{ cfg.banner }}') == "Sale"
    with pytest.raises(TemplateSyntaxError, match=r"no\.Such"):
        render('{% config "no.Such" as cfg %}')


@pytest.mark.parametrize("source", ["{% flag %}{% endflag %}", '{% flag "theme" what %}{% endflag %}'])
def test_a_tag_that_is_written_wrong_says_so(settings, source):
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
    with pytest.raises(TemplateSyntaxError, match="flag"):
        render(source)
