"""The chapters in which the shop is at work: a cached page, a config that two people save, a flag that is flipped.

Owns what is shown of the cache and the registry. Knows nothing of how the shop is run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from django_natskv import registry
from example_project.shop.catalog import PRODUCTS
from example_project.shop.config import Carrier, Features, ShopConfig
from example_project.transcript import Transcript
from example_project.walk import workers
from example_project.walk.processes import PATIENCE, manage
from example_project.walk.workers import PAUSE, Answer, Worker

MADE_BY = r'data-made-by="(\d+)"'
OLD, NEW = 'data-checkout="old"', 'data-checkout="new"'
VISITORS = 1000


def at_work(transcript: Transcript) -> None:
    """Run the shop for the length of these chapters."""
    transcript.title("7. The shop, on three workers")
    done = manage(transcript, "natskv_bucket", "sync")
    transcript.check(done == 0, f"the command ends with exit status 0 (it was {done})")
    _stock()
    began = time.perf_counter()
    with workers.running(transcript) as staff:
        seconds = time.perf_counter() - began
        transcript.good(f"{', '.join(worker.name for worker in staff)}: they answered after {seconds:.1f} s.")
        a_cached_page(transcript, staff)
        a_config(transcript, staff)
        a_flag(transcript, staff)


def _stock() -> None:
    """Have the shop as it is declared, and two carriers."""
    Features.new_checkout.reset()
    ShopConfig.objects.update(lambda config: _set(config, banner="", free_shipping_from=50))
    for code, name, price in (("post", "Letter post", "3.90"), ("bike", "Bicycle courier", "6.50")):
        Carrier.objects.get_or_create(code=code, defaults={"name": name, "price": price})


def _set(config: ShopConfig, **values: object) -> None:
    for name, value in values.items():
        setattr(config, name, value)


def a_cached_page(transcript: Transcript, staff: Sequence[Worker]) -> None:
    """Ask for a page that is not cached, then for the one that is, of every worker."""
    transcript.title("8. A page in the cache")
    page, other = list(PRODUCTS)[:2]
    for worker in staff:
        worker.ask(f"/product/{other}/")  # it connects to the cache now, which is not what is measured
    transcript.run("from django.core.cache import cache")
    transcript.run(f"cache.delete({f'product.{page}'!r})")
    transcript.say(f"GET /product/{page}/")
    maker = 0
    for worker in (staff[0], *staff):
        answer = worker.ask(f"/product/{page}/")
        made_by = int(answer.find(MADE_BY))
        what = "hit" if maker else "miss"
        transcript.good(f"{what:<4}  {answer.seconds * 1000:6.2f} ms   {worker.name}, made by {made_by}")
        maker = maker or made_by
        transcript.check(made_by == maker == staff[0].pid, "the page is made once, by the worker that was asked first")


def a_config(transcript: Transcript, staff: Sequence[Worker]) -> None:
    """Lose the race for a config, merge, and see what the workers show."""
    transcript.title("9. A config that two people change")
    banner = f"Tea week, announced at {datetime.now(UTC):%H:%M:%S}"
    run = transcript.run
    run("from django_natskv import registry")
    run("from example_project.shop.config import Features, ShopConfig")
    run("theirs, mine = ShopConfig.objects.get(), ShopConfig.objects.get()")
    run("theirs.free_shipping_from = 40")
    run('theirs.save(actor="ben", comment="cheaper from today on")')
    run(f"mine.banner = {banner!r}")

    def save() -> float:
        began = time.perf_counter()
        transcript.names["conflict"] = run('mine.save(actor="ann", comment="promo")', raises=registry.Conflict)
        transcript.check(run("conflict.fields") == (), "nobody has changed what the other one has")
        run("merged = conflict.merge()")
        run('merged.save(actor="ann", comment="promo")')
        transcript.good(f"lost, merged and saved in {(time.perf_counter() - began) * 1000:.2f} ms")
        return ShopConfig.history()[-1].time.timestamp()

    delays = workers.seen(staff, lambda answer: banner in answer.text, save)
    values = run("(ShopConfig.current.banner, ShopConfig.current.free_shipping_from)")
    transcript.check(values == (banner, 40), "both changes are there")
    transcript.say("From that write until an answer with the new banner was here:")
    _tell(transcript, staff, delays)


def a_flag(transcript: Transcript, staff: Sequence[Worker]) -> None:
    """Give a flag to some, then to all, from the command line, and see which checkout the workers show."""
    transcript.title("10. A flag, from the command line")
    done = manage(transcript, "natskv_flag", "rollout", "new_checkout", "25", "--comment", "a quarter")
    transcript.check(done == 0, f"the command ends with exit status 0 (it was {done})")
    count = _quarter(transcript)
    transcript.check(VISITORS * 0.2 < count < VISITORS * 0.3, "a quarter of the visitors has the new checkout")
    transcript.say("Off for everyone, and on again while the workers are asked over and over:")
    transcript.run("Features.new_checkout.set(False)")
    workers.wait(staff, lambda answer: OLD in answer.text)

    def switch() -> float:
        done = manage(transcript, "natskv_flag", "on", "new_checkout", "--comment", "for everyone")
        transcript.check(done == 0, f"the command ends with exit status 0 (it was {done})")
        return Features.new_checkout.history()[-1].time.timestamp()

    delays = workers.seen(staff, _is_new, switch)
    transcript.say("From that write until a visitor was shown the new checkout:")
    _tell(transcript, staff, delays)


def _is_new(answer: Answer) -> bool:
    return NEW in answer.text


def _quarter(transcript: Transcript) -> int:
    """Return how many visitors have the new checkout, when this process has heard of the rollout."""
    revision = Features.new_checkout.history()[-1].revision
    until = time.monotonic() + PATIENCE
    while (Features.new_checkout.details(key="walk").revision or 0) < revision and time.monotonic() < until:
        time.sleep(PAUSE)
    began = time.perf_counter()
    count = transcript.run(f'sum(Features.new_checkout.on(key=f"visitor-{{n}}") for n in range({VISITORS}))')
    seconds = time.perf_counter() - began
    each = seconds / VISITORS
    transcript.good(f"{VISITORS} visitors in {seconds * 1000:.1f} ms: {each * 1e6:.1f} µs each, without a round trip")
    return int(count)


def _tell(transcript: Transcript, staff: Sequence[Worker], delays: Sequence[float]) -> None:
    for worker, delay in zip(staff, delays, strict=True):
        transcript.good(f"{delay * 1000:6.2f} ms   {worker.name}")
