"""Tables that a replay in place begins anew: what a former life has left behind, wherever, counts for nothing."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from shop import amounts, sell, shop

from streams.intake import NO_WATERMARK
from streams.log import TP, Entry
from tables.digest import read_up
from tables.flush import take
from tables.progress import Progress
from tables.read_model import ReadModel
from tables.renewal import Renewed, began_with, begin_anew, next_epoch, read_progress
from tables.table import Group
from tables.windows import Window
from topologies.driver import Driver, Worker, run
from topologies.kept_topics import kept_topics
from topologies.topology import Topology

CHANGELOG = "shop-takings-changelog"
PARTIALS = "shop-takings-partials"


def begin(driver: Driver, topology: Topology | None = None, **starts: int) -> int:
    """Drop what the group has in the log and begin it anew, as the command does; returns the epoch."""
    group = (topology or driver.topology).group
    renewed = next_epoch(run(read_progress(group, driver.log)).values())
    for name in (*kept_topics(group), PARTIALS):
        driver.log.delete(name)
    at = {TP("sales", int(name[1:])): offset for name, offset in starts.items()}
    run(begin_anew(group, driver.log, at, renewed, driver.topic_ids))
    return renewed


def fill(driver: Driver) -> None:
    for i in range(8):
        sell(driver, 10 + i, 40 * i, user=i % 3, partition=i % 2)
    sell(driver, 1, 1)  # late
    driver.flush()


@pytest.mark.parametrize("wipe", [False, True])
def test_tables_begun_anew_from_the_start_say_what_they_said(wipe: bool) -> None:
    with Driver(shop()) as driver:
        fill(driver)
        before, digest = driver.rows("takings"), driver.digest("takings")
        driver.worker.crash(wipe=wipe)
        assert begin(driver) == 1
        driver.restart()
        driver.flush()
        assert driver.rows("takings") == before
        assert driver.digest("takings") == digest
        assert run(began_with(driver.topology.group, driver.log)) == 1


def test_tables_begun_anew_from_offsets_hold_what_came_from_there_on_as_if_the_log_began_there() -> None:
    with Driver(shop()) as driver, Driver(shop()) as other:
        fill(driver)
        driver.worker.crash()
        begin(driver, p0=2, p1=3)
        driver.restart()
        driver.flush()
        for tp, first in ((TP("sales", 0), 2), (TP("sales", 1), 3)):
            for record in driver.log.records(tp, first):
                other.feed("sales", record.value, record.key, partition=tp.partition, timestamp_ms=record.timestamp)
        other.flush()
        assert driver.rows("takings") == other.rows("takings")
        assert run(read_progress(driver.topology.group, driver.log))[TP("sales", 1)].since == {"takings": 3}


def test_a_store_that_was_left_on_another_host_is_dropped_and_not_believed() -> None:
    with Driver(shop()) as driver:
        fill(driver)
        elsewhere = driver.add_worker("w1")
        driver.worker.crash(wipe=True)
        elsewhere.assign([0, 1], generation=1)
        elsewhere.crash()  # its store says that all is contained
        begin(driver, p0=5, p1=4)
        elsewhere.assign([0, 1], generation=2)
        driver.worker = elsewhere
        driver.flush()
        assert amounts(driver) == {}
        sell(driver, 5, 400)
        driver.flush()
        assert sum(amounts(driver).values()) == 5


def test_an_interrupted_rebuild_goes_on_where_it_was() -> None:
    with Driver(shop()) as driver:
        fill(driver)
        before = driver.rows("takings")
        driver.worker.crash(wipe=True)
        begin(driver)
        driver.restart()
        driver.worker.deliver_records(TP("sales", 0), driver.log.records(TP("sales", 0), 0, 2))
        driver.worker.flush()
        driver.worker.deliver_records(TP("sales", 0), driver.log.records(TP("sales", 0), 2, 3))
        driver.restart(wipe=True)
        assert driver.worker.next[TP("sales", 0)] == 2
        driver.flush()
        assert driver.rows("takings") == before


@pytest.mark.parametrize("wipe", [False, True])
def test_what_a_zombie_of_the_former_life_writes_counts_for_nothing(wipe: bool) -> None:
    with Driver(shop()) as driver:
        zombie = driver.worker
        fill(driver)
        sell(driver, 7, 300, user=9)
        zombie.deliver()  # and sleeps through the replay
        begin(driver, p0=5, p1=4)
        owner = driver.worker = driver.add_worker("w1")
        owner.assign([0, 1], generation=1)
        driver.flush()
        said = driver.rows("takings")
        zombie_wakes(driver, zombie)
        driver.now_s += 100  # past the owner's look at the ends of its changelogs
        if wipe:
            driver.restart(wipe=True)
        sell(driver, 1, 310, user=9)
        driver.flush()
        driver.log.compact(CHANGELOG)
        driver.restart(wipe=True)
        driver.flush()
        now = driver.rows("takings")
        assert now.keys() == said.keys()
        assert sum(row["amount"] for row in now.values()) == sum(row["amount"] for row in said.values()) + 2


def zombie_wakes(driver: Driver, zombie: Worker) -> None:
    """Its cells, and those of windows that the new tables do not have, land in the changelog that was made anew."""
    for partition in zombie.engine.partitions.values():
        for table in take(partition).tables:
            for key, value in [*table.puts, *table.cache.stored(0, 10**15)]:
                driver.log.put(table.tp, Entry(key, value))


def test_a_read_model_that_followed_the_former_tables_all_along_begins_anew() -> None:
    with Driver(shop()) as driver, TemporaryDirectory() as directory:
        fill(driver)
        group = Group("shop", tuple(driver.topology.sources.values()))
        model = ReadModel(group, Path(directory) / "model")
        run(read_up(model, driver.log))
        driver.worker.crash(wipe=True)
        begin(driver, p0=4, p1=4)
        driver.restart()
        driver.flush()
        progress = TP(group.progress.name, 0)
        with pytest.raises(Renewed):
            model.apply(progress, driver.log.records(progress))
        model.reset()
        run(read_up(model, driver.log))
        assert {w: row["amount"] for w, row in amounts_of(model).items()} == amounts(driver)
        model.close()


def test_a_read_model_begins_anew_once_also_where_a_worker_had_begun_the_tables_before_the_replay_did() -> None:
    with Driver(shop()) as driver, TemporaryDirectory() as directory:
        fill(driver)
        driver.worker.crash(wipe=True)
        group = Group("shop", tuple(driver.topology.sources.values()))
        progress = TP(group.progress.name, 0)
        early = Progress("sales", 0, position=0, watermark=NO_WATERMARK, generation=7)
        for name in (*kept_topics(driver.topology.group), PARTIALS):
            driver.log.delete(name)
        driver.log.put(progress, early.entry())
        run(begin_anew(driver.topology.group, driver.log, {}, 1, driver.topic_ids))
        driver.restart()
        driver.flush()
        model = ReadModel(group, Path(directory) / "model")
        with pytest.raises(Renewed):
            run(read_up(model, driver.log))
        model.reset()
        run(read_up(model, driver.log))
        assert {w: row["amount"] for w, row in amounts_of(model).items()} == amounts(driver)
        model.close()


def amounts_of(model: ReadModel) -> dict[int, dict[str, int]]:
    stored = model.bounds("takings")
    assert stored is not None
    starts = range(stored.start_ms, stored.end_ms, 60_000)
    found = {at // 1_000: model.results("takings", Window(at, at + 60_000)).get("all") for at in starts}
    return {at: dict(row) for at, row in found.items() if row}
