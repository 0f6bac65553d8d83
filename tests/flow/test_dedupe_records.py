"""A topic that dedupes by records: a repeat within the window counts once, also after restarts."""

from collections.abc import Iterator

import pytest
from shop import Sale

from streams.intake import EventTime
from streams.topics import Topic
from tables.aggregates import Count
from tables.table import Table
from topologies.driver import Driver
from topologies.topology import Topology

WINDOW = 20
HANDED = Topic("handed", Sale, partitions=1, dedupe_records=WINDOW)
DAY = 86_400_000


def counting() -> Topology:
    topology = Topology("counting").source(HANDED, time=EventTime(60_000, 10 * DAY, max_ahead_ms=100 * DAY))
    topology.add(HANDED, Table("count", {"events": Count()}, lambda sale: [("all", 1)], retention_s=20 * 86_400))
    return topology


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Driver(counting()) as driver:
        yield driver


def hand(driver: Driver, event_id: str, at_ms: int = 0) -> None:
    driver.feed("handed", {"userId": 1, "amount": 1, "occurredAt": at_ms, "eventId": event_id}, partition=0)


def events(driver: Driver) -> int:
    driver.flush()
    return sum(row["events"] for row in driver.rows("count").values())


def test_a_repeat_counts_once_however_far_event_time_has_leapt(driver: Driver) -> None:
    hand(driver, "a")
    hand(driver, "b", 9 * DAY)
    hand(driver, "a")
    assert events(driver) == 2


def test_a_repeat_beyond_the_window_counts_again(driver: Driver) -> None:
    hand(driver, "a")
    for number in range(WINDOW):
        hand(driver, f"other-{number}")
    hand(driver, "a")
    assert events(driver) == WINDOW + 2


@pytest.mark.parametrize("wipe", [False, True])
@pytest.mark.parametrize("between", range(WINDOW - 2, WINDOW + 2))
def test_a_restart_knows_exactly_the_ids_that_the_first_life_would(driver: Driver, between: int, wipe: bool) -> None:
    hand(driver, "a")
    for number in range(between):
        hand(driver, f"other-{number}", number * DAY // 10)
        if number % 7 == 3:
            driver.flush()
    driver.flush()
    driver.restart(wipe=wipe)
    hand(driver, "a")
    with Driver(counting()) as steady:
        for name in ["a", *[f"other-{number}" for number in range(between)], "a"]:
            hand(steady, name)
        assert events(driver) == events(steady)


@pytest.mark.parametrize("wipe", [False, True])
def test_ids_since_the_last_flush_are_learned_again(driver: Driver, wipe: bool) -> None:
    hand(driver, "a")
    driver.flush()
    hand(driver, "b")
    driver.deliver()
    driver.restart(wipe=wipe)
    hand(driver, "b")
    hand(driver, "a")
    assert events(driver) == 2


def test_a_worker_that_was_away_for_long_reads_back_no_more_than_what_counts(driver: Driver) -> None:
    here, there = driver.worker, driver.add_worker("w1")
    hand(driver, "a")
    driver.flush()
    there.assign([0], 1)
    for number in range(10 * WINDOW):
        hand(driver, f"other-{number}")
        there.deliver()
    there.flush()
    there.crash()
    here.assign([0], 2)
    seen = here.engine.partitions[0].feeds["handed"].intake.seen
    assert seen is not None
    assert len(seen) < 3 * WINDOW
    hand(driver, f"other-{9 * WINDOW}")
    hand(driver, "a")
    assert events(driver) == 10 * WINDOW + 2
