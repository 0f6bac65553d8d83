"""The behaviour topology on a simulated shop: exactly what the definitions give, whatever happens to the workers."""

from collections.abc import Callable
from functools import partial

import pytest
from behaving import (
    behaviour,
    booked,
    done,
    funnel_events,
    funnel_of,
    in_order,
    recommendations,
    simulated,
    told,
    troubled,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.activity import purchases
from streams.codecs import encode, user_key
from streams.events import AbandonedCart, Event, OrderEvent, OrderLine, UserActivity, UserSession, event_time_ms
from streams.simulator.behaviour_ledger import BehaviourLedger
from streams.topics import ORDER_EVENTS, USER_ACTIVITY
from tables.accumulators import STATES, encode_key
from tables.forwarding import writable
from topologies.driver import Driver
from topologies.settings import MAX_ALERT_ORDERS
from topologies.topology import Topology

# 2025-01-01T00:00:00Z
START_MS = 1_735_689_600_000


def check(driver: Driver, ledger: BehaviourLedger) -> None:
    """Everything that is derived is what the ledger says."""
    assert told(driver, "user-sessions", UserSession) == in_order(ledger.sessions())
    assert told(driver, "abandoned-carts", AbandonedCart) == in_order(ledger.carts())
    alerts = driver.latest("order-alerts").values()
    final = {alert["eventId"] for alert in alerts if alert.get("final", True)}
    assert final == {alert.event_id for alert in ledger.alerts()}
    assert {a["eventId"] for a in alerts} == {alert.event_id for alert in ledger.alerts(all_over=True)}
    assert funnel_events(driver) == funnel_of(ledger)


def test_the_simulated_shop_has_something_to_find() -> None:
    ledger = booked(simulated())
    assert len(ledger.sessions()) > 150
    assert len(ledger.carts()) > 20
    assert len(ledger.alerts()) > 3
    assert sum(source.late for sources in ledger.sources.values() for source in sources) > 20
    assert sum(source.duplicates for sources in ledger.sources.values() for source in sources) > 5


def test_sessions_carts_alerts_and_the_funnel_are_those_of_the_definitions() -> None:
    with done(behaviour(), simulated()) as driver:
        check(driver, booked(simulated()))
        for topic in ("user-sessions", "abandoned-carts"):
            keys = [record.key for record in driver.records(topic)]
            assert len(keys) == len(set(keys))


@pytest.mark.parametrize("batch", [3, 10_000])
def test_the_size_of_batches_does_not_show(batch: int) -> None:
    stream = simulated()[:1_500]
    with Driver(behaviour(), batch=batch) as driver:
        troubled(driver, stream, seed=batch, pieces=8)
        check(driver, booked(stream))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_derived_survives_crashes_torn_flushes_and_moves(workers: int) -> None:
    with Driver(behaviour()) as driver:
        troubled(driver, simulated(), seed=workers, workers=workers)
        check(driver, booked(simulated()))


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6), st.sampled_from([1, 2]), st.integers(0, 2_300))
def test_no_course_shows_in_what_is_derived(seed: int, workers: int, start: int) -> None:
    stream = simulated()[start : start + 700]
    with Driver(behaviour()) as driver:
        troubled(driver, stream, seed, workers, pieces=15)
        check(driver, booked(stream))


def test_a_replay_of_every_table_equals_the_live_run() -> None:
    names = ["activity_by_user", "cart_changes_by_user", "orders_by_user"]
    names += ["funnel_activity_by_category", "funnel_orders_by_category"]
    with Driver(behaviour()) as live, done(behaviour(), simulated()) as replay:
        troubled(live, simulated(), seed=9, workers=2)
        for name in names:
            digest = live.digest(name)
            assert digest == replay.digest(name)
            assert digest.cells > 10


def tell(driver: Driver, *events: Event) -> None:
    """Feed events of either topic, each at its own time."""
    for event in events:
        topic = ORDER_EVENTS if isinstance(event, OrderEvent) else USER_ACTIVITY
        driver.feed(topic.name, encode(event), user_key(event.user_id), timestamp_ms=event_time_ms(event, 0))


def end(driver: Driver, at: int, user: int | str = 2) -> None:
    """Let all that was due before that time be decided."""
    tell(driver, UserActivity("checkout.started", user, occurred_at=at), OrderEvent("end", user, 5, occurred_at=at))
    driver.flush()


@pytest.mark.parametrize("limit", [1, 50, 99, MAX_ALERT_ORDERS])
def test_more_orders_than_the_limit_raise_an_alert_however_many_come_at_once(limit: int) -> None:
    with Driver(behaviour(partitions=1, alert_orders=limit, alert_amount=10**12)) as driver:
        for n in range(3 * limit):
            tell(driver, OrderEvent(f"o{n}", 1, 5, occurred_at=START_MS + n * 1_000))
        end(driver, START_MS + 6_000_000)
        (alert,) = driver.latest("order-alerts").values()
        assert (alert["orderId"], alert["orders"], alert["final"]) == (f"o{limit}", limit + 1, True)


@pytest.mark.parametrize(("count", "truncated"), [(98, False), (99, True), (500, True)])
def test_where_orders_may_have_been_dropped_sessions_and_carts_say_so(count: int, truncated: bool) -> None:
    with Driver(behaviour(partitions=1)) as driver:
        tell(driver, UserActivity("product.viewed", 1, product_id="p", occurred_at=START_MS))
        for n in range(count):
            tell(driver, OrderEvent("o", 1, n, occurred_at=START_MS + n))
        tell(driver, UserActivity("cart.added", 1, product_id="p", occurred_at=START_MS + 1_000))
        tell(driver, OrderEvent("last", 1, 5, occurred_at=START_MS + 500))  # before the cart, in the same slice
        end(driver, START_MS + 6_000_000)
        told = [driver.values(name) for name in ("user-sessions", "abandoned-carts")]
        assert [[one["truncated"] for one in records] for records in told] == [[truncated], [truncated]]


def names(count: int, of: str) -> list[str]:
    """Ids of 256 characters that JSON writes with six bytes each, but for a number."""
    return [f"{of}{n:05}".rjust(256, "\x01") for n in range(count)]


def test_no_session_and_no_cart_is_too_large_to_be_written_whatever_is_in_it() -> None:
    (user,), (other,) = names(1, "u"), names(1, "v")
    with Driver(behaviour(partitions=1)) as driver:
        for n, product in enumerate(names(700, "a")):  # slices of either table keep 100
            tell(driver, UserActivity("product.viewed", user, product_id=product, occurred_at=START_MS + n * 6_000))
            tell(driver, UserActivity("cart.added", user, product_id=product, occurred_at=START_MS + n * 12_000))
        for n, order in enumerate(names(60, "o")):
            lines = tuple(OrderLine(product) for product in names(15 * n + 15, "p")[15 * n :])
            tell(driver, OrderEvent(order, user, 5, occurred_at=START_MS + n * 6_000, items=lines))
        end(driver, START_MS + 12_000_000, other)
        (session,) = driver.values("user-sessions")
        (cart,) = driver.values("abandoned-carts")
        sizes = [len(r.value or b"") for name in ("user-sessions", "abandoned-carts") for r in driver.records(name)]
    assert [len(session[name]) for name in ("bought", "orders")] == [100, 40]
    assert len(session["viewed"]) + len(session["carted"]) == 500
    assert len(cart["items"]) == 500
    assert session["truncated"]
    assert cart["truncated"]
    assert max(sizes) > 960_000


@pytest.mark.parametrize("make", [partial(behaviour, alert_orders=MAX_ALERT_ORDERS), recommendations])
def test_no_cell_of_a_users_purchases_is_too_large_to_be_written(make: Callable[[], Topology]) -> None:
    (table,) = (table for table in make().group.tables if table.name in ("orders_by_user", "bought_by_user"))
    cell, longest = table.row.new_cell(), "\U00010000" * 251
    for n in range(300):
        ids = [*(f"{longest}{p:05}" for p in range(3)), *(f"{p:020}" for p in range(99))]
        order = OrderEvent(f"{longest}{n:05}", 1, 2**52, items=tuple(map(OrderLine, ids)))
        ((_, purchase),) = purchases("KRW")(order, START_MS)
        cell[STATES] = table.row.aggregates["orders"].add(cell[STATES], purchase)
    key, value = encode_key(START_MS, "\U00010000" * 256), table.row.encode(cell, 0)
    assert writable(key, value).value == value


@pytest.mark.parametrize(
    ("event", "topic"),
    [
        (UserActivity("product.viewed", 1, product_id="p", occurred_at=0), "user-sessions"),
        (UserActivity("cart.added", 1, product_id="p", occurred_at=0), "abandoned-carts"),
        (OrderEvent("o", 1, 10**9, occurred_at=0), "order-alerts"),
    ],
)
def test_a_rule_decides_on_what_happened_at_time_zero(event: Event, topic: str) -> None:
    with Driver(behaviour(partitions=1)) as driver:
        tell(driver, event)
        driver.flush()
        driver.restart()
        end(driver, START_MS)
        assert [one["eventId"].split(":")[:2] for one in driver.latest(topic).values()] == [["1", "0"]]
