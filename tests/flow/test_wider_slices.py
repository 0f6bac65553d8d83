"""Tables with slices of their own: wider than their source's, closed when all of those in them are; timed folds."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from shop import FINALS, HOUR_S, MINUTE, SALES, SECOND, Sale, sell
from test_replay import COURSES, HAPPENINGS, Course, Happening, outcome, stream_of
from views_shop import follow, open_model

from streams.intake import EventTime
from streams.topics import Topic
from tables.aggregates import Count, Max, Sum
from tables.table import Table
from tables.windows import Window
from topologies.driver import Driver
from topologies.topology import Topology
from topologies.views import newest_window
from topologies.views.queries import describe, newest_end

TEN = 600
CHECKED = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def amount(sale: Sale) -> list[tuple[Any, ...]]:
    return [("all", sale.amount)]


def last(sale: Sale, at: int) -> list[tuple[Any, ...]]:
    return [("all", at)]


def wide(slice_s: int = TEN, retention_s: int = 2 * HOUR_S) -> Topology:
    """Takings by minute and by ten minutes, side by side."""
    topology = Topology("shop").source(SALES, time=EventTime(MINUTE, MINUTE))
    topology.add(SALES, Table("by_minute", {"amount": Sum()}, amount, retention_s))
    topology.add(SALES, Table("takings", {"amount": Sum()}, amount, retention_s, FINALS, slice_s=slice_s))
    topology.add(SALES, Table("last", {"at": Max()}, last, retention_s, slice_s=slice_s, timed=True))
    return topology


def sell_everywhere(driver: Driver, amount: int, at_s: float) -> None:
    for partition in (0, 1):
        sell(driver, amount, at_s, partition=partition)


@pytest.mark.parametrize("slice_s", [0, -60, 90, 61])
def test_slices_that_are_no_multiple_of_the_sources_are_refused(slice_s: int) -> None:
    with pytest.raises(ValueError, match="multiple"):
        wide(slice_s)


def test_retention_shorter_than_a_wide_slice_and_its_grace_is_refused() -> None:
    with pytest.raises(ValueError, match="retention"):
        wide(HOUR_S, HOUR_S)


def test_a_wide_slice_holds_what_its_source_slices_hold() -> None:
    with Driver(wide()) as driver:
        for at_s, money in ((1, 1), (599, 2), (600, 4), (650, 8), (1_300, 16)):
            sell(driver, money, at_s)
        driver.flush()
        rows = {at: row["amount"] for (at, _), row in driver.rows("takings").items()}
        assert rows == {0: 3, 600 * SECOND: 12, 1_200 * SECOND: 16}


def test_lateness_is_decided_by_the_sources_slice_alone() -> None:
    with Driver(wide()) as driver:
        sell(driver, 1, 10)
        sell(driver, 2, 300)
        sell(driver, 4, 20)  # its minute is closed, its ten minutes are not
        sell(driver, 8, 200)
        driver.flush()
        assert driver.rows("takings")[0, "all"]["amount"] == 3
        assert len(driver.records("sales.late")) == 2


def test_a_wide_slice_is_final_only_when_all_source_slices_in_it_are_closed() -> None:
    with Driver(wide()) as driver:
        sell_everywhere(driver, 1, 10)
        sell_everywhere(driver, 1, 659)
        driver.flush()
        assert driver.latest("sales-final") == {}
        sell_everywhere(driver, 1, 660)
        driver.flush()
        (final,) = driver.latest("sales-final").values()
        assert (final["windowStart"], final["windowEnd"], final["amount"], final["final"]) == (0, 600_000, 2, True)


def test_a_wide_slice_is_dropped_retention_after_its_end_and_not_before() -> None:
    with Driver(wide()) as driver:
        sell(driver, 1, 30)
        for at_s in (2 * HOUR_S + 599, 2 * HOUR_S + 599):
            sell(driver, 1, at_s)
            driver.flush()
        assert (0, "all") in driver.rows("takings")
        for at_s in (2 * HOUR_S + 600, 2 * HOUR_S + 601):
            sell(driver, 1, at_s)
            driver.flush()
        assert (0, "all") not in driver.rows("takings")


def test_a_read_model_merges_and_closes_wide_slices(tmp_path: Path) -> None:
    with Driver(wide()) as driver:
        model = open_model(driver.topology, tmp_path)
        for at_s in (10, 700, 1_900):
            sell_everywhere(driver, 5, at_s)
        driver.flush()
        follow(model, driver)
        assert model.slice_ms("takings") == TEN * SECOND
        assert model.closed_before("takings") == 1_800 * SECOND
        assert model.closed_before("by_minute") == 1_800 * SECOND
        assert model.bounds("takings") == Window(0, 2_400 * SECOND)
        assert model.results("takings", Window(0, 1_200 * SECOND)) == {"all": {"amount": 20}}
        assert newest_end(model, "takings") == 2_400 * SECOND
        assert newest_window(model, "takings", "20m") == Window(1_200 * SECOND, 2_400 * SECOND)
        assert describe(model, "takings")["slice_s"] == TEN
        sell_everywhere(driver, 5, 2_459)
        driver.flush()
        follow(model, driver)
        assert (model.closed_before("takings"), model.closed_before("by_minute")) == (1_800_000, 2_340_000)
        model.close()


@CHECKED
@given(happenings=HAPPENINGS, course=COURSES)
def test_no_course_shows_in_wide_slices(happenings: list[Happening], course: Course) -> None:
    stream = stream_of(happenings)
    once = outcome(wide(), SALES.name, FINALS.name, stream, Course(batch=100_000))
    assert outcome(wide(), SALES.name, FINALS.name, stream, course) == once


@CHECKED
@given(happenings=HAPPENINGS, course=COURSES)
def test_wide_slices_are_the_sums_of_their_source_slices(happenings: list[Happening], course: Course) -> None:
    with Driver(wide(retention_s=24 * HOUR_S), batch=course.batch) as driver:
        for sent in stream_of(happenings):
            driver.feed(SALES.name, sent.value, partition=sent.partition, timestamp_ms=sent.timestamp)
            if course.flushes > 0.1:
                driver.flush()
        driver.flush()
        sums: Counter[int] = Counter()
        for (at, _), row in driver.rows("by_minute").items():
            sums[at - at % (TEN * SECOND)] += row["amount"]
        assert {at: row["amount"] for (at, _), row in driver.rows("takings").items()} == sums


class Note(msgspec.Struct, frozen=True, rename="camel"):
    """Something that may carry a time."""

    occurred_at: int | None = None


NOTES = Topic("notes", Note, partitions=1)


def test_a_timed_fold_is_given_the_events_time_or_else_its_records() -> None:
    topology = Topology("notes")
    seen = []

    @topology.table(NOTES, timed=True, slice_s=TEN, count=Count())
    def notes(note: Note, at: int) -> list[tuple[str, int]]:
        seen.append((note.occurred_at, at))
        return [("all", 1)]

    with Driver(topology) as driver:
        driver.feed("notes", {"occurredAt": 5}, timestamp_ms=7_000)
        driver.feed("notes", {"occurredAt": 6}, timestamp_ms=7_000)
        driver.feed("notes", {}, timestamp_ms=8_000)
        driver.flush()
        assert driver.rows("notes") == {(0, "all"): {"count": 3}}
    assert set(seen) == {(5, 5), (6, 6), (None, 8_000)}


def test_a_poisoned_event_among_timed_ones_goes_alone() -> None:
    topology = Topology("notes")

    @topology.table(NOTES, timed=True, at=Max())
    def notes(note: Note, at: int) -> list[tuple[str, int]]:
        if at == 6:
            raise ValueError("six")
        return [("all", at)]

    with Driver(topology) as driver:
        for at in (5, 6, 7):
            driver.feed("notes", {"occurredAt": at}, timestamp_ms=7_000)
        driver.flush()
        assert driver.rows("notes") == {(0, "all"): {"at": 7}}
        assert len(driver.records("notes.dead-letters")) == 1
