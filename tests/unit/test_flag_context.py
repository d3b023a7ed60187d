"""Contexts: what a flag asks for is found out, and nothing else; no event loop waits for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, Group, User
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory
from django.utils import translation
from django.utils.functional import SimpleLazyObject

from django_natskv.registry.flags import anonymous, definitions as d, evaluator as e, rules as r
from django_natskv.registry.flags.context import STANDARD, AwaitNeededError, Context
from django_natskv.registry.flags.targeting import ANYTHING

FLAG = d.flag("x")
KEY = frozenset({"targetingKey"})


def gather(context: Context, *needs: str, splits: bool = False) -> dict[str, Any]:
    key, attributes = context.gather(frozenset(needs), splits=splits)
    assert attributes.get("targetingKey") == key
    return {name: attributes[name] for name in needs}


def in_a_loop(function, *arguments, **named):
    """Call a plain function where an event loop is running."""

    async def call():
        return function(*arguments, **named)

    return asyncio.run(call())


def told_by_project(request):
    request.asked = getattr(request, "asked", 0) + 1
    return {"plan": "pro", "shop": {"country": "at"}, "is_staff": True}


async def told_by_awaiting(request):
    await asyncio.sleep(0)
    return {"plan": "max"}


def failing(request):
    request.asked = getattr(request, "asked", 0) + 1
    raise ConnectionError("the database is away")


def told_by_database(request):
    return {"users": User.objects.count()}


NOT_CALLABLE = 3


@pytest.fixture
def request_of(settings):
    settings.ALLOWED_HOSTS = [".example.com"]

    def make(user=None, **cookies):
        made = RequestFactory().get("/", HTTP_HOST="shop.example.com:8000")
        made.COOKIES.update(cookies)
        if user is not None:
            made.user = user
        return made

    return make


@pytest.fixture
def lazy(db):
    """A user who is loaded when somebody looks, as django.contrib.auth's middleware has it."""
    made = User.objects.create(username="ada", is_staff=True)
    made.groups.add(Group.objects.create(name="beta"), Group.objects.create(name="press"))

    def make(request):
        def load():
            return User.objects.get(pk=made.pk)

        async def aload():
            request._acached_user = await User.objects.aget(pk=made.pk)
            return request._acached_user

        request.user = SimpleLazyObject(load)
        request.auser = aload
        return request

    make.user = made  # type: ignore[attr-defined]
    return make


def test_what_the_user_is_is_loaded_once(request_of, lazy, django_assert_num_queries):
    context = Context(lazy(request_of()))
    with django_assert_num_queries(1):
        found = gather(context, "targetingKey", "is_authenticated", "is_staff", "is_superuser")
        assert gather(context, "is_staff") == {"is_staff": True}
    assert found == {
        "targetingKey": str(lazy.user.pk),
        "is_authenticated": True,
        "is_staff": True,
        "is_superuser": False,
    }
    with django_assert_num_queries(1):
        assert gather(context, "groups") == gather(context, "groups") == {"groups": ["beta", "press"]}


def test_a_flag_that_asks_nothing_of_the_user_loads_no_user(request_of, lazy, django_assert_num_queries):
    context = Context(lazy(request_of()))
    rule = r.languages("en") & (r.attribute("host") == "shop.example.com")
    flag = e.compiled(FLAG, d.definition(FLAG, True, when=rule))
    with django_assert_num_queries(0):
        assert flag.details(context).value is True
        assert in_a_loop(flag.details, Context(lazy(request_of()))).value is True


@pytest.mark.parametrize("user", [None, AnonymousUser()], ids=["no middleware", "anonymous"])
def test_whoever_is_not_signed_in_is_nobody_in_particular(request_of, user, db, django_assert_num_queries):
    with django_assert_num_queries(0):
        for context in (Context(request_of(user)), Context(user=user), Context()):
            assert gather(context, "targetingKey", "is_authenticated", "is_staff", "is_superuser", "groups") == {
                "targetingKey": None,
                "is_authenticated": False,
                "is_staff": False,
                "is_superuser": False,
                "groups": [],
            }


class Plain:
    """A user model with as little as Django asks of one."""

    pk = "a7"
    is_authenticated = True
    is_anonymous = False


def test_a_user_model_needs_neither_groups_nor_staff():
    found = gather(Context(user=Plain()), "targetingKey", "is_staff", "is_superuser", "groups")
    assert found == {"targetingKey": "a7", "is_staff": False, "is_superuser": False, "groups": []}
    assert async_to_sync(Context(user=Plain()).agather)(frozenset({"groups"}))[1]["groups"] == []


def test_a_user_a_key_and_attributes_go_before_the_request(request_of):
    request = request_of(AnonymousUser())
    context = Context(request, user=Plain(), key=7, attributes={"is_staff": True, "plan": "pro"})
    assert gather(context, "targetingKey", "is_authenticated", "is_staff", "plan") == {
        "targetingKey": "7",
        "is_authenticated": True,
        "is_staff": True,
        "plan": "pro",
    }
    assert gather(Context(key="acct-7"), "targetingKey", "plan") == {"targetingKey": "acct-7", "plan": None}
    assert Context(key="acct-7").gather(KEY, splits=True)[0] == "acct-7"


def test_language_and_host_are_those_of_the_request(request_of, settings):
    with translation.override("pt-BR"):
        assert gather(Context(request_of()), "language", "host") == {"language": "pt-br", "host": "shop.example.com"}
    with translation.override(None):
        assert gather(Context(), "language", "host") == {"language": "", "host": None}
    settings.ALLOWED_HOSTS = ["example.org"]
    assert gather(Context(request_of()), "host") == {"host": None}


# ---------------------------------------------------------------- the project's function


def test_the_projects_function_is_asked_once_and_only_for_what_is_its_own(request_of, settings):
    settings.NATSKV_FLAGS = {"CONTEXT": f"{__name__}.told_by_project"}
    request = request_of()
    context = Context(request, attributes={"shop": "mine"})
    assert gather(context, "language", "is_staff") == {"language": "en-us", "is_staff": False}
    assert not hasattr(request, "asked")
    assert gather(context, "plan", "is_staff") == {"plan": "pro", "is_staff": False}
    assert gather(context, "shop", "country") == {"shop": "mine", "country": None}
    assert request.asked == 1
    assert gather(Context(), "plan") == {"plan": None}


@pytest.mark.parametrize("awaited", [False, True])
def test_what_a_request_tells_is_found_out_once_whatever_else_is_given(
    request_of, lazy, settings, django_assert_num_queries, awaited
):
    settings.NATSKV_FLAGS = {"CONTEXT": f"{__name__}.told_by_project"}
    request = lazy(request_of())
    own = Context(request)
    needs = frozenset({"targetingKey", "groups", "plan", "number"})
    with django_assert_num_queries(2):  # the user, and the groups
        for number in range(3):
            context = Context(request, attributes={"number": number}, parent=own)
            found = (async_to_sync(context.agather) if awaited else context.gather)(needs)[1]
            assert {name: found[name] for name in needs} == {
                "targetingKey": str(lazy.user.pk),
                "groups": ["beta", "press"],
                "plan": "pro",
                "number": number,
            }
    assert request.asked == 1
    assert "number" not in own.gather(frozenset())[1]


@pytest.mark.parametrize("awaited", [False, True])
def test_a_user_who_is_given_is_asked_in_place_of_that_of_the_request(request_of, settings, awaited):
    settings.NATSKV_FLAGS = {"CONTEXT": f"{__name__}.told_by_project"}
    request = request_of(AnonymousUser())
    own = Context(request, keeps_id=True)
    assert own.gather(KEY, splits=True)[0] == own.new_id
    context = Context(request, user=Plain(), attributes={"shop": "mine"}, parent=own)
    gathered = async_to_sync(context.agather) if awaited else context.gather
    assert gathered(frozenset({"plan"}))[1]["shop"] == "mine"
    found = gathered(frozenset({"targetingKey", "is_authenticated", "groups", "plan", "host", ANYTHING}))[1]
    assert (found["targetingKey"], found["is_authenticated"], found["groups"]) == ("a7", True, [])
    assert (found["plan"], found["host"], request.asked) == ("pro", "shop.example.com", 1)


@pytest.mark.parametrize("awaited", [False, True])
def test_a_function_that_fails_is_asked_once_too(request_of, settings, awaited):
    settings.NATSKV_FLAGS = {"CONTEXT": f"{__name__}.failing"}
    request = request_of()
    own = Context(request)
    for context in (own, own, Context(request, attributes={"a": 1}, parent=own)):
        with pytest.raises(ConnectionError, match="the database is away"):
            (async_to_sync(context.agather) if awaited else context.gather)(frozenset({"plan"}))
    assert request.asked == 1


def test_the_projects_function_makes_nobody_staff(request_of, settings):
    settings.NATSKV_FLAGS = {"CONTEXT": f"{__name__}.told_by_project"}
    for asked in (("plan", "is_staff"), ("is_staff", "plan")):
        context = Context(request_of())
        assert [gather(context, name)[name] for name in asked] == [{"plan": "pro"}.get(name, False) for name in asked]


def test_the_projects_function_may_be_awaited(request_of, settings):
    settings.NATSKV_FLAGS = {"CONTEXT": f"{__name__}.told_by_awaiting"}
    assert gather(Context(request_of()), "plan") == {"plan": "max"}
    assert asyncio.run(Context(request_of()).agather(frozenset({"plan"})))[1]["plan"] == "max"
    with pytest.raises(AwaitNeededError, match="the project's function"):
        in_a_loop(gather, Context(request_of()), "plan")


def test_a_plain_function_may_use_the_database_when_it_is_awaited(request_of, settings, lazy):
    settings.NATSKV_FLAGS = {"CONTEXT": f"{__name__}.told_by_database"}
    context = Context(request_of())
    with pytest.raises(AwaitNeededError, match=r'"users", .* await aon\(\)'):
        in_a_loop(gather, context, "users")
    found = async_to_sync(context.agather)(frozenset({"users"}))[1]
    assert found["users"] == 1
    assert gather(Context(request_of()), "users") == {"users": 1}


@pytest.mark.parametrize("setting", [{}, {"CONTEXT": None}], ids=str)
def test_a_project_need_not_have_a_function(request_of, settings, setting):
    settings.NATSKV_FLAGS = setting
    assert gather(Context(request_of()), "plan") == {"plan": None}
    assert asyncio.run(Context(request_of()).agather(frozenset({"plan"})))[1]["plan"] is None


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ([], "NATSKV_FLAGS is list, not a mapping"),
        ({"CONTEXTS": "x"}, 'unknown key "CONTEXTS"'),
        ({"CONTEXT": "nowhere.at_all"}, r'NATSKV_FLAGS\["CONTEXT"\] is .* cannot be imported: ModuleNotFoundError'),
        ({"CONTEXT": "os.nowhere"}, "cannot be imported: ImportError"),
        ({"CONTEXT": 3}, "is int, not a string"),
        ({"CONTEXT": []}, "is list, not a string"),
        ({"CONTEXT": f"{__name__}.NOT_CALLABLE"}, "no function of a request"),
        ({"CONTEXT": "asyncio.wait_for"}, "does not take a request alone: missing a required argument"),
    ],
    ids=str,
)
def test_a_function_that_cannot_be_used_is_told_and_the_flag_keeps_its_default(request_of, settings, setting, says):
    settings.NATSKV_FLAGS = setting
    with pytest.raises(ImproperlyConfigured, match=says):
        gather(Context(request_of()), "plan")
    flag = e.compiled(FLAG, d.definition(FLAG, True, when=r.attribute("plan") != "pro"))
    assert flag.details(Context(request_of())).reason == e.ERROR


def test_a_function_tells_a_mapping(request_of, settings):
    settings.NATSKV_FLAGS = {"CONTEXT": "builtins.repr"}
    with pytest.raises(TypeError, match="returned str, not a mapping"):
        gather(Context(request_of()), "plan")


def test_targeting_that_may_ask_anything_gets_everything(request_of, settings):
    settings.NATSKV_FLAGS = {"CONTEXT": f"{__name__}.told_by_project"}
    for attributes in (
        Context(request_of()).gather(frozenset({ANYTHING}))[1],
        asyncio.run(Context(request_of()).agather(frozenset({ANYTHING})))[1],
    ):
        assert attributes.keys() >= STANDARD | {"plan", "shop"}


# ---------------------------------------------------------------- event loops


@pytest.mark.parametrize("name", ["targetingKey", "is_staff", "groups"])
def test_a_running_event_loop_does_not_wait_for_the_user(request_of, lazy, name, django_assert_num_queries, caplog):
    flag = e.compiled(FLAG, d.definition(FLAG, True, when=r.attribute(name) != None))  # noqa: E711 - makes a rule
    with django_assert_num_queries(0):
        details = in_a_loop(flag.details, Context(lazy(request_of())))
    assert (details.value, details.reason) == (False, e.ERROR)
    assert "await aon()" in details.error
    assert [record for record in caplog.records if "await aon()" in record.getMessage()]


def test_awaited_the_user_is_loaded(request_of, lazy):
    flag = e.compiled(FLAG, d.definition(FLAG, True, when=r.users(lazy.user) & r.groups("beta") & r.staff))
    assert async_to_sync(flag.adetails)(Context(lazy(request_of()))).value is True
    request = lazy(request_of())
    del request.auser  # one without Django's middleware, or a user by itself
    assert async_to_sync(flag.adetails)(Context(request)).value is True
    assert async_to_sync(flag.adetails)(Context(user=lazy(request_of()).user)).value is True


def test_a_user_who_was_loaded_is_not_loaded_again(request_of, lazy, django_assert_num_queries):
    request = lazy(request_of())

    async def view():
        await request.auser()
        return gather(Context(request), "is_staff", "targetingKey")

    with django_assert_num_queries(1):
        assert async_to_sync(view)() == {"is_staff": True, "targetingKey": str(lazy.user.pk)}
    request = lazy(request_of())
    with django_assert_num_queries(1):
        assert request.user.is_active
        assert in_a_loop(gather, Context(request), "is_staff") == {"is_staff": True}
        assert in_a_loop(gather, Context(user=request.user), "is_staff") == {"is_staff": True}
        assert async_to_sync(Context(request).agather)(frozenset({"is_staff"}))[1]["is_staff"] is True


def test_groups_of_a_user_who_is_loaded_are_awaited_too(request_of, lazy):
    context = Context(user=lazy.user)
    with pytest.raises(AwaitNeededError, match='"groups"'):
        in_a_loop(gather, context, "groups")
    assert async_to_sync(context.agather)(frozenset({"groups"}))[1]["groups"] == ["beta", "press"]
    assert in_a_loop(gather, context, "groups") == {"groups": ["beta", "press"]}


def test_awaited_no_more_is_loaded_than_is_asked_for(request_of, lazy, django_assert_num_queries):
    with django_assert_num_queries(0):
        async_to_sync(Context(lazy(request_of())).agather)(frozenset({"language", "host"}))
    with django_assert_num_queries(1):
        async_to_sync(Context(lazy(request_of())).agather)(frozenset({"is_staff"}))


# ---------------------------------------------------------------- anonymous ids


def test_an_anonymous_id_is_made_when_a_percentage_asks_and_kept(request_of):
    context = Context(request_of(), keeps_id=True)
    assert (context.gather(KEY)[0], context.new_id) == (None, None)
    key = context.gather(KEY, splits=True)[0]
    assert key == context.new_id == context.gather(KEY, splits=True)[0] == context.gather(KEY)[0]
    assert key
    assert key.startswith("anon-")
    again = Context(request_of(**{anonymous.COOKIE: anonymous.to_cookie(key)}), keeps_id=True)
    assert again.gather(KEY, splits=True)[0] == again.gather(KEY)[0] == key
    assert again.new_id is None
    flag = e.compiled(FLAG, d.definition(FLAG, True, when=r.percentage(100)))
    assert flag.details(Context(request_of(), keeps_id=True)).value is True


def test_no_id_is_made_for_whoever_is_signed_in_or_where_nobody_keeps_it(request_of):
    signed_in = Context(request_of(Plain()), keeps_id=True)
    assert signed_in.gather(KEY, splits=True)[0] == "a7"
    assert signed_in.new_id is None
    unkept = Context(request_of())
    assert unkept.gather(KEY, splits=True)[0] is None
    assert unkept.new_id is None


def test_awaited_an_id_is_made_alike(request_of):
    context = Context(request_of(), keeps_id=True)
    assert asyncio.run(context.agather(KEY, splits=True))[0] == context.new_id is not None


def test_an_id_is_read_back_and_each_is_another():
    made = {anonymous.make() for _ in range(100)}
    assert len(made) == 100
    for visitor in made:
        assert anonymous.from_cookie(anonymous.to_cookie(visitor)) == visitor


@pytest.mark.parametrize("value", [None, "", "anon-1", "anon-1:x", ":", "\ud800:é", "a" * 10_000], ids=repr)
def test_an_id_that_we_did_not_sign_is_none(value):
    assert anonymous.from_cookie(value) is None


def test_an_id_that_was_tampered_with_is_none_and_another_is_made(request_of, settings):
    cookie = anonymous.to_cookie(anonymous.make())
    tampered = cookie.replace("anon-", "anon-x", 1)
    assert anonymous.from_cookie(tampered) is None
    assert anonymous.from_cookie(anonymous.to_cookie("7")) is None  # signed, and yet no id of a visitor
    context = Context(request_of(**{anonymous.COOKIE: tampered}), keeps_id=True)
    assert context.gather(KEY, splits=True)[0] == context.new_id is not None


def test_an_id_outlives_a_change_of_the_secret_key(settings):
    cookie = anonymous.to_cookie("anon-1")
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "another"
    assert anonymous.from_cookie(cookie) == "anon-1"
    settings.SECRET_KEY_FALLBACKS = []
    assert anonymous.from_cookie(cookie) is None


def test_a_key_among_the_attributes_is_the_same_key():
    assert gather(Context(attributes={"targetingKey": 7}), "targetingKey") == gather(Context(key="7"), "targetingKey")
    assert gather(Context(key=8, attributes={"targetingKey": 7}), "targetingKey") == {"targetingKey": "8"}


def test_users_that_are_not_saved_are_not_one_person(request_of):
    assert gather(Context(user=User(username="new")), "targetingKey", "is_authenticated") == {
        "targetingKey": None,
        "is_authenticated": True,
    }
    visitors = (Context(request_of(User()), keeps_id=True) for _ in "12")
    ids = {gather(visitor, "targetingKey", splits=True)["targetingKey"] for visitor in visitors}
    assert len(ids - {None}) == 2
