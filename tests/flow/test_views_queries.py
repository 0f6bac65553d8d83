"""Questions to a read model, and how fresh their answers are."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from views_shop import HOUR, MINUTE, ORDERS, T0, follow, line, look, open_model, order, sales

from tables.read_model import ReadModel
from tables.windows import Hopping, Tumbling, Window
from topologies.driver import Driver
from topologies.views import queries
from topologies.views.freshness import Source, Tracker
from topologies.views.problems import BadParameter
from topologies.views.queries import Question

TOTAL = "sales_by_total"
M1, M5 = Tumbling(MINUTE), Tumbling(5 * MINUTE)


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Driver(sales(partitions=2, retention_s=7200.0)) as driver:
        yield driver


@pytest.fixture
def model(driver: Driver, tmp_path: Path) -> Iterator[ReadModel]:
    model = open_model(driver.topology, tmp_path / "copy")
    yield model
    model.close()


def flush(driver: Driver, model: ReadModel) -> None:
    driver.flush()
    follow(model, driver)


def starts(model: ReadModel, question: Question) -> list[int]:
    return [(w.start_ms - T0) // MINUTE for w in queries.windows_of(model, question)]


def test_an_empty_table_has_no_windows(model: ReadModel) -> None:
    assert queries.windows_of(model, Question(TOTAL, M1)) == []
    assert queries.windows_of(model, Question(TOTAL, M1, 0, T0)) == []


def test_the_default_is_the_newest_hour_of_any_partition(driver: Driver, model: ReadModel) -> None:
    for at in (0, 30, 59, 75):
        order(driver, T0 + at * MINUTE, partition=0)
    order(driver, T0, partition=1)
    flush(driver, model)
    assert queries.time_range(model, Question(TOTAL, M1)) == (T0 + 16 * MINUTE, T0 + 76 * MINUTE)
    assert starts(model, Question(TOTAL, M1)) == list(range(16, 76))
    assert starts(model, Question(TOTAL, Tumbling(HOUR))) == [0, 60]
    assert starts(model, Question(TOTAL, M1, from_ms=T0 + 74 * MINUTE)) == [74, 75]
    assert starts(model, Question(TOTAL, M1, to_ms=T0 + 2 * MINUTE)) == [0, 1]


def test_windows_are_those_that_hold_any_time_of_the_range(driver: Driver, model: ReadModel) -> None:
    for at in range(20):
        order(driver, T0 + at * MINUTE)
    flush(driver, model)
    assert starts(model, Question(TOTAL, M5, T0 + 4 * MINUTE, T0 + 10 * MINUTE)) == [0, 5]
    hopping = Hopping(5 * MINUTE, 2 * MINUTE)
    assert starts(model, Question(TOTAL, hopping, T0 + 10 * MINUTE, T0 + 11 * MINUTE)) == [6, 8, 10]


def test_windows_that_retention_cuts_are_left_out(driver: Driver, model: ReadModel) -> None:
    for at in range(0, 180, 3):
        order(driver, T0 + at * MINUTE, partition=0)
        if at % 30 == 0:
            flush(driver, model)
    flush(driver, model)
    assert model.complete_from(TOTAL) == T0 + 57 * MINUTE
    assert starts(model, Question(TOTAL, Tumbling(HOUR), 0, T0 + 180 * MINUTE)) == [60, 120]


def test_rows_are_provisional_until_every_partition_is_past_the_grace(driver: Driver, model: ReadModel) -> None:
    for partition in range(2):
        order(driver, T0, 100, partition=partition)
        order(driver, T0 + 2 * MINUTE - partition, 50, partition=partition)
    flush(driver, model)
    question = Question(TOTAL, M1)
    (first,) = queries.sales_rows(model, question, Window(T0, T0 + MINUTE))
    assert not first["final"]
    order(driver, T0 + 2 * MINUTE, partition=1)
    flush(driver, model)
    (first,) = queries.sales_rows(model, question, Window(T0, T0 + MINUTE))
    (last,) = queries.sales_rows(model, question, Window(T0 + 2 * MINUTE, T0 + 3 * MINUTE))
    assert (first["final"], last["final"]) == (True, False)
    assert first["start"] == "2026-01-01T00:00:00.000Z"
    assert (first["endMs"], first["placed"]) == (T0 + MINUTE, 200)


def test_net_is_what_was_placed_less_what_was_taken_back(driver: Driver, model: ReadModel) -> None:
    order(driver, T0, 1000)
    order(driver, T0, 200, eventType="order.cancelled")
    order(driver, T0, 30, eventType="order.refunded")
    order(driver, T0, 9999, eventType="order.paid")
    flush(driver, model)
    (row,) = queries.sales_rows(model, Question(TOTAL, M1), Window(T0, T0 + MINUTE))
    assert [row[m] for m in ("placed", "cancelled", "refunded", "net", "orders")] == [1000, 200, 30, 770, 1]


def test_currencies_are_kept_apart(driver: Driver, model: ReadModel) -> None:
    order(driver, T0, 1000, region="seoul")
    order(driver, T0, 7, region="seoul", currency="USD")
    flush(driver, model)
    window = Window(T0, T0 + MINUTE)
    question = Question("sales_by_region", M1)
    for currency, placed in ((None, 1000), ("KRW", 1000), ("USD", 7)):
        mark = queries.currency_mark(currency, "KRW")
        for key in (None, "seoul"):
            asked = Question("sales_by_region", M1, key=key)
            (row,) = queries.sales_rows(model, asked, window, mark)
            assert (row["key"], row["placed"]) == ("seoul", placed)
    assert queries.sales_rows(model, question, window, queries.currency_mark("EUR", "KRW")) == []


def test_top_ranks_by_the_metric_and_ties_by_key(driver: Driver, model: ReadModel) -> None:
    for product, price in (("b", 50), ("a", 50), ("c", 90), ("d", 10)):
        order(driver, T0, price, items=[line(product, "x", price)])
    order(driver, T0 + MINUTE, 60, eventType="order.cancelled", items=[line("c", "x", 60)])
    flush(driver, model)
    window = queries.top_window(model, "sales_by_product", 15 * MINUTE, None)
    assert window.end_ms == T0 + 2 * MINUTE
    rows = queries.top_rows(model, "sales_by_product", window, "revenue", 3)
    assert [(r["rank"], r["key"], r["value"]) for r in rows] == [(1, "a", 50), (2, "b", 50), (3, "c", 30)]
    rows = queries.top_rows(model, "sales_by_product", window, "placed", 1)
    assert [(r["key"], r["value"], r["net"]) for r in rows] == [("c", 90, 30)]
    assert queries.top_window(model, "sales_by_product", MINUTE, T0 + MINUTE) == Window(T0, T0 + MINUTE)
    assert queries.top_window(model, "sales_by_product", MINUTE, T0 + 1) == Window(T0, T0 + MINUTE)


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(BadParameter, match="before"):
        Question(TOTAL, M1, T0, T0)


def test_too_many_windows_are_refused(driver: Driver, tmp_path: Path) -> None:
    with Driver(sales(slice_s=1)) as seconds:
        order(seconds, T0)
        order(seconds, T0 + 2 * HOUR)
        seconds.flush()
        model = open_model(seconds.topology, tmp_path / "seconds")
        follow(model, seconds)
        with pytest.raises(BadParameter, match="7,201 windows"):
            queries.windows_of(model, Question(TOTAL, Tumbling(1000, 1000), 0, T0 + HOUR * 9))
        model.close()


def test_lag_and_age_say_what_is_not_covered_yet(driver: Driver, model: ReadModel) -> None:
    tracker = Tracker(model)
    assert tracker.freshness([ORDERS], 100.0)["age_s"] is None
    look(tracker, driver, 100.0)
    assert tracker.age_s([ORDERS], 101.5) == 1.5
    order(driver, T0, partition=0)
    order(driver, T0, partition=0)
    look(tracker, driver, 110.0)
    fresh = tracker.freshness([ORDERS], 112.0)
    assert (fresh["lag"], fresh["lagTotal"]) == ({f"{ORDERS}:0": 2, f"{ORDERS}:1": 0}, 2)
    assert (fresh["age_s"], fresh["watermark"]) == (12.0, None)
    flush(driver, model)
    tracker.settle()
    fresh = tracker.freshness([ORDERS], 112.0)
    assert (fresh["lagTotal"], fresh["age_s"]) == (0, 2.0)
    assert (fresh["offsets"][f"{ORDERS}:0"], fresh["watermarkMs"]) == (2, T0)


def test_age_counts_from_the_newest_look_that_is_covered() -> None:
    source = Source("t")
    for at in range(2000):
        source.look(float(at), {0: at})
    source.settle({0: 999})
    assert source.complete_at is not None
    assert 900 <= source.complete_at <= 999
    source.settle({0: 1999})
    assert source.complete_at == 1999
