"""The shop of the example project: cached pages, a basket in the session, a checkout behind a flag on both faces."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import pytest
from django.core.cache import cache, caches
from django.test import AsyncClient, Client, override_settings

from django_natskv import connections
from django_natskv.kv import Bucket
from django_natskv.registry import rules
from django_natskv.testing import override_config, override_flag
from tests.fix_shop import Carrier, Features, ShopConfig, bucket, declared, orders, shop
from tests.fix_waiting import eventually

__all__ = ["bucket", "declared", "shop"]  # fixtures

# Django looks at database connections when a request begins and ends, if another test has left one.
pytestmark = pytest.mark.django_db


class Visitor:
    """Somebody with a browser, who uses either checkout."""

    def __init__(self, face: str = "sync") -> None:
        self.face = face
        self.client = Client()
        self.checkout = "/checkout/" if face == "sync" else "/async/checkout/"

    def get(self, path: str) -> Any:
        return self._ask("get", path, {})

    def post(self, path: str, **fields: Any) -> Any:
        return self._ask("post", path, fields)

    def text(self, path: str) -> str:
        return self.get(path).content.decode()

    def put(self, code: str, count: int) -> Any:
        return self.post("/basket/", code=code, count=count)

    def _ask(self, method: str, path: str, fields: dict[str, Any]) -> Any:
        if self.face == "sync":
            return getattr(self.client, method)(path, fields)
        client = AsyncClient()
        client.cookies = self.client.cookies
        return asyncio.run(getattr(client, method)(path, fields))


@pytest.fixture(params=["sync", "async"])
def visitor(request: pytest.FixtureRequest, shop: None) -> Visitor:
    return Visitor(request.param)


def the_order(bucket: Bucket) -> Any:
    [entry] = bucket.get_many(bucket.keys()).values()
    return entry.value


# --- pages ---


def test_the_teas_are_shown_with_banner_and_threshold_of_the_config(visitor: Visitor):
    assert 'id="banner"' not in visitor.text("/")
    with override_config(ShopConfig, everywhere=True, banner="<Tea week>", free_shipping_from=Decimal(45)):
        text = visitor.text("/")
    assert '<p id="banner">&lt;Tea week&gt;</p>' in text
    assert "from 45 €" in text
    assert text.count('href="/product/') == 6


def made_by_and_sold(text: str) -> tuple[str, str]:
    made = re.search(r'datetime="([^"]+)"', text)
    sold = re.search(r"Ordered (\d+) time", text)
    assert made
    assert sold
    return made[1], sold[1]


def test_a_product_is_made_once_and_again_when_it_was_ordered(bucket: Bucket, visitor: Visitor):
    bucket.put("order.1", {"items": {"assam": 2}})
    first = made_by_and_sold(visitor.text("/product/assam/"))
    assert first[1] == "2"
    bucket.put("order.2", {"items": {"assam": 5}})
    assert made_by_and_sold(visitor.text("/product/assam/")) == first
    visitor.put("assam", 3)
    assert visitor.post(visitor.checkout, name="Ann").status_code == 302
    made, sold = made_by_and_sold(visitor.text("/product/assam/"))
    assert made != first[0]
    assert sold == "10"


def test_what_is_cached_is_nobodys_own(shop: None):
    with override_config(ShopConfig, banner="before"):
        one = Client().get("/product/assam/").content.decode()
    with override_config(ShopConfig, banner="after"):
        other = Client().get("/product/assam/").content.decode()
    assert made_by_and_sold(one) == made_by_and_sold(other)
    assert ("before" in one, "before" in other, "after" in other) == (True, False, True)
    assert "csrfmiddlewaretoken" not in cache.get("product.assam")


@pytest.mark.parametrize("count", ["x", True, -3, 10**4_000, 1.5], ids=lambda count: str(count)[:5])
def test_an_order_counts_what_the_shop_can_have_sold(bucket: Bucket, count: Any):
    bucket.put("order.1", {"items": {"assam": count}})
    bucket.put("order.2", {"items": {"assam": 20}})
    assert made_by_and_sold(Client().get("/product/assam/").content.decode())[1] == "20"


@pytest.mark.parametrize("value", ["mine", None, {"items": 3}, []])
def test_any_order_can_be_counted(bucket: Bucket, value: Any):
    bucket.put("order.1", value)
    assert made_by_and_sold(Client().get("/product/assam/").content.decode())[1] == "0"


def test_what_another_program_wrote_closes_no_page(bucket: Bucket, visitor: Visitor):
    raw = connections["default"].kv().open_bucket(bucket.name, codec="bytes")
    raw.put("order.1", b'{"items": {"assam": 2}}')
    raw.put("order.2", b"not <JSON> \xff")
    raw.put("order.3", b'{"name": "\\ud800", "total": []}')
    raw.put("order.4", b"[" * 5_000 + b"]" * 5_000)
    assert made_by_and_sold(visitor.text("/product/assam/"))[1] == "2"
    for path in ("/thanks/order.2/", "/thanks/order.4/", "/orders/?key=order.2", "/orders/?key=order.4"):
        assert visitor.get(path).status_code == 200
    text = visitor.text("/orders/")
    assert ("&quot;assam&quot;: 2" in text, r"not &lt;JSON&gt; \xff" in text) == (True, True)
    assert r"Thank you, \ud800!" in visitor.text("/thanks/order.3/")


def test_what_can_be_read_and_is_too_deep_to_be_written_is_told():
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert orders.as_text(deep) == "It is nested too deeply to be shown."


def test_what_is_not_there_is_a_404(bucket: Bucket, visitor: Visitor):
    bucket.put("secret", {"name": "Eve"})
    for path in ("/product/coffee/", "/thanks/order.1/", "/thanks/secret/", "/thanks/order.a%20b/", "/thanks/order.*/"):
        assert visitor.get(path).status_code == 404


# --- the basket ---


def test_the_basket_is_in_the_session(visitor: Visitor):
    assert "It is empty" in visitor.text("/basket/")
    for code, count in (("assam", 2), ("sencha", 1)):
        assert visitor.put(code, count).status_code == 302
    text = visitor.text("/basket/")
    assert ("17.80 €" in text, "12.50 €" in text, "30.30 €" in text) == (True, True, True)
    assert "For 19.70 € more" in text
    assert "It is empty" in Visitor().text("/basket/")
    visitor.put("assam", 0)
    assert "Assam" not in visitor.text("/basket/")
    pages: Any = caches["default"]
    assert pages.keys("*") == []  # sessions are not among them


def test_nobody_chooses_the_key_of_their_session(visitor: Visitor):
    visitor.client.cookies["sessionid"] = "chosen".ljust(32, "x")
    assert visitor.put("assam", 1).status_code == 302
    assert visitor.client.cookies["sessionid"].value not in ("", "chosen".ljust(32, "x"))
    assert "Assam" in visitor.text("/basket/")


@pytest.mark.parametrize("fields", [{"code": "coffee", "count": 1}, {"code": "assam", "count": 21}, {"code": "assam"}])
def test_a_mistake_leaves_the_basket_as_it_was(visitor: Visitor, fields: dict[str, Any]):
    response = visitor.post("/basket/", **fields)
    assert response.status_code == 400
    assert 'role="alert"' in response.content.decode()
    assert "It is empty" in visitor.text("/basket/")


# --- the checkout ---


def test_an_order_is_placed_and_the_basket_is_empty(bucket: Bucket, visitor: Visitor):
    Carrier.objects.create(code="bike", name="Bicycle", price="6.50")
    visitor.put("assam", 2)
    assert "Bicycle, 6.50 €" in visitor.text(visitor.checkout)
    response = visitor.post(visitor.checkout, name="Ann", carrier="bike")
    assert response.status_code == 302
    order = {"items": {"assam": 2}, "name": "Ann", "carrier": "bike", "total": "24.30", "state": "new"}
    assert the_order(bucket) == order
    text = visitor.text(response.url)
    assert "Thank you, Ann!" in text
    assert "24.30 €" in text
    assert "basket is empty" in visitor.text(visitor.checkout)


@pytest.mark.parametrize(
    ("threshold", "carrier", "total"), [("8.90", "bike", "8.90"), ("8.91", "bike", "15.40"), ("8.91", "", "8.90")]
)
def test_sending_is_free_from_the_threshold_on(bucket: Bucket, threshold: str, carrier: str, total: str):
    Carrier.objects.create(code="bike", name="Bicycle", price="6.50")
    client = Client()
    client.post("/basket/", {"code": "assam", "count": 1})
    with override_config(ShopConfig, free_shipping_from=Decimal(threshold)):
        client.post("/checkout/", {"name": "Ann", "carrier": carrier})
    assert the_order(bucket)["total"] == total


def test_a_carrier_that_is_not_active_carries_nothing(bucket: Bucket, visitor: Visitor):
    Carrier.objects.create(code="dhl", name="Strikes", price="6.50", active=False)
    visitor.put("assam", 1)
    assert "Strikes" not in visitor.text(visitor.checkout)
    assert visitor.post(visitor.checkout, name="Ann", carrier="dhl").status_code == 400
    assert bucket.keys() == []


def test_a_mistake_in_the_form_is_said_and_orders_nothing(bucket: Bucket, visitor: Visitor):
    visitor.put("assam", 1)
    response = visitor.post(visitor.checkout, name="", carrier="")
    assert response.status_code == 400
    assert "This field is required" in response.content.decode()
    assert bucket.keys() == []


def test_nothing_is_ordered_out_of_an_empty_basket(bucket: Bucket, visitor: Visitor):
    visitor.post(visitor.checkout, name="Ann")
    assert bucket.keys() == []


def test_the_flag_says_which_checkout_it_is(bucket: Bucket, visitor: Visitor):
    visitor.put("assam", 1)
    for on, shown, field in ((False, "old", "<select"), (True, "new", 'type="radio"')):
        with override_flag(Features.new_checkout, on, everywhere=True):
            text = visitor.text(visitor.checkout)
            assert f'data-checkout="{shown}"' in text
            assert field in text
            assert ("on one page" in visitor.text("/basket/")) is on


def test_a_percentage_gives_a_visitor_the_same_checkout_each_time(bucket: Bucket, visitor: Visitor):
    Features.new_checkout.set(True, when=rules.percentage(50))
    eventually(lambda: "SPLIT" in Visitor().text("/checkout/"))
    answers = {re.findall('data-checkout="(old|new)"', visitor.text(visitor.checkout))[0] for _ in range(8)}
    assert len(answers) == 1
    assert "natskv_visitor" in visitor.client.cookies


async def plan(_: Any) -> dict[str, str]:
    return {"plan": "pro"}


def test_a_view_waits_for_what_a_rule_asks_for(bucket: Bucket, visitor: Visitor, settings: Any):
    settings.NATSKV_FLAGS = {"CONTEXT": f"{__name__}.plan"}
    Features.new_checkout.set(True, when=rules.attribute("plan") == "pro")
    assert 'data-checkout="new"' in visitor.text(visitor.checkout)


def test_a_missing_bucket_of_orders_is_told_and_the_basket_kept(visitor: Visitor, bucket_name: str):
    visitor.put("assam", 1)
    response = visitor.post(visitor.checkout, name="Ann")
    assert response.status_code == 503
    assert f"natskv_bucket create {bucket_name} --history 8" in response.content.decode()
    assert "Assam" in visitor.text("/basket/")


@pytest.mark.parametrize("path", ["/basket/", "/checkout/", "/async/checkout/"])
def test_nobody_buys_from_another_site(bucket: Bucket, path: str):
    assert Client(enforce_csrf_checks=True).post(path, {"name": "Eve"}).status_code == 403


def test_without_the_server_the_shop_opens_as_it_is_declared(shop: None):
    with override_settings(NATSKV={"default": {"SERVERS": ["nats://127.0.0.1:1"]}}):
        response = Client().get("/")
        assert (response.status_code, "from 50 €" in response.content.decode()) == (200, True)
        response = Client().get("/product/assam/")
        assert (response.status_code, "Ordered" in response.content.decode()) == (200, False)
        response = Client().get("/orders/")
        assert (response.status_code, "The server does not answer" in response.content.decode()) == (503, True)


def test_an_outage_takes_nobody_their_basket(visitor: Visitor):
    visitor.put("assam", 2)
    cookie = visitor.client.cookies["sessionid"].value
    with override_settings(NATSKV={"default": {"SERVERS": ["nats://127.0.0.1:1"]}}):
        for response in (visitor.get("/basket/"), visitor.put("sencha", 1), visitor.get(visitor.checkout)):
            assert (response.status_code, "The server does not answer" in response.content.decode()) == (503, True)
        assert Visitor(visitor.face).put("assam", 1).status_code == 503  # who has no session yet
    assert visitor.client.cookies["sessionid"].value == cookie
    text = visitor.text("/basket/")
    assert ("Assam" in text, "Sencha" in text) == (True, False)


# --- for everyone ---


class Page(HTMLParser):
    """What a page asks people to fill in, what it says of that, and where it fetches from."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.language = ""
        self.fields: list[str] = []
        self.labels: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = {name: value or "" for name, value in attrs}
        if tag == "html":
            self.language = about.get("lang", "")
        if tag in ("input", "select", "textarea") and about.get("type") not in ("hidden", "radio"):
            self.fields.append(about["id"])
        if tag == "label":
            self.labels.append(about.get("for", ""))
        if tag in ("link", "script", "img"):
            self.fetched.append(about.get("href") or about.get("src", ""))


@pytest.mark.parametrize("on", [False, True], ids=["old", "new"])
def test_every_page_can_be_read_aloud_and_fetches_nothing_from_elsewhere(bucket: Bucket, on: bool):
    visitor = Visitor()
    visitor.put("assam", 1)
    bucket.put("order.1", {"name": "Ann"})
    with override_flag(Features.new_checkout, on):
        for path in ("/", "/product/assam/", "/basket/", "/checkout/", "/orders/", "/thanks/order.1/"):
            page = Page(visitor.text(path))
            assert page.language == "en"
            assert set(page.fields) <= set(page.labels)
            assert [found for found in page.fetched if not found.startswith(("/static/", "data:"))] == []
