"""What the faults are done to: which worker is started, in which group, and what its tables say at the end."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import orjson
from confluent_kafka import Consumer, KafkaError, TopicPartition

from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.topics import Topic, ensure_topics
from tables.reading import read_cells
from topologies.chaos import plain_faust
from topologies.chaos.compare import own_topic_of, read_topics
from topologies.chaos.fleet import millrace_worker
from topologies.demo.processes import MILLRACE
from topologies.sales import GROUP, sales_topology
from topologies.settings import Settings

REGIONS = "sales_by_region"
READ_S = 30.0


class Sales(NamedTuple):
    """What a table says of one minute and region: orders, and their value in minor units."""

    orders: int = 0
    placed: int = 0


Cells = dict[tuple[int, str], Sales]
Latest = dict[tuple[int, bytes], bytes]


class Target(Protocol):
    """One way of keeping the sales by minute and region; its workers answer `/readyz` with their partitions."""

    @property
    def name(self) -> str:
        """As the table of results has it."""

    @property
    def program(self) -> Sequence[str]:
        """What is run."""

    def group(self, settings: Settings) -> str:
        """The consumer group, which is also the directory of its state."""

    def arguments(self, settings: Settings, slot: int, port: int) -> Sequence[str]:
        """Those of a slot's worker."""

    def create_topics(self, settings: Settings) -> None:
        """Create what must be there before a worker starts."""

    def changelog(self, settings: Settings) -> str:
        """The topic that `cells` are read from."""

    def cells(self, settings: Settings) -> Cells:
        """What the table says, as anyone may read it from its changelog."""


@dataclass(frozen=True)
class Millrace:
    """`millrace worker analytics`."""

    name: str = "millrace"
    program: tuple[str, ...] = MILLRACE

    def group(self, settings: Settings) -> str:
        """The group of the sales topology."""
        return settings.prefix + GROUP

    def arguments(self, settings: Settings, slot: int, port: int) -> Sequence[str]:
        """A worker with a name, so that it is back soon."""
        return millrace_worker(slot, port)

    def create_topics(self, settings: Settings) -> None:
        """All of the topology's."""
        ensure_topics(settings.cluster, sales_topology(settings).topics())

    def changelog(self, settings: Settings) -> str:
        """The changelog of the table by region."""
        return self._table(settings)[1].name

    def cells(self, settings: Settings) -> Cells:
        """The merge of all partials by region."""
        table, topic = self._table(settings)
        records = asyncio.run(read_topics(settings.cluster, [topic]))[topic.name]
        readings = read_cells(table, records).items()
        return {cell: Sales(reading.results["orders"], reading.results["placed"]) for cell, reading in readings}

    def _table(self, settings: Settings) -> tuple[Any, Topic]:
        group = sales_topology(settings).group
        table = next(table for table in group.tables if table.name == REGIONS)
        return table, group.changelog(table)


@dataclass(frozen=True)
class PlainFaust:
    """`topologies.chaos.plain_faust` with one of Faust's two guarantees."""

    guarantee: plain_faust.Guarantee
    program: tuple[str, ...] = (sys.executable, "-m", plain_faust.__name__)

    @property
    def name(self) -> str:
        """As the table of results has it."""
        return f"Faust {self.guarantee}"

    def group(self, settings: Settings) -> str:
        """Faust's group is the name of its app."""
        return settings.prefix + plain_faust.GROUP

    def arguments(self, settings: Settings, slot: int, port: int) -> Sequence[str]:
        """A worker with a directory of its own."""
        return (self.guarantee, str(settings.state_dir / self.group(settings) / str(slot)), str(port))

    def create_topics(self, settings: Settings) -> None:
        """The source only: Faust makes its changelog itself."""
        ensure_topics(settings.cluster, [own_topic_of(settings)[0]])

    def changelog(self, settings: Settings) -> str:
        """The one changelog."""
        return plain_faust.changelog(settings)

    def cells(self, settings: Settings) -> Cells:
        """The last committed value of each key and partition, added up over the partitions."""
        latest = last_values(settings.cluster, self.changelog(settings), settings.partitions)
        found: Cells = {}
        for (_, key), value in latest.items():
            minute, _, region = str(orjson.loads(key)).partition("/")
            orders, placed = orjson.loads(value)
            before = found.get((int(minute), region), Sales())
            found[int(minute), region] = Sales(before.orders + orders, before.placed + placed)
        return found


def last_values(cluster: Cluster, topic: str, partitions: int) -> Latest:
    """The last committed value of each `(partition, key)`; what a transaction took back is not seen.

    Raises MillraceError if the end is not reached in 30 s without a record.
    """
    options = {
        "group.id": "millrace-chaos",  # asked for, though no group is joined and nothing is committed
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
    }
    consumer = Consumer(cluster.librdkafka(log_level=0, **options))
    latest: Latest = {}
    left = set(range(partitions))
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in sorted(left)])
        while left:
            message = consumer.poll(READ_S)
            if message is None:
                raise MillraceError(f"{topic} cannot be read to its end: partitions {sorted(left)} are silent")
            error, number = message.error(), message.partition()
            if error is None:
                _enter(latest, number, message.key(), message.value())
            elif error.code() == KafkaError._PARTITION_EOF:
                left.discard(number)
            else:
                raise MillraceError(f"{topic} cannot be read: {error}")
    finally:
        consumer.close()
    return latest


def _enter(latest: Latest, number: int | None, key: bytes | None, value: bytes | None) -> None:
    assert number is not None
    assert key is not None
    if value is None:
        latest.pop((number, key), None)
    else:
        latest[number, key] = value


TARGETS: tuple[Target, ...] = (Millrace(), PlainFaust("at_least_once"), PlainFaust("exactly_once"))
