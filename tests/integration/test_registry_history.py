"""The history of configs and models: who, when and why; back to a revision; as it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from django_natskv import registry
from django_natskv.exceptions import UsageError
from tests.registry_classes import Carrier, Limits, ShopConfig

KEY = "shop.ShopConfig"


@pytest.fixture
def edited(shelf):
    """A config with a limit of 1, of 2 with a banner, deleted, and of 3; return the revisions."""
    cfg = ShopConfig.objects.get()
    revisions = []
    for values, comment in (({"limit": 1}, "one"), ({"limit": 2, "banner": "b"}, "two")):
        vars(cfg).update(values)
        cfg.save(actor="ann", comment=comment)
        revisions.append(cfg.revision)
    cfg.delete(actor="bob", comment="gone")
    cfg = ShopConfig(limit=3)
    cfg.save()
    return [*revisions, cfg.revision - 1, cfg.revision]


def test_history_tells_who_when_why_and_what(edited, do):
    one, two, gone, last = do(ShopConfig.history)
    assert [each.revision for each in (one, two, gone, last)] == edited
    assert [(each.actor, each.comment) for each in (one, two, gone, last)] == [
        ("ann", "one"),
        ("ann", "two"),
        ("bob", "gone"),
        ("", ""),
    ]
    assert [each.operation for each in (one, two, gone, last)] == ["put", "put", "delete", "put"]
    assert one.changes == {"limit": (10, 1)}
    assert two.changes == {"limit": (1, 2), "banner": ("", "b")}
    assert gone.changes == {"limit": (2, 10), "banner": ("b", "")}
    assert (two.value.limit, gone.value, last.value.limit) == (2, None, 3)
    assert one.time <= two.time <= last.time
    assert abs(one.time - datetime.now(UTC)) < timedelta(minutes=5)
    with pytest.raises(AttributeError):
        two.value.limit = 7


def test_history_of_nothing_is_empty(shelf, do):
    assert do(ShopConfig.history) == []
    assert do(Carrier.history, "none") == []


def test_a_rollback_is_a_new_revision_with_all_of_the_old_one(shelf, edited, do):
    done = do(ShopConfig.rollback, edited[1], actor="eve")
    assert (done.limit, done.banner, done.revision > edited[-1]) == (2, "b", True)
    assert shelf.read(KEY) == {"limit": 2, "banner": "b"}
    newest = ShopConfig.history()[-1]
    assert (newest.actor, newest.comment) == ("eve", f"Back to revision {edited[1]}")
    assert ShopConfig.objects.strong().get().revision == done.revision


def test_a_rollback_brings_back_what_was_deleted(shelf, do):
    one = Carrier.objects.create(code="dhl", name="D")
    revision = one.revision
    one.delete()
    assert do(Carrier.rollback, "dhl", revision, comment="again").name == "D"
    assert [each.comment for each in do(Carrier.history, "dhl")] == ["", "", "again"]


def test_a_rollback_to_what_is_not_kept_or_not_there_is_refused(edited, do):
    for revision in (edited[2], 10**6):
        with pytest.raises(ShopConfig.DoesNotExist, match="history"):
            do(ShopConfig.rollback, revision)
    with pytest.raises(Carrier.DoesNotExist):
        do(Carrier.rollback, "dhl", edited[0])
    for revision in (None, 0, "1"):
        with pytest.raises(UsageError, match="revision"):
            do(ShopConfig.rollback, revision)
    assert len(ShopConfig.history()) == 4


def test_a_rollback_is_validated(shelf, do):
    too_high = shelf.put(KEY, {"limit": 101})
    unreadable = shelf.put(KEY, {"limit": "many"})
    shelf.put(KEY, {"limit": 5})
    for revision in (too_high, unreadable):
        with pytest.raises(ValidationError):
            do(ShopConfig.rollback, revision)
    assert shelf.read(KEY) == {"limit": 5}


def test_a_rollback_that_somebody_is_faster_than_is_a_conflict(shelf, edited, do):
    def hurry(sender, **_):
        shelf.put(KEY, {"limit": 50})

    registry.pre_save.connect(hurry, sender=ShopConfig)
    try:
        with pytest.raises(registry.Conflict) as caught:
            do(ShopConfig.rollback, edited[0])
    finally:
        registry.pre_save.disconnect(hurry, sender=ShopConfig)
    assert (caught.value.theirs.limit, caught.value.mine.limit) == (50, 1)
    assert shelf.read(KEY) == {"limit": 50}


def test_a_revision_of_an_earlier_version_is_upgraded_when_it_comes_back(shelf, do):
    old = shelf.put("shop.Limits", {"minutes": 2})
    shelf.put("shop.Limits", {"$version": 2, "seconds": 5})
    assert do(Limits.rollback, old).seconds == 120
    assert shelf.read("shop.Limits") == {"$version": 2, "seconds": 120}


def test_as_of_gives_what_was_there_then(edited, do):
    one, two, gone, _ = ShopConfig.history()
    between = one.time + (two.time - one.time) / 2
    assert do(ShopConfig.as_of, between).limit == 1
    assert do(ShopConfig.as_of, two.time).limit == 2
    assert do(ShopConfig.as_of, gone.time).limit == 10
    assert do(ShopConfig.as_of, datetime.now(UTC) + timedelta(hours=1)).limit == 3
    assert do(ShopConfig.as_of, one.time - timedelta(days=1)).limit == 10  # nothing was stored yet
    naive = timezone.make_naive(datetime.now(UTC) + timedelta(hours=1))
    assert do(ShopConfig.as_of, naive).limit == 3


def test_as_of_takes_a_time_without_a_zone_for_one_of_django_s_and_nothing_else(edited, do, settings):
    settings.TIME_ZONE = "Pacific/Kiritimati"  # 14 hours before UTC
    one, two, *_ = ShopConfig.history()
    assert do(ShopConfig.as_of, timezone.make_naive(two.time)).limit == 2
    assert do(ShopConfig.as_of, timezone.make_naive(one.time)).limit == 1
    for wrong in (two.time.date(), two.time.isoformat(), two.time.timestamp(), None):
        with pytest.raises(TypeError, match="wants a datetime, not"):
            do(ShopConfig.as_of, wrong)
        with pytest.raises(TypeError, match="wants a datetime, not"):
            do(Carrier.as_of, "dhl", wrong)


def test_as_of_says_what_it_does_not_know(shelf, do):
    shelf.make(history=2)
    for limit in (1, 2, 3):
        shelf.put(KEY, {"limit": limit})
    with pytest.raises(ShopConfig.DoesNotExist, match="not kept"):
        do(ShopConfig.as_of, datetime.now(UTC) - timedelta(days=1))
    shelf.bucket.purge(KEY)
    with pytest.raises(ShopConfig.DoesNotExist, match="not kept"):
        do(ShopConfig.as_of, datetime.now(UTC) - timedelta(days=1))


def test_as_of_of_a_model_that_was_not_there(shelf, do):
    one = Carrier.objects.create(code="dhl", name="D")
    before = datetime.now(UTC) - timedelta(days=1)
    with pytest.raises(Carrier.DoesNotExist):
        do(Carrier.as_of, "dhl", before)
    assert do(Carrier.as_of, "dhl", datetime.now(UTC) + timedelta(hours=1)).name == "D"
    one.delete()
    with pytest.raises(Carrier.DoesNotExist):
        do(Carrier.as_of, "dhl", datetime.now(UTC) + timedelta(hours=1))
