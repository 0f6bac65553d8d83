"""A topology of somebody else's under faults: its own load, and the test driver for a judge.

The driver is given what stands in the source topics, record for record, and takes it without any fault; its tables
and derived topics are what must have come out on the cluster too. What a load sends, at which times and how often,
does not matter to that, so a load need not know the right answers.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.log import TP, Entry, Record
from streams.producers import Producer
from streams.simulator.run import Plan, Sent
from streams.simulator.settings import ShopSettings
from streams.topics import Topic
from tables.reading import Reading, read_cells
from tables.table import Table
from topologies.chaos.behaviour import compare_maps
from topologies.chaos.compare import read_topics
from topologies.chaos.subject import Book, Subject
from topologies.demo.client import Client
from topologies.demo.processes import Children
from topologies.demo.run import Demo
from topologies.demo.verify import Comparison
from topologies.driver import Driver, to_bytes
from topologies.loading import attribute_named, load_topology
from topologies.settings import Settings
from topologies.topology import Topology

# One event: topic, key, and a dict, Struct or bytes.
Event = tuple[str, str | bytes | None, Any]
Load = Callable[[random.Random], Iterable[Event]]
SENT_AT_ONCE_S = 0.02


@dataclass
class OwnDemo(Demo):
    """Sends a load's events at a rate, until told to stop or there are no more."""

    load: Load | None = None
    rate: float = 0.0
    seed: int = 0

    def _simulate(self) -> None:
        assert self.load is not None
        try:
            with Producer(self.settings.cluster, log_level=0) as producer:
                self._send(producer, self.load(random.Random(self.seed)))
        except BaseException as error:
            self.failure = error

    def _send(self, producer: Producer, events: Iterable[Event]) -> None:
        sent, coming = self.sent.events, iter(events)
        while not self.stop.wait(SENT_AT_ONCE_S):
            for _ in range(max(1, round(self.rate * SENT_AT_ONCE_S))):
                if (event := next(coming, None)) is None:
                    raise MillraceError("the load has ended before the faults have: let it yield events for ever")
                topic, key, value = event
                producer.produce(topic, key.encode() if isinstance(key, str) else key, to_bytes(value))
                sent += 1
            producer.check()
            self.sent = Sent(events=sent)
        producer.flush()


@dataclass(frozen=True)
class OwnSubject(Subject):
    """A topology named `module:attribute`, with a load named in the same way."""

    load: Load = lambda _: ()
    partitions: int = 1

    def fitted(self, settings: Settings) -> Settings:
        """With the partitions of the topology, whose names are as they are: without a prefix."""
        return replace(settings, prefix="", partitions=self.partitions)

    def plan(self, seed: int, rate: float) -> Plan:
        """Of the simulated shop, which does not sell here."""
        return Plan(ShopSettings(seed=seed))

    def demo(self, settings: Settings, children: Children, client: Client, seed: int, rate: float) -> Demo:
        """What sends the load."""
        return OwnDemo(settings, children, client, self.plan(seed, rate), load=self.load, rate=rate, seed=seed)

    def open_book(self, demo: Demo) -> Book | None:
        """None: the source topics are the book."""
        return None


def own_subject(name: str, load_name: str) -> OwnSubject:
    """The subject of a topology and a load. Raises MillraceError for what cannot be loaded."""
    topology = load_topology(name, Settings(Cluster("localhost:9"), Path(), Path()))
    given = _given(topology)
    if not given:
        raise MillraceError(f"topology {name!r} has no source: declare a table first")
    return OwnSubject(
        name,
        partial(load_topology, name),
        tuple(topic.name for topic in given),
        max(given, key=lambda topic: topic.partitions).name,
        lambda _: None,
        lambda settings, _, client: compare_own(load_topology(name, settings), settings, client),
        load=_load(load_name),
        partitions=max(topic.partitions for topic in given),
    )


def _load(name: str) -> Load:
    found = attribute_named(name, "load")
    if not callable(found):
        raise MillraceError(f"load {name!r} is a {type(found).__name__}, not a function of a random.Random")
    return found  # type: ignore[no-any-return]  # what it yields shows when it is sent


def compare_own(topology: Topology, settings: Settings, client: Client) -> dict[str, Comparison]:
    """Compare tables, views, what goes aside and what is derived with the driver's, over the same source records."""
    records = asyncio.run(read_topics(settings.cluster, topology.topics()))
    with Driver(topology) as driver:
        for topic in _given(topology):
            for number, found in records[topic.name].items():
                for one in found:
                    driver.log.put(TP(topic.name, number), Entry(one.key, one.value, one.headers), one.timestamp)
        driver.flush()
        parts = {"tables": Comparison(), "views": Comparison()}
        for table in (table for source in topology.sources.values() for table in source.tables):
            expected = _cells(driver.readings(table.name), _kept_from(driver, table))
            changelog = records[topology.group.changelog(table).name]
            found_here = _cells(read_cells(table, changelog), _kept_from(driver, table))
            _add(parts["tables"], table.name, expected, found_here)
            _add(parts["views"], table.name, expected, _shown(client, topology, table, expected))
        aside = [topic for one in _given(topology) for topic in (one.late, one.dead_letters)]
        derived = [table.finals for table in topology.group.tables if table.finals is not None]
        derived += [rule.topic for rule in topology.rules]
        for name, topics, of in (("put aside", aside, _ids), ("derived", derived, _latest)):
            parts[name] = Comparison()
            for topic in topics:
                expected_here, on_cluster = of(driver.records(topic.name)), of(_every(records[topic.name]))
                _add(parts[name], topic.name, expected_here, on_cluster)
    return parts


def _given(topology: Topology) -> list[Topic]:
    """The sources that the topology does not write itself."""
    forwarded = {one.forward.topic.name for one in topology.sources.values() if one.forward is not None}
    return [source.topic for name, source in topology.sources.items() if name not in forwarded]


def _kept_from(driver: Driver, table: Table) -> int:
    """Slices that start before this (ms) may have expired on one side and not on the other."""
    feeds = [feed for p in driver.worker.engine.partitions.values() for feed in p.feeds.values()]
    return max((feed.intake.watermark for feed in feeds), default=0) - table.retention_ms


def _cells(readings: Mapping[tuple[int, str], Reading], kept_from: int) -> dict[Any, Any]:
    return {cell: reading.results for cell, reading in readings.items() if cell[0] >= kept_from}


def _shown(client: Client, topology: Topology, table: Table, expected: Iterable[tuple[int, str]]) -> dict[Any, Any]:
    slice_ms = topology.group.source_of(table.name).slice_ms(table)
    starts = sorted({start for start, _ in expected})
    rows = ((start, row) for start in starts for row in client.rows(table.name, start, slice_ms))
    return {(start, row["key"]): row["values"] for start, row in rows}


def _every(partitions: Mapping[int, list[Record]]) -> list[Record]:
    return [record for found in partitions.values() for record in found]


def _ids(records: Iterable[Record]) -> dict[Any, Any]:
    """What is said of records that were put aside, which may be said twice with the same id."""
    return {dict(record.headers)["id"]: record.value for record in records}


def _latest(records: Iterable[Record]) -> dict[Any, Any]:
    """The last value of each key."""
    found = {record.key: record.value for record in records}
    return {key: value for key, value in found.items() if value is not None}


def _add(part: Comparison, name: str, expected: Mapping[Any, Any], found: Mapping[Any, Any]) -> None:
    one = compare_maps(as_json(expected), as_json(found))
    part.cells += one.cells
    part.mismatches += [f"{name} {mismatch}" for mismatch in one.mismatches]


def as_json(found: Mapping[Any, Any]) -> dict[Any, Any]:
    """Results as an HTTP answer has them."""
    return {key: orjson.loads(orjson.dumps(v)) if isinstance(v, dict) else v for key, v in found.items()}
