"""The dashboard in Chromium, on a running demo: right numbers, moving by themselves, for everybody, and light."""

import re
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from msgspec.json import decode, encode
from running import HOUR_MS, Running, shown, wait_until

from streams.simulator.ledger import Cell
from streams.topics import ensure_topics
from topologies.demo.client import Client
from topologies.names import free_port
from topologies.sales import sales_topology
from topologies.views.patches import patch

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the extra `browser`")
NewPage = Callable[..., Any]
MINUTE_MS = 60_000
NONE = "\N{EN DASH}"


def number(text: str) -> int:
    """What a reader takes from a formatted amount or count."""
    return int(re.sub(r"[^0-9-]", "", text.replace("\N{MINUS SIGN}", "-")))


def net(cell: Cell) -> int:
    return cell.placed - cell.cancelled - cell.refunded


def table(page: Any, card: str) -> dict[str, list[str]]:
    """The texts of a card's table, by the rows' keys."""
    rows: list[tuple[str, list[str]]] = page.evaluate(
        """card => [...document.querySelectorAll(`#${card} tbody tr`)].map(
            row => [row.dataset.key, [...row.cells].map(cell => cell.textContent)])""",
        card,
    )
    return dict(rows)


def figures(page: Any) -> tuple[int, int, int]:
    revenue, orders, customers = (number(page.inner_text(f"#{name}")) for name in ("revenue", "orders", "customers"))
    return revenue, orders, customers


def rate(page: Any) -> int:
    text = page.inner_text("#operations-rate")
    return 0 if text == NONE else number(text)


def test_numbers_on_the_page_are_those_of_the_api_and_of_the_ledger(page: Any, shop: Running) -> None:
    total = shop.client.get("/api/sales/top", by="total", window="1h")
    row, start, end = total["rows"][0], total["startMs"], total["endMs"]
    exact = shop.sold("total", "total", start, end)
    assert end - start == HOUR_MS
    assert figures(page)[:2] == (row["net"], row["orders"]) == (net(exact), exact.orders)
    assert figures(page)[2] == row["customers"]
    assert abs(row["customers"] - len(exact.customers)) <= 0.07 * len(exact.customers)
    for by in ("category", "region", "product"):
        answered = {one["key"]: one for one in shop.client.get("/api/sales/top", by=by, window="1h", n=10)["rows"]}
        found = table(page, by)
        assert list(found) == list(answered)
        for key, (_, _, revenue, orders) in found.items():
            cell = shop.sold(by, key, start, end)
            assert (number(revenue), number(orders)) == (net(cell), cell.orders)
            assert (number(revenue), number(orders)) == (answered[key]["net"], answered[key]["orders"])


def test_the_charts_table_has_every_minute_as_the_ledger_has_it(page: Any, shop: Running) -> None:
    page.click("#minutes summary")
    wait_until(lambda: "yesterday" in page.inner_text("#minutes .legend"), "yesterday is behind it", 20)
    found = table(page, "minutes")
    assert len(found) == 60
    compared = 0
    for start, (_, value, before) in found.items():
        for text, at in ((value, int(start)), (before, int(start) - 24 * HOUR_MS)):
            if text != NONE:
                assert number(text) == net(shop.sold("total", "total", at, at + MINUTE_MS))
                compared += 1
    assert compared > 100  # yesterday is there, too


def test_what_else_is_shown_is_what_the_api_says(page: Any, shop: Running) -> None:
    steps = shop.client.get("/api/funnel", hours=24)["total"]
    assert {key: number(cells[2]) for key, cells in table(page, "funnel").items()} == {
        step["step"]: step["users"] for step in steps
    }
    for card, path in (("alerts", "/api/alerts"), ("carts", "/api/carts/abandoned")):
        rows = shop.client.get(path, n=6)["rows"]
        assert len(rows) > 0
        assert [cells[0] for cells in table(page, card).values()] == [f"Customer {row['userId']}" for row in rows]
    for card, kind in (("trendingProducts", "products"), ("trendingSearches", "searches")):
        rows = shop.client.get("/api/trending", kind=kind, n=8)["rows"]
        assert list(table(page, card)) == [row["key"] for row in rows]


def test_recommendations_are_shown_with_their_reasons_for_whom_one_chooses(page: Any, shop: Running) -> None:
    best = next(iter(table(page, "product")))
    # neighbours are published beside the events, and come by themselves
    wait_until(lambda: f"With Product {best}" in page.inner_text("#recommended"), "the best seller's neighbours")
    user = shop.client.get("/api/carts/abandoned", n=1)["rows"][0]["userId"]
    page.click(f"#carts >> text=Customer {user}")
    wait_until(lambda: f"For customer {user}" in page.inner_text("#recommended"), "the customer's recommendations")

    def answered() -> list[str]:
        return [row["productId"] for row in shop.client.get(f"/api/recommendations/users/{user}", n=8)["rows"]]

    # neighbours still come, and change both
    wait_until(lambda: list(table(page, "recommended")) == answered(), "the page says what the API does")
    found = table(page, "recommended")
    assert any("which the customer" in cells[2] for cells in found.values())
    page.select_option("#for-kind", "product")
    page.fill("#for-id", "no such product")
    page.keyboard.press("Enter")
    wait_until(lambda: "was in no session" in page.inner_text("#recommended"), "says that nothing is known")


def test_the_page_makes_of_patches_what_the_server_has_made_them_of(page: Any) -> None:
    random = Random(7)
    before = document(random)
    for _ in range(300):
        after = document(random)
        changes = f"[{patch(encode(before), encode(after)).decode()}]"
        made = page.evaluate(
            """async ([before, changes]) => {
                const { patched } = await import(document.querySelector('link[href$="live.js"]').href);
                return JSON.stringify(patched(JSON.parse(before), JSON.parse(changes)));
            }""",
            [encode(before).decode(), changes],
        )
        assert decode(made) == after
        before = after


def document(random: Random) -> dict[str, Any]:
    """Rows that come, go, move and change, with names that have to be escaped."""
    keys = random.sample(["a", "b/c", "~d", "", "__proto__", "é", "7"], random.randint(0, 7))
    rows: list[dict[str, Any]] = [
        {"key": key, "value": random.randint(0, 3), "more": random.choice([None, [], {"": 1}])} for key in keys
    ]
    values = [1, [1, 2], {"x": {"y": random.randint(0, 2)}}]
    cells = {key: random.choice(values) for key in keys if random.random() < 0.7}
    return {"rows": rows, "cells": cells, "list": list(range(random.randint(0, 4)))}


def test_numbers_move_without_reload(page: Any, shop: Running) -> None:
    page.evaluate("window.here = true")
    before = figures(page)
    shop.begin(80)
    seen = set()

    def moved() -> bool:
        seen.add(page.inner_text("#revenue"))
        return len(seen) > 5

    wait_until(moved, "numbers move", 30)
    shop.pause()
    total = shop.client.get("/api/sales/top", by="total", window="1h")
    row = total["rows"][0]
    wait_until(lambda: figures(page)[:2] == (row["net"], row["orders"]), "the last number", 10)
    exact = shop.sold("total", "total", total["startMs"], total["endMs"])
    assert figures(page)[:2] == (net(exact), exact.orders) != before[:2]
    assert page.evaluate("window.here") is True


def test_a_killed_view_server_is_shown_and_recovered_from(page: Any, shop: Running) -> None:
    page.evaluate("window.here = true")
    shop.kill_views()
    page.wait_for_selector('body[data-state="disconnected"]', timeout=5_000)
    assert "Disconnected" in page.inner_text("#state-text")
    wait_until(lambda: "connection is lost" in page.inner_text("#said"), "told to those who do not see it", 5)
    shop.start_views("analytics", "behaviour", "recommendations")
    page.wait_for_selector('body[data-state="live"]', timeout=30_000)
    shop.begin(80)
    before = figures(page)
    wait_until(lambda: figures(page) != before, "numbers move again", 30)
    shop.pause()
    row = shop.client.get("/api/sales/top", by="total", window="1h")["rows"][0]
    wait_until(lambda: figures(page)[:2] == (row["net"], row["orders"]), "the last number", 10)
    assert page.evaluate("window.here") is True


def test_a_page_that_is_opened_while_nobody_serves_shows_up_by_itself(page: Any, shop: Running) -> None:
    shop.kill_views()
    page.wait_for_selector('body[data-state="disconnected"]', timeout=5_000)
    page.evaluate("window.dispatchEvent(new Event('online'))")
    page.wait_for_timeout(1_500)
    assert page.inner_text("#state-text").startswith("Disconnected")
    shop.start_views("analytics", "behaviour", "recommendations")
    page.wait_for_selector('body[data-state="live"]', timeout=30_000)


def test_numbers_that_nobody_brings_up_to_date_are_called_stale(page: Any, shop: Running) -> None:
    shop.begin(80)
    try:
        with shop.stopped_workers():
            page.wait_for_selector('body[data-state="stale"]', timeout=15_000)
            assert "Stale. Numbers are" in page.inner_text("#state-text")
        page.wait_for_selector('body[data-state="live"]', timeout=60_000)
    finally:
        shop.pause()


def test_operators_see_who_owns_what_and_how_far_it_is(page: Any, shop: Running) -> None:
    page.click("nav >> text=Operations")
    page.wait_for_selector("#partitions tbody tr")
    said = shop.client.get("/api/operations")
    assert {one["state"] for one in said["topologies"]} == {"stable"}
    assert all(one["owner"] and one["lag"] == 0 for topology in said["topologies"] for one in topology["partitions"])
    wait_until(lambda: number(page.inner_text("#operations-workers")) == 3, "three workers", 10)
    rows = table(page, "partitions")
    assert len(rows) == sum(len(topology["partitions"]) for topology in said["topologies"])
    late = sum(source.late for source in shop.ledger.sources)
    orders = shop.demo.settings.prefix + "order-events"
    assert late > 0
    # each topology that reads the orders puts them aside itself
    assert number(table(page, "letters")[orders][1]) == 3 * late
    shop.begin(80)
    wait_until(lambda: rate(page) > 10, "throughput", 30)
    shop.pause()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_no_violation(new_page: NewPage, shop: Running, scheme: str, width: int) -> None:
    page = shown(new_page(shop.url, color_scheme=scheme, viewport={"width": width, "height": 900}))
    page.click("#minutes summary")
    for tab in ("Shop", "Operations"):
        page.click(f"nav >> text={tab}")
        page.wait_for_selector(f"#{tab.lower()}-tab tbody tr")
        page.wait_for_timeout(500)
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [390, 800, 1120, 1280, 1920])
def test_nothing_stands_over_the_edge_of_its_card(new_page: NewPage, shop: Running, width: int) -> None:
    page = shown(new_page(shop.url, viewport={"width": width, "height": 900}))
    for card in ("alerts", "carts", "recommended", "funnel"):
        page.wait_for_selector(f"#{card} tbody tr")
    wide = "[...document.querySelectorAll('.card, .card .body')].filter(one => one.scrollWidth > one.clientWidth)"
    assert page.evaluate(f"{wide}.map(one => one.closest('.card').id)") == []


def test_everything_is_reached_by_keyboard(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the numbers"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.get_attribute("nav a[data-tab=operations]", "aria-current") == "page"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "theme"
    was = page.evaluate("document.documentElement.dataset.theme")
    page.keyboard.press("Enter")
    assert {was, page.evaluate("document.documentElement.dataset.theme")} == {"light", "dark"}
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") != was


def test_first_paint_and_weight(new_page: NewPage, shop: Running) -> None:
    paints = []
    for _ in range(5):
        page = new_page("about:blank")
        page.goto(shop.url)
        shown(page)
        paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        if len(paints) < 5:
            page.close()
    loaded = page.evaluate(
        """[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
            .filter(one => !one.name.includes('/api')).map(one => [one.name, one.transferSize, one.decodedBodySize])"""
    )
    sent, plain = (sum(one[n] for one in loaded) for n in (1, 2))
    paints.sort()
    print(f"\nfirst paint after {paints[2]:.0f} ms (median of 5; {paints[0]:.0f} to {paints[-1]:.0f})")
    print(f"page weight {sent:,} bytes in {len(loaded)} files, {plain:,} uncompressed")
    assert paints[2] < 1_000
    assert sent < 60_000
    assert all(one[0].startswith(shop.url) for one in loaded)


def test_a_second_visit_loads_nothing_but_the_page(new_page: NewPage, shop: Running) -> None:
    page = shown(new_page(shop.url))
    page.reload()
    shown(page)
    again = page.evaluate(
        """performance.getEntriesByType('resource').filter(
            one => one.name.includes('/page/') && one.transferSize > 0).length"""
    )
    assert again == 0


def test_a_token_is_asked_for_once(new_page: NewPage, shop: Running) -> None:
    port = free_port()
    url = shop.start_views("analytics", port=port, environment={"MILLRACE_READ_TOKEN": "very-secret"})
    page = new_page(url)
    page.wait_for_selector("#ask:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "token"
    page.keyboard.type("wrong-token")
    page.keyboard.press("Enter")
    wait_until(lambda: "does not take" in page.inner_text("#token-said"), "the token is wrong", 10)
    page.fill("#token", "very-secret")
    page.keyboard.press("Enter")
    shown(page)
    assert not page.is_visible("#ask")
    total = Client(url, "very-secret").get("/api/sales/top", by="total", window="1h")["rows"][0]
    assert figures(page)[:2] == (total["net"], total["orders"])
    page.reload()
    shown(page)
    assert "very-secret" not in page.url
    # what this server does not have is not shown
    assert page.query_selector("#funnel") is None
    assert page.query_selector("#category") is not None


def test_a_shop_without_orders_says_so(new_page: NewPage, shop: Running) -> None:
    settings = replace(shop.demo.settings, prefix=f"{shop.demo.settings.prefix}empty-")
    ensure_topics(settings.cluster, sales_topology(settings).topics())
    url = shop.start_views("analytics", port=free_port(), environment={"MILLRACE_PREFIX": settings.prefix})
    page = new_page(url)
    wait_until(lambda: "No orders yet" in page.inner_text("#shop-tab"), "says that there is nothing", 20)
