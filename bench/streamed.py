"""Both topologies on the test driver over one log: what comes of a shop's visits, without a broker."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from bench.visits import Sent
from streams.cluster import Cluster
from streams.events import ProductNeighbours
from streams.memory_log import MemoryLog
from streams.simulator.behaviour_ledger import Together
from topologies.behaviour import behaviour_topology
from topologies.driver import Driver
from topologies.recommendations import recommendations_topology
from topologies.settings import Settings

# Records that are fed before both topologies flush.
CHUNK: Final = 50_000
_decode = msgspec.json.Decoder(ProductNeighbours).decode


def driver_settings() -> Settings:
    """Default settings of a cluster that nobody connects to, with decay off."""
    return replace(Settings(Cluster("localhost:9"), Path("/nowhere"), Path("/nowhere")), half_life_days=0)


def run_both(settings: Settings, records: Iterable[Sent]) -> MemoryLog:
    """The log after both topologies have taken all records; changelogs are compacted on the way."""
    log = MemoryLog()
    with Driver(behaviour_topology(settings), log=log) as first:
        with Driver(recommendations_topology(settings), log=log) as second:
            changelogs = [t.name for d in (first, second) for t in d.topology.topics() if "changelog" in t.name]
            left = iter(records)
            while chunk := list(islice(left, CHUNK)):
                for one in chunk:
                    first.feed(one.topic, one.value, one.key, timestamp_ms=one.at)
                first.flush()
                second.flush()
                for name in changelogs:
                    log.compact(name)
    return log


@contextmanager
def published(settings: Settings, log: MemoryLog) -> Iterator[Driver]:
    """The recommendations topology restored from the log, with everything published."""
    with Driver(recommendations_topology(settings), log=log) as driver:
        driver.publish()
        yield driver


def neighbours_in(driver: Driver) -> dict[str, ProductNeighbours]:
    """What is published of each product."""
    last = {record.key: record.value for record in driver.records("product-recommendations")}
    found = [_decode(value) for value in last.values() if value is not None]
    return {one.product_id: one for one in found}


def counted(driver: Driver, kind: str) -> tuple[Together, int]:
    """Popularity and pairs as the table has them, and the largest error of a cell: 0 where no cap was reached.

    Raises ValueError where the two products of a pair do not say the same.
    """
    together, both, error = Together(), Counter[tuple[str, str]](), 0
    for (_, product), row in driver.rows("baskets_by_product").items():
        if row[kind]:
            together.products[product] += row[kind]
        error = max(error, row[f"{kind}_with"]["error"])
        for other, count in row[f"{kind}_with"]["counts"].items():
            both[product, other] += count
    for (a, b), count in both.items():
        if both[b, a] != count and not error:
            raise ValueError(f"{a} was {kind} {count} times with {b}, and {b} {both[b, a]} times with {a}")
        if a < b:
            together.pairs[a, b] = count
    return together, error
