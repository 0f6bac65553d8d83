"""What the group has committed, against what its tables contain: an operator's reset is told from a crash."""

import msgspec
import pytest
from shop import amounts, sell, shop

from streams.log import TP
from tables.engine import CommittedBehind
from tables.progress import Progress, decode
from topologies.driver import Driver, run

SALES = TP("sales", 0)
CHANGELOG = TP("shop-takings-changelog", 0)


def progresses(driver: Driver) -> list[Progress]:
    """All that was ever said of the source."""
    records = driver.log.records(TP(driver.topology.group.progress.name, 0), 0)
    said = [decode(record.value) for record in records if record.value is not None]
    return [progress for progress in said if progress.topic == SALES.topic]


def flush(driver: Driver, committed: bool = True) -> int:
    """Flush as a worker does, which may die before the commit; returns the position."""
    engine = driver.worker.engine
    driver.worker.deliver()
    positions = run(engine.flush())
    if committed:
        engine.committed(positions)
    return progresses(driver)[-1].position


def sold(driver: Driver, times: int) -> None:
    for i in range(times):
        sell(driver, 10, 10 * i)


@pytest.mark.parametrize("flushes", [1, 2, 3])
@pytest.mark.parametrize("wipe", [False, True])
def test_a_reset_behind_the_last_commit_is_refused_however_few_flushes_there_were(flushes: int, wipe: bool) -> None:
    with Driver(shop()) as driver:
        for _ in range(flushes):
            sold(driver, 3)
            position = flush(driver)
        flush(driver)  # the worker has nothing to do, and says what was committed
        driver.restart(wipe=wipe)
        for behind in (0, 1, position - 1):
            with pytest.raises(CommittedBehind, match=f"set to {behind} in sales"):
                driver.worker.engine.check_committed({SALES: behind})
        with pytest.raises(CommittedBehind, match=f"back to {position}"):
            driver.worker.engine.check_committed({SALES: position + 1})
        driver.worker.engine.check_committed({SALES: position})


def test_a_crash_before_a_commit_is_no_reset() -> None:
    with Driver(shop()) as driver:
        sold(driver, 3)
        flush(driver, committed=False)
        driver.restart()
        driver.worker.engine.check_committed({SALES: None})
        first = flush(driver)
        sold(driver, 3)
        second = flush(driver, committed=False)
        driver.restart()
        driver.worker.engine.check_committed({SALES: first})
        assert progresses(driver)[-1].position == second
        assert amounts(driver) == {0: 60}


def test_what_the_group_had_committed_when_the_partitions_came_is_said_by_the_next_flush() -> None:
    """A commit that took effect, and whose answer died with the worker."""
    with Driver(shop()) as driver:
        sold(driver, 3)
        position = flush(driver, committed=False)
        driver.restart()
        driver.worker.engine.check_committed({SALES: position})
        flush(driver)
        assert progresses(driver)[-1].committed == position
        driver.restart()
        with pytest.raises(CommittedBehind):
            driver.worker.engine.check_committed({SALES: 0})


def test_one_flush_says_what_was_committed_and_then_there_is_silence() -> None:
    with Driver(shop()) as driver:
        sold(driver, 3)
        flush(driver)
        said, changes = list(progresses(driver)), driver.log.records(CHANGELOG, 0)
        flush(driver)
        *before, last = progresses(driver)
        assert before == said
        assert last == msgspec.structs.replace(said[-1], committed=3)
        for _ in range(3):
            flush(driver)
        assert progresses(driver) == [*said, last]
        assert driver.log.records(CHANGELOG, 0) == changes


def test_a_position_is_to_be_committed_until_it_is_and_again_where_the_group_has_forgotten_it() -> None:
    """A commit that failed is made with the next flush; a group's offsets are dropped when it is away for days."""
    with Driver(shop()) as driver:
        engine = driver.worker.engine
        sold(driver, 3)
        driver.worker.deliver()
        assert run(engine.flush())[SALES] == 3
        assert run(engine.flush())[SALES] == 3
        engine.committed({SALES: 3})
        assert SALES not in run(engine.flush())
        driver.restart()
        engine = driver.worker.engine
        engine.check_committed({SALES: 3})
        assert SALES not in run(engine.flush())
        driver.restart()
        engine = driver.worker.engine
        engine.check_committed({SALES: None})
        assert run(engine.flush())[SALES] == 3
