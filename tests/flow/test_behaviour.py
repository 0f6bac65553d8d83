"""The behaviour topology on a simulated shop: exactly what the definitions give, whatever happens to the workers."""

import pytest
from behaving import (
    behaviour,
    booked,
    done,
    funnel_events,
    funnel_of,
    in_order,
    simulated,
    told,
    troubled,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.events import AbandonedCart, UserSession
from streams.simulator.behaviour_ledger import BehaviourLedger
from topologies.driver import Driver


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
