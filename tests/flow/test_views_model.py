"""What a read model says of the partials that it follows, whatever order and company they come in."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from views_shop import MINUTE, ORDERS, T0, follow, line, open_model, order, sales

from streams.log import TP, Entry
from tables.accumulators import encode_key
from tables.read_model import ReadModel
from tables.windows import Window
from topologies.driver import Driver

TOTALS = "order-analytics-group-sales_by_total-changelog"
PROGRESS = "order-analytics-group-progress"


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Driver(sales()) as driver:
        yield driver


@pytest.fixture
def model(driver: Driver, tmp_path: Path) -> Iterator[ReadModel]:
    model = open_model(driver.topology, tmp_path / "copy")
    yield model
    model.close()


def minute(n: int, length: int = 1) -> Window:
    return Window(T0 + n * MINUTE, T0 + (n + length) * MINUTE)


def total(model: ReadModel, window: Window) -> tuple[int, int] | None:
    found = model.result("sales_by_total", window, "total")
    assert model.results("sales_by_total", window).get("total") == found
    return (found["placed"], found["orders"]) if found else None


def random_orders(driver: Driver, n: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(n):
        lines = [line(rng.randrange(30), f"c{rng.randrange(4)}", rng.randrange(1_000)) for _ in range(2)]
        at = T0 + rng.randrange(90) * MINUTE // 10
        order(driver, at, rng.randrange(5_000), rng.randrange(200), region=f"r{rng.randrange(3)}", items=lines)


def test_partials_of_all_partitions_are_one_number(driver: Driver, model: ReadModel) -> None:
    for partition in range(4):
        order(driver, T0, 10 + partition, user=7, partition=partition)
    driver.flush()
    follow(model, driver)
    found = model.result("sales_by_total", minute(0), "total")
    assert found is not None
    assert (found["placed"], found["orders"], found["customers"]) == (46, 4, 1)
    reading = model.reading("sales_by_total", T0, "total")
    assert reading is not None
    assert [part.partition for part in reading.parts] == [0, 1, 2, 3]


@pytest.mark.parametrize("batch", [1, 7, 1_000])
def test_every_cell_equals_the_changelogs_merged(driver: Driver, model: ReadModel, batch: int) -> None:
    for round_ in range(3):
        random_orders(driver, 150, seed=round_)
        driver.flush()
        follow(model, driver, batch=batch)
        for table in model.tables:
            for (start, key), expected in driver.rows(table).items():
                assert model.results(table, Window(start, start + MINUTE))[key] == expected


def test_windows_merge_to_the_same_numbers_before_and_after_changes(
    driver: Driver, model: ReadModel, tmp_path: Path
) -> None:
    windows = [minute(0), minute(0, 5), minute(0, 15), minute(3, 4), minute(1, 7), minute(0, 60)]
    for round_ in range(3):
        random_orders(driver, 100, seed=10 + round_)
        driver.flush()
        follow(model, driver)
        asked_before = [model.results("sales_by_category", w).copy() for w in windows]
        fresh = open_model(driver.topology, tmp_path / f"fresh-{round_}")
        follow(fresh, driver)
        assert [fresh.results("sales_by_category", w) for w in windows] == asked_before
        for window, found in zip(windows, asked_before, strict=True):
            for key in found:
                assert fresh.result("sales_by_category", window, key) == found[key]
        fresh.close()


def test_what_was_asked_for_follows_every_change(driver: Driver, model: ReadModel) -> None:
    order(driver, T0, 10)
    driver.flush()
    follow(model, driver)
    assert total(model, minute(0, 15)) == (10, 1)
    order(driver, T0 + MINUTE, 5)
    driver.flush()
    assert follow(model, driver) >= {("sales_by_total", T0 + MINUTE, "total")}
    assert total(model, minute(0, 15)) == (15, 2)
    assert total(model, minute(0)) == (10, 1)


def test_a_restart_reads_exactly_the_tail(driver: Driver, tmp_path: Path) -> None:
    first = open_model(driver.topology, tmp_path / "copy")
    order(driver, T0, 10)
    driver.flush()
    follow(first, driver)
    ends = first.positions()
    first.close()
    order(driver, T0, 5)
    driver.flush()
    second = open_model(driver.topology, tmp_path / "copy")
    assert second.positions() == ends
    assert total(second, minute(0)) == (10, 1)
    assert second.covered(ORDERS) == first.covered(ORDERS)
    follow(second, driver)
    assert total(second, minute(0)) == (15, 2)
    second.close()


def test_reading_everything_twice_changes_nothing(driver: Driver, model: ReadModel) -> None:
    order(driver, T0, 10)
    driver.flush()
    follow(model, driver)
    for tp in list(model.positions()):
        assert not model.apply(tp, driver.log.records(tp))
    assert total(model, minute(0)) == (10, 1)


def test_a_zombies_older_stamp_is_ignored(driver: Driver, model: ReadModel) -> None:
    order(driver, T0, 10, partition=0)
    driver.flush()
    old = driver.log.records(TP(TOTALS, 0))[0]
    order(driver, T0, 5, partition=0)
    driver.flush()
    driver.log.put(TP(TOTALS, 0), Entry(old.key, old.value))
    follow(model, driver, batch=1)
    assert total(model, minute(0)) == (15, 2)


def test_a_tombstone_removes_a_partial_and_no_other(driver: Driver, model: ReadModel) -> None:
    order(driver, T0, 10, partition=0)
    order(driver, T0, 5, partition=1)
    driver.flush()
    follow(model, driver)
    assert total(model, minute(0)) == (15, 2)
    driver.log.put(TP(TOTALS, 0), Entry(encode_key(T0, "total"), None))
    assert follow(model, driver) == {("sales_by_total", T0, "total")}
    assert total(model, minute(0)) == (5, 1)
    driver.log.put(TP(TOTALS, 1), Entry(encode_key(T0, "total"), None))
    follow(model, driver)
    assert total(model, minute(0)) is None


def test_what_retention_has_left_behind_stays_gone(tmp_path: Path) -> None:
    with Driver(sales(retention_s=600.0)) as driver:
        model = open_model(driver.topology, tmp_path / "copy")
        order(driver, T0, 10, partition=0)
        driver.flush()
        zombies = driver.log.records(TP(TOTALS, 0))[0]
        follow(model, driver)
        for at in range(1, 20):
            order(driver, T0 + at * MINUTE, 1, partition=0)
            driver.flush()
        follow(model, driver)
        assert total(model, minute(0)) is None
        driver.log.put(TP(TOTALS, 0), Entry(zombies.key, zombies.value))
        follow(model, driver)
        assert total(model, minute(0)) is None
        stored = model.bounds("sales_by_total")
        assert stored is not None
        assert stored.start_ms == T0 + 9 * MINUTE == model.complete_from("sales_by_total")
        model.close()


def test_a_zombies_put_that_was_read_before_the_progress_goes_with_it(tmp_path: Path) -> None:
    with Driver(sales(retention_s=600.0)) as driver:
        order(driver, T0, 10, partition=0)
        driver.flush()
        zombies = driver.log.records(TP(TOTALS, 0))[0]
        for at in range(1, 20):
            order(driver, T0 + at * MINUTE, 1, partition=0)
            driver.flush()
        driver.log.put(TP(TOTALS, 0), Entry(zombies.key, zombies.value))
        model = open_model(driver.topology, tmp_path / "copy")
        follow(model, driver, only=[TP(TOTALS, 0)])
        assert total(model, minute(0)) == (10, 1)
        follow(model, driver)
        assert total(model, minute(0)) is None
        model.close()


def test_progress_counts_only_when_the_changelogs_are_read(driver: Driver, model: ReadModel) -> None:
    order(driver, T0, 10, partition=0)
    driver.flush()
    progress = [tp for tp in model.positions() if tp.topic == PROGRESS]
    follow(model, driver, only=progress)
    assert not model.covered(ORDERS).get(0)
    assert model.watermarks(ORDERS) == {}
    follow(model, driver)
    assert model.covered(ORDERS)[0] == 1
    assert model.watermarks(ORDERS) == {0: T0}


def test_announced_progress_survives_a_restart(driver: Driver, tmp_path: Path) -> None:
    order(driver, T0, 10, partition=0)
    driver.flush()
    first = open_model(driver.topology, tmp_path / "copy")
    follow(first, driver, only=[tp for tp in first.positions() if tp.topic == PROGRESS])
    first.close()
    second = open_model(driver.topology, tmp_path / "copy")
    assert not second.covered(ORDERS).get(0)
    follow(second, driver)
    assert second.covered(ORDERS)[0] == 1
    second.close()


def test_a_window_is_final_only_when_every_partition_has_passed_it(driver: Driver, model: ReadModel) -> None:
    for partition in range(3):
        order(driver, T0 + 10 * MINUTE, partition=partition)
    driver.flush()
    follow(model, driver)
    assert model.closed_before("sales_by_total") == 0
    order(driver, T0 + 3 * MINUTE + 1, partition=3)
    driver.flush()
    follow(model, driver)
    assert model.closed_before("sales_by_total") == T0 + 2 * MINUTE


def test_a_copy_of_topics_that_were_made_anew_begins_anew(driver: Driver, model: ReadModel) -> None:
    order(driver, T0, 10)
    driver.flush()
    follow(model, driver)
    assert model.bind({TOTALS: "a"})
    assert model.bind({TOTALS: "a"})
    assert total(model, minute(0)) == (10, 1)
    assert not model.bind({TOTALS: "b"})
    assert total(model, minute(0)) is None
    assert set(model.positions().values()) == {0}
    follow(model, driver)
    assert total(model, minute(0)) == (10, 1)
    assert model.bind({TOTALS: "b"})
