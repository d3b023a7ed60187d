"""Scopes on a real server: read field by field, written by themselves, told of, overridden and pinned."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.forms import modelform_factory
from django.template import Context, Template, TemplateSyntaxError

from django_natskv import registry
from django_natskv.exceptions import CodecError, UsageError
from django_natskv.testing import override_config
from tests.fix_registry import set_to
from tests.fix_servers import takes_several_as_one
from tests.fix_waiting import eventually
from tests.registry_classes import BUCKET, Limits, SiteConfig

KEY = "shop.SiteConfig"
SITE = f"{KEY}.site.3"
TENANT = f"{KEY}.tenant.a"
BOTH = f"{KEY}.site.3.tenant.a"


@pytest.fixture
def site(shelf):
    """The scope of site 3, for which nothing is stored, over a banner and a limit for everybody."""
    shelf.put(KEY, {"banner": "all", "limit": 5})
    registry.wait_ready(30)
    eventually(lambda: SiteConfig.current.limit == 5)
    return SiteConfig.for_scope(site=3)


@pytest.fixture
def changes():
    """What ``config_changed`` told of the class: (scope, changed, old banner, new banner)."""
    told = []

    def receive(sender, scope, changed, old, new, **_):
        told.append((scope, changed, old.banner, new.banner))

    registry.config_changed.connect(receive, sender=SiteConfig)
    yield told
    registry.config_changed.disconnect(receive, sender=SiteConfig)


# --- reading ---


def test_a_scope_falls_back_field_by_field_and_follows_both_documents(site, shelf):
    assert (site.current.banner, site.current.limit, site.current.tags, site.current.revision) == ("all", 5, [], 0)
    revision = shelf.put(SITE, {"banner": "three"})
    eventually(lambda: site.current.banner == "three")
    assert (site.current.limit, site.current.revision, site.current.pk) == (5, revision, SITE)
    shelf.put(KEY, {"banner": "new", "limit": 6})
    eventually(lambda: site.current.limit == 6)
    assert site.current.banner == "three"
    assert SiteConfig.for_scope(site=4).current.banner == SiteConfig.current.banner == "new"
    shelf.bucket.delete(SITE)
    eventually(lambda: site.current.banner == "new")
    shelf.bucket.delete(KEY)
    eventually(lambda: site.current.banner == "")
    assert SiteConfig.for_scope().current is SiteConfig.current


def test_of_several_names_the_later_wins_and_both_together_win_over_each(shelf):
    shelf.put(KEY, {"banner": "all", "limit": 1})
    shelf.put(SITE, {"banner": "site", "limit": 2})
    shelf.put(TENANT, {"banner": "tenant"})
    registry.wait_ready(30)
    both = SiteConfig.for_scope(site=3, tenant="a")
    eventually(lambda: both.current.banner == "tenant")
    assert both.current.limit == 2
    shelf.put(BOTH, {"limit": 3})
    eventually(lambda: both.current.limit == 3)
    assert SiteConfig.for_scope(site=3).current.limit == 2
    assert (both.objects.strong().get().banner, both.objects.get().limit) == ("tenant", 3)


def shown(scope, revision):
    """Wait until the scope shows its revision, and return the snapshot."""
    return eventually(lambda: scope.current if scope.current.revision == revision else None)


def test_the_snapshot_of_a_scope_is_one_object_until_one_of_its_documents_changes(site, shelf):
    for banner in ("all", "three"):
        document = {} if banner == "all" else {"banner": banner}
        first = shown(site, shelf.put(SITE, document))
        shelf.put("shop.Carrier.x", {"name": banner})
        shown(SiteConfig.for_scope(site=4), shelf.put(f"{KEY}.site.4", document))
        assert site.current is first
        with pytest.raises(AttributeError, match="snapshot"):
            site.current.banner = "x"
        with pytest.raises(UsageError, match="snapshot"):
            site.current.own("limit")
    first = site.current
    shelf.put(KEY, {"limit": 8})
    eventually(lambda: site.current is not first)
    assert first.limit == 5


def test_a_pinned_moment_holds_for_scopes_and_shows_what_is_saved_inside(site, shelf):
    shelf.put(SITE, {"tags": ["x"]})
    eventually(lambda: site.current.tags == ["x"])
    with registry.snapshot():
        before = site.current
        shelf.put(KEY, {"banner": "other"})
        shelf.put(SITE, {"tags": ["y"]})
        eventually(lambda: asyncio.run(elsewhere(site)) == ("other", ["y"]))
        assert site.current is before
        assert site.objects.get().tags == ["x"]
        site.objects.update(set_to(limit=9))
        assert (site.current.limit, site.current.tags, site.current.banner) == (9, ["y"], "other")
    with registry.snapshot():
        assert site.current is site.current


async def elsewhere(site):
    """Return what a thread without a pin reads."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, lambda: (site.current.banner, site.current.tags))


def test_without_a_server_a_scope_reads_the_declared_defaults(settings):
    settings.NATSKV = {"default": {"SERVERS": ["nats://127.0.0.1:1"], "LOCAL_CACHE": {"WAIT": 30}}}
    assert SiteConfig.for_scope(site="down").current.limit == 10


def test_a_template_names_a_scope_and_one_without_a_value_is_everybody_s(site, shelf, settings):
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
    shelf.put(SITE, {"banner": "three"})
    eventually(lambda: site.current.banner == "three")

    def rendered(scope, **context):
        text = f'{{% load natskv %}}{{% config "shop.SiteConfig" {scope} as cfg %}}{{{{ cfg.banner }}}}'
        return Template(text).render(Context(context))

    assert (rendered("site=3"), rendered("site=s", s="3"), rendered("site=4")) == ("three", "three", "all")
    assert (rendered(""), rendered("site=s"), rendered("site=s", s="")) == ("all", "all", "all")
    with pytest.raises(TemplateSyntaxError, match="no scope 'sit'"):
        rendered("sit=3")
    text = "{{ scope.current.banner }}"
    assert Template(text).render(Context({"scope": site})) == "three"


@pytest.mark.parametrize(
    "given", ["x" * 2000, "\ud800", 1.5, True, ["3"], object()], ids=["long", "half", "float", "bool", "list", "object"]
)
def test_a_value_that_is_no_scope_breaks_no_page_and_is_left_out(site, shelf, settings, caplog, given):
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
    shelf.put(SITE, {"banner": "three"})
    eventually(lambda: site.current.banner == "three")

    def rendered(scope):
        text = f'{{% load natskv %}}{{% config "shop.SiteConfig" {scope} as cfg %}}{{{{ cfg.banner }}}}'
        return Template(text).render(Context({"v": given, "long": "x" * 900}))

    assert (rendered("tenant=v"), rendered("site=3 tenant=v"), rendered("site=v tenant=3")) == ("all", "three", "all")
    assert rendered("site=long tenant=long") == "all"
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert len(caplog.records) == 4
    assert "xxx" not in caplog.text


# --- writing ---


def test_a_save_stores_what_the_scope_sets_and_nothing_else(site, shelf, do):
    cfg = do(site.objects.get)
    cfg.banner = "three"
    do(cfg.save, actor="ann", comment="promo")
    assert shelf.read(SITE) == {"banner": "three"}
    assert (cfg.revision, cfg.own_fields) == (site.current.revision, ("banner",))
    do(site.objects.update, set_to(limit=7, tags=["x"]))
    assert shelf.read(SITE) == {"banner": "three", "limit": 7, "tags": ["x"]}
    do(site.objects.update, lambda cfg: cfg.inherit("banner", "limit"))
    assert shelf.read(SITE) == {"tags": ["x"]}
    assert (site.current.banner, site.current.limit) == ("all", 5)
    do(cfg.refresh)
    assert (cfg.banner, cfg.own_fields) == ("all", ("tags",))
    assert shelf.read(KEY) == {"banner": "all", "limit": 5}
    do(cfg.delete)
    assert (shelf.read(SITE), site.current.tags, cfg.own_fields) == (None, [], ("tags",))
    with pytest.raises(ValidationError):
        do(site.objects.update, set_to(banner="forbidden"))


def test_some_fields_are_saved_over_what_others_have_become(site, shelf, do):
    cfg = site.objects.get()
    cfg.own("limit", "tags")
    cfg.banner = "mine"
    shelf.put(SITE, {"tags": ["theirs"]})
    shelf.put(KEY, {"limit": 6})
    do(cfg.save, update_fields=["limit"])
    assert shelf.read(SITE) == {"tags": ["theirs"], "limit": 5}
    assert (cfg.banner, cfg.own_fields) == ("mine", ("banner", "limit", "tags"))
    cfg.inherit("limit")
    do(cfg.save, update_fields=["limit"])
    assert shelf.read(SITE) == {"tags": ["theirs"]}


def test_what_is_set_and_not_saved_yet_stays_to_be_saved(site, shelf, do):
    cfg = site.objects.get()
    cfg.own("banner")
    cfg.limit = 7
    do(cfg.save, update_fields=["limit"])
    assert shelf.read(SITE) == {"limit": 7}
    do(cfg.save)
    assert shelf.read(SITE) == {"banner": "all", "limit": 7}


def test_a_lost_race_in_a_scope_is_a_conflict_of_that_scope(site, shelf, do):
    mine, theirs = site.objects.get(), site.objects.get()
    theirs.limit = 7
    theirs.save()
    mine.banner = "mine"
    with pytest.raises(registry.Conflict) as caught:
        do(mine.save)
    assert (caught.value.key, caught.value.fields) == (SITE, ())
    do(caught.value.merge().save)
    assert shelf.read(SITE) == {"banner": "mine", "limit": 7}
    SiteConfig.objects.update(set_to(limit=50))  # what everybody has is another document: no conflict
    site.objects.update(set_to(banner="again"))


@pytest.mark.skipif(not takes_several_as_one(), reason="nats-server 2.12 takes several changes as one")
def test_several_scopes_are_saved_together_or_not_at_all(site, shelf):
    with registry.atomic():
        SiteConfig.objects.update(set_to(banner="all of you"))
        site.objects.update(set_to(banner="three"))
        site.objects.update(set_to(limit=7))
    assert (shelf.read(KEY)["banner"], shelf.read(SITE)) == ("all of you", {"banner": "three", "limit": 7})


def test_revisions_of_a_scope_are_its_own(site, shelf, do):
    first = do(site.objects.update, set_to(banner="one"), actor="ann", comment="why")
    do(site.objects.update, set_to(banner="two", limit=7))
    SiteConfig.objects.update(set_to(tags=["later"]))
    one, two = do(site.history)
    assert (one.actor, one.comment, one.changes) == ("ann", "why", {"banner": ("all", "one")})
    assert two.changes == {"banner": ("one", "two"), "limit": (5, 7)}
    assert (two.value.tags, two.value.scope) == (["later"], {"site": "3"})
    back = do(site.rollback, first.revision, actor="bob")
    assert (back.banner, back.limit, shelf.read(SITE)) == ("one", 5, {"banner": "one"})
    with pytest.raises(SiteConfig.DoesNotExist):
        do(site.rollback, 10_000)
    then = do(site.as_of, one.time)
    assert (then.banner, then.tags, then.scope) == ("one", [], {"site": "3"})
    assert do(site.as_of, do(site.history)[-1].time).tags == ["later"]
    assert do(site.as_of, one.time - timedelta(days=1)).banner == ""


def test_documents_of_an_earlier_version_are_upgraded_each_by_itself(shelf, do):
    site, other = (Limits.for_scope(site=number) for number in (3, 4))
    shelf.put(site.key, {"minutes": 5})
    shelf.put("shop.Limits", {"minutes": 2})
    eventually(lambda: (Limits.current.seconds, site.current.seconds, other.current.seconds) == (120, 300, 120))
    assert (site.current.own_fields, other.current.own_fields) == (("seconds",), ())
    assert (shelf.read(site.key), shelf.read("shop.Limits")) == ({"minutes": 5}, {"minutes": 2})  # only read
    do(site.objects.update, lambda cfg: cfg.own("seconds"))
    do(other.objects.update, set_to(seconds=7))
    assert shelf.read(site.key) == {"$version": 2, "seconds": 300}
    assert shelf.read(other.key) == {"$version": 2, "seconds": 7}
    assert shelf.read("shop.Limits") == {"minutes": 2}
    assert do(site.rollback, site.history()[0].revision).seconds == 300


def test_a_form_changes_a_scope(site, shelf):
    form = modelform_factory(SiteConfig, fields=["banner", "limit"])(
        {"banner": "three", "limit": "5"}, instance=site.objects.get()
    )
    form.save()
    assert shelf.read(SITE) == {"banner": "three"}


def test_a_key_that_is_no_scope_cannot_be_saved(shelf):
    with pytest.raises(ValidationError, match="no scope"):
        SiteConfig(id="shop.Carrier.dhl").save()
    assert not shelf.exists


# --- told of ---


def test_a_scope_is_told_of_what_it_falls_back_to(site, shelf, changes):
    shelf.put(f"{KEY}.site.4", {"banner": "four"})
    shelf.put(f"{KEY}.site.5", {"limit": 1})
    eventually(lambda: SiteConfig.for_scope(site=5).current.limit == 1)
    eventually(lambda: ({"site": "5"}, ("limit",), "all", "all") in changes)
    changes.clear()
    shelf.put(KEY, {"banner": "new", "limit": 5})
    expected = [
        ({}, ("banner",), "all", "new"),
        ({"site": "3"}, ("banner",), "all", "new"),  # nothing is stored of it, but it was asked for
        ({"site": "5"}, ("banner",), "all", "new"),
    ]
    eventually(lambda: expected == [told for told in changes if told[0] in ({}, {"site": "3"}, {"site": "5"})])
    assert {"site": "4"} not in [told[0] for told in changes]
    changes.clear()
    shelf.put(SITE, {"limit": 7})
    eventually(lambda: ({"site": "3"}, ("limit",), "new", "new") in changes)


def test_what_of_a_scope_cannot_be_read_is_told_once_and_counted(site, shelf, caplog):
    told = []

    def hear(sender, key, error, **_):
        told.append((sender, key, error.field))

    registry.undecodable.connect(hear)
    try:
        shelf.put(SITE, {"limit": 7, "later": 1})
        eventually(lambda: site.current.limit == 7)
        shelf.put(SITE, {"limit": "many", "later": 1})
        eventually(lambda: site.current.undecodable == ("limit",))
        assert site.current.limit == 7
        shelf.put(KEY, {"banner": "again"})
        eventually(lambda: site.current.banner == "again")
        assert (site.current.limit, SiteConfig.for_scope(site=3, tenant="a").current.limit) == (7, 10)
        assert registry.status()[("default", BUCKET)].undecodable == 1
        eventually(lambda: told == [(SiteConfig, SITE, "limit")])
        assert len([record for record in caplog.records if record.name == "django_natskv.registry"]) == 1
        site.objects.update(set_to(banner="mine"))
        assert shelf.read(SITE) == {"limit": "many", "later": 1, "banner": "mine"}
        assert site.current.banner == "mine"
        shelf.put(SITE, b"{broken")
        eventually(lambda: site.current.undecodable == ("$",))
        assert (site.current.limit, site.current.banner) == (7, "mine")
        with pytest.raises(CodecError):
            site.objects.update(set_to(limit=1))
        site.objects.get().delete()
        assert site.current.limit == 10
        assert registry.status()[("default", BUCKET)].undecodable == 0
    finally:
        registry.undecodable.disconnect(hear)


# --- overridden ---


def test_an_override_of_a_scope_holds_there_and_below_it(site, shelf):
    both = SiteConfig.for_scope(site=3, tenant="a")
    shelf.put(TENANT, {"limit": 9})
    eventually(lambda: both.current.limit == 9)
    with override_config(site, banner="x", limit="1") as cfg:
        assert cfg is site.current is site.current
        assert (cfg.banner, cfg.limit, cfg.scope) == ("x", 1, {"site": "3"})
        assert (both.current.banner, both.current.limit) == ("x", 9)  # the tenant wins over the site
        assert SiteConfig.current.banner == SiteConfig.for_scope(site=4).current.banner == "all"
        with override_config(SiteConfig, banner="y", tags=["z"]):
            assert (site.current.banner, site.current.tags, SiteConfig.current.banner) == ("x", ["z"], "y")
        assert site.objects.get().banner == "all"
    assert site.current.banner == "all"
    assert shelf.read(SITE) is None


@pytest.mark.parametrize("everywhere", [False, True])
def test_an_override_of_everybody_shows_in_scopes_that_do_not_set_the_field(site, shelf, everywhere):
    four = SiteConfig.for_scope(site=4)
    shelf.put(f"{KEY}.site.4", {"banner": "four"})
    eventually(lambda: four.current.banner == "four")
    with override_config(SiteConfig, everywhere=everywhere, banner="x"):
        assert (site.current.banner, four.current.banner) == ("x", "four")
        assert asyncio.run(elsewhere(site))[0] == ("x" if everywhere else "all")
        with registry.snapshot():
            assert site.current.banner == "x"
    with override_config(SiteConfig.for_scope(), everywhere=everywhere, banner="x"):
        assert (SiteConfig.current.banner, site.current.banner) == ("x", "x")
    with override_config(site, everywhere=everywhere, banner="x"):
        assert (SiteConfig.current.banner, site.current.banner, four.current.banner) == ("all", "x", "four")
    assert (site.current.banner, asyncio.run(elsewhere(site))[0]) == ("all", "all")


# --- every process ---


def test_every_process_reads_and_is_told_of_a_scope(site, shelf, program, settings):
    code = """
from django_natskv import registry
from tests.registry_classes import SiteConfig
from tests.fix_waiting import eventually
told = []
def hear(sender, scope, changed, actor, **_):
    told.append([scope, list(changed), actor])
registry.config_changed.connect(hear, sender=SiteConfig)
site = SiteConfig.for_scope(site=3)
registry.wait_ready(30)
eventually(lambda: site.current.banner == "all")
print(json.dumps("ready"), flush=True)
sys.stdin.readline()
eventually(lambda: site.current.banner == "new" and site.current.limit == 7)
eventually(lambda: len(told) == 3)
print(json.dumps(told), flush=True)
"""
    programs = [program(code, settings.NATSKV) for _ in range(2)]
    assert [one.read() for one in programs] == ["ready", "ready"]
    site.objects.update(set_to(limit=7), actor="ann")
    SiteConfig.objects.update(set_to(banner="new", limit=6), actor="bob")
    for one in programs:
        one.tell()
    expected = [[{"site": "3"}, ["limit"], "ann"], [{}, ["banner", "limit"], "bob"], [{"site": "3"}, ["banner"], "bob"]]
    assert [one.finish()[0][0] for one in programs] == [expected, expected]
