"""What a replay says beforehand of events that the log has no more, also where they were handed on."""

from collections.abc import Iterator, Mapping

import pytest
from behaving import PARTITIONS, behaviour, done, recommendations, simulated
from views_shop import T0, order, shop_settings

from streams.log import TP, Entry
from streams.topics import ORDER_EVENTS
from tables.renewal import read_progress
from topologies.derived_topics import PRODUCT_BASKETS, USER_SESSIONS
from topologies.driver import Driver, run
from topologies.recommendations import recommendations_topology
from topologies.replay.losses import Loss, find_losses

DAY = 86_400_000
SESSIONS, ORDERS, BASKETS = USER_SESSIONS.name, ORDER_EVENTS.name, PRODUCT_BASKETS.name


def losses(driver: Driver, firsts: Mapping[TP, int], ids: Mapping[str, str] | None = None) -> list[Loss]:
    """Of partitions whose logs begin there, and topics of these ids."""
    group = driver.topology.group
    present = {topic.name for topic in driver.topology.topics()}
    return run(find_losses(group, driver.log, firsts, run(read_progress(group, driver.log)), present, ids or {}))


@pytest.fixture
def recommending() -> Iterator[Driver]:
    """The recommendations of the simulated shop, of whose sources the cluster knows the ids."""
    with done(behaviour(), simulated()) as first, Driver(recommendations(), log=first.log) as driver:
        driver.topic_ids = {source.topic.name: "former" for source in driver.topology.group.sources}
        driver.restart()
        driver.flush()
        yield driver


def test_sessions_from_before_the_logs_beginning_may_be_in_any_cell_of_the_baskets(recommending: Driver) -> None:
    cells = len(recommending.readings("baskets_by_product"))
    firsts = {TP(SESSIONS, 0): 5, TP(SESSIONS, 1): 0}
    assert losses(recommending, firsts) == [Loss(SESSIONS, 0, 0, 5, cells, cells, to=BASKETS)]
    assert cells > 0


def test_a_topic_made_anew_loses_nothing_while_it_holds_as_many_events_as_the_tables_took(
    recommending: Driver,
) -> None:
    cells = len(recommending.readings("baskets_by_product"))
    log, firsts = recommending.log, {TP(SESSIONS, number): 0 for number in range(PARTITIONS)}
    held = {tp: log.records(tp) for tp in firsts}
    log.delete(SESSIONS)
    for tp, records in held.items():
        for record in records[:-1]:
            log.put(tp, Entry(record.key, record.value), record.timestamp)
    ids = {SESSIONS: "anew", ORDERS: "former"}
    assert losses(recommending, firsts, ids) == [
        Loss(SESSIONS, tp.partition, 0, 0, cells, cells, to=BASKETS, former=len(held[tp])) for tp in firsts
    ]
    for tp, records in held.items():
        log.put(tp, Entry(records[-1].key, records[-1].value), records[-1].timestamp)
    assert losses(recommending, firsts, ids) == []


def test_a_topic_made_anew_whose_own_first_events_are_gone_again_may_lose_however_many_came_since(
    recommending: Driver,
) -> None:
    cells = len(recommending.readings("baskets_by_product"))
    log, to = recommending.log, TP(SESSIONS, 0)
    held = log.records(to)
    log.delete(SESSIONS)
    for record in [*held, *held]:
        log.put(to, Entry(record.key, record.value), record.timestamp)
    ids = {SESSIONS: "anew", ORDERS: "former"}
    assert losses(recommending, {to: 0}, ids) == []
    assert losses(recommending, {to: 1}, ids) == [Loss(SESSIONS, 0, 0, 1, cells, cells, to=BASKETS, former=len(held))]


def test_what_is_handed_on_holds_nothing_from_before_where_no_event_from_before_can_be_so_late() -> None:
    with Driver(recommendations_topology(shop_settings(partitions=1))) as driver:
        for number, day in enumerate((0, 0, 2)):
            order(driver, T0 + day * DAY, orderId=number, items=[{"productId": f"p{number}"}])
        driver.flush()
        of_users, handed_on = losses(driver, {TP(ORDERS, 0): 1})
        assert (of_users.to, of_users.cells, of_users.kept) == (None, 1, 1)
        assert (handed_on.to, handed_on.cells, handed_on.kept) == (BASKETS, 2, 3)
        for day in (40, 41):
            order(driver, T0 + day * DAY, orderId=day, items=[{"productId": f"p{day}"}])
            driver.flush()
        assert losses(driver, {TP(ORDERS, 0): 2})[1].harmless


def test_of_a_source_that_is_only_handed_on_nothing_is_lost_while_nothing_came_of_it() -> None:
    with Driver(recommendations_topology(shop_settings(partitions=1))) as driver:
        driver.feed(SESSIONS, b"no session", "user-1")
        driver.flush()
        (loss,) = losses(driver, {TP(SESSIONS, 0): 1})
        assert (loss.to, loss.cells, loss.kept, loss.harmless) == (BASKETS, 0, 0, True)
