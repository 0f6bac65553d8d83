"""What a broker took without saying so: records of an earlier flush turn up in the log, and are settled with."""

from collections.abc import AsyncIterator, Mapping, Sequence

from shop import FINALS, HOUR_S, SALES, amounts, by_user, sell, shop

from streams.intake import EventTime
from streams.log import TP, Entry, Record
from tables.aggregates import Distinct, Sum
from tables.engine import look_for_foreign
from tables.progress import newest
from tables.table import Table
from topologies.driver import Driver, run
from topologies.topology import Topology

MINUTE = 60_000


def say_again(driver: Driver, changelog: str, partition: int = 0) -> None:
    """All of a changelog lands once more, as batches do whose acknowledgement was lost."""
    tp = TP(changelog, partition)
    for record in driver.log.records(tp):
        driver.log.put(tp, Entry(record.key, record.value))


def test_cells_that_are_settled_ahead_of_the_position_count_nothing_again_after_a_crash() -> None:
    with Driver(shop()) as driver:
        sell(driver, 1, 1)
        driver.flush()
        say_again(driver, "shop-takings-changelog")
        run(look_for_foreign(list(driver.worker.engine.partitions.values()), driver.log))
        read = driver.log.read

        def read_meanwhile(spans: Mapping[TP, tuple[int, int]]) -> AsyncIterator[tuple[TP, Sequence[Record]]]:
            sell(driver, 20, 2)
            sell(driver, 300, 3)
            driver.deliver()
            return read(spans)

        driver.log.read = read_meanwhile  # type: ignore[method-assign]
        driver.worker.flush()  # with nothing new at its beginning, so it says no progress
        driver.log.read = read  # type: ignore[method-assign]
        driver.restart()
        driver.flush()
        assert amounts(driver) == {0: 321}


def test_one_tables_gap_takes_nothing_from_what_is_known_of_the_next_ones() -> None:
    topology = Topology("shop").source(SALES, time=EventTime(MINUTE, MINUTE))
    for name in ("first", "second"):
        topology.add(SALES, Table(name, {"amount": Sum(), "users": Distinct()}, by_user, HOUR_S, FINALS))
    with Driver(topology) as driver:
        sell(driver, 1, 1)
        driver.flush()
        say_again(driver, "shop-first-changelog")
        sell(driver, 20, 2)
        driver.flush()
        ends = {name: len(driver.log.records(TP(f"shop-{name}-changelog", 0))) for name in ("first", "second")}
        said = newest(driver.log.records(TP("shop-progress", 0)), 0)["sales"]
        assert said.ends == ends
