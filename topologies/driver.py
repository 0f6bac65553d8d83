"""Run a topology in a test: no broker, no wall clock, the same engine and tables on a temporary RocksDB.

In the manner of Kafka Streams' TopologyTestDriver: feed records, flush when you like, read what came of it, crash
and restart in between.

    with Driver(topology) as driver:
        driver.feed("clicks", {"page": "/", "userId": 1, "occurredAt": 1_000})
        driver.flush()
        assert driver.rows("clicks_by_page") == {(0, "/"): {"clicks": 1, "visitors": 1}}

What it simulates: delivery in batches of any size, partitions by key hash, flushes (also torn in the middle),
`kill -9` with or without the local state, a second worker that does not know that it has lost its partitions
(zombie), seeks, compaction of changelogs, several workers. What it does not: consumer groups and their timing,
brokers that lose acknowledged records, retention by time, the network. Those need a real cluster. Publications
(tables.publishing) are computed when a test says `publish`, not beside the events.
"""

import os
import shutil
import tempfile
from collections.abc import Coroutine, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
import orjson

from streams.errors import MillraceError
from streams.log import TP, Entry
from streams.memory_log import MemoryLog, MemoryRecord
from streams.partitioners import key_hash
from tables.digest import Digest, digest_model, read_up
from tables.engine import Engine
from tables.partition import Gap
from tables.read_model import ReadModel
from tables.reading import Reading, read_cells
from tables.store import wipe
from tables.table import Group
from topologies.publishing import Publishing
from topologies.topology import Topology

T = TypeVar("T")


class Worker:
    """One simulated worker: an engine over the driver's log, with delivery in batches of `batch` records."""

    def __init__(self, driver: "Driver", name: str, directory: Path) -> None:
        """Own nothing until `assign`."""
        self._driver = driver
        self.name = name
        self.directory = directory
        self.engine = self._new_engine()
        self.publishing = self._new_publishing()
        self.next: dict[TP, int] = {}

    def _new_engine(self) -> Engine:
        driver = self._driver
        return Engine(
            driver.topology.group,
            self.directory,
            driver.log,
            name=self.name,
            lock_wait_s=0,
            topic_ids=lambda: driver.topic_ids,
            monotonic=lambda: driver.now_s,
            together=in_turn,
        )

    def _new_publishing(self) -> Publishing:
        return Publishing(self._driver.topology.publications, self.engine, self._driver.log)

    def assign(self, numbers: Iterable[int], generation: int = 0) -> None:
        """Own exactly these partitions, restored from the log."""
        positions = run(self.engine.restore(sorted(numbers), generation))
        self.next = {
            TP(source.topic.name, n): positions.get(TP(source.topic.name, n), 0)
            for source in self.engine.group.sources
            for n in self.engine.partitions
            if n < source.topic.partitions
        }

    def deliver(self, batch: int = 500) -> int:
        """Apply everything that is in the log and not applied yet; returns how many records were new."""
        new = 0
        for tp in sorted(self.next):
            while records := self._driver.log.records(tp, self.next[tp])[:batch]:
                new += self.deliver_records(tp, records)
        return new

    def deliver_records(self, tp: TP, records: list[MemoryRecord]) -> int:
        """Deliver one batch, as after a seek; goes back where the engine asks for it."""
        try:
            new = self.engine.apply(tp, records, None, self.engine.generation)
        except Gap as gap:
            self.next[tp] = gap.position
            return 0
        except MillraceError:
            raise
        except Exception:
            self.next.update(run(self.engine.mend(tp, records[-1].offset)))
            return 1  # not applied yet, but there is more to do
        self.next[tp] = max(self.next[tp], records[-1].offset + 1)
        return new

    @property
    def unflushed(self) -> bool:
        """Whether something was applied that no flush has made durable."""
        return any(partition.changed for partition in self.engine.partitions.values())

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Deliver from another offset on, inside the living process."""
        self.next[TP(topic, partition)] = offset

    def flush(self) -> None:
        """Make what was applied durable. A torn flush is put off, as in a worker."""
        positions = run(self.engine.flush())
        self.engine.committed(positions)

    def publish(self, budget_s: float = 3600.0) -> int:
        """Read what is published already, and publish for one step of about this long; returns the records written.

        Raises LogError where a test has torn it; what was lost is published with a later step.
        """
        if not self.publishing.copies:
            self.publishing.open(self.directory / "published", self._driver.topic_ids)
        self.publishing.hear()
        run(self.publishing.follow(self._driver.log))
        run(self.publishing.catch_up(self._driver.log))
        return run(self.publishing.step(budget_s))

    def crash(self, *, wipe: bool = False) -> None:
        """Die here: what was not flushed is gone, the log stays; with `wipe` the local state is gone too."""
        for partition in self.engine.partitions.values():
            partition.store.close()
        self.publishing.close()
        self.engine = self._new_engine()
        self.publishing = self._new_publishing()
        self.next = {}
        if wipe:
            shutil.rmtree(self.directory, ignore_errors=True)


class Driver:
    """One or more workers of a topology over a log in memory. Times are ms since the epoch."""

    def __init__(
        self, topology: Topology, *, batch: int = 500, start_ms: int = 0, log: MemoryLog | None = None
    ) -> None:
        """Start one worker that owns every partition; over another driver's `log`, as a second group beside it."""
        self.topology = topology
        self.log = MemoryLog(now_ms=start_ms) if log is None else log
        self.batch = batch
        self.now_s = 0.0
        self.topic_ids: dict[str, str] = {}  # those that have one
        self._root = Path(tempfile.mkdtemp(prefix="millrace-driver-", dir=memory_directory()))
        self._topics = {topic.name: topic for topic in topology.topics()}
        self.worker = self.add_worker("w0")
        self.worker.assign(range(self.partitions))

    @property
    def partitions(self) -> int:
        """How many partitions the widest source has."""
        return max(source.topic.partitions for source in self.topology.group.sources)

    def add_worker(self, name: str, *, directory: Path | None = None) -> Worker:
        """Another worker, owning nothing yet, with a directory of its own unless one is given."""
        return Worker(self, name, directory or self._root / name)

    def feed(
        self,
        topic: str,
        value: Any,
        key: str | bytes | None = None,
        *,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> TP:
        """Append one record: a dict or Struct as JSON, bytes as they are. Without a partition the key decides."""
        raw_key = key.encode() if isinstance(key, str) else key
        count = self._topics[topic].partitions
        number = partition if partition is not None else key_hash(raw_key or b"", count)
        tp = TP(topic, number)
        self.log.put(tp, Entry(raw_key, to_bytes(value)), timestamp_ms)
        return tp

    def advance(self, seconds: float) -> None:
        """Move the clock that stamps records, and the one that the engine looks at when idle."""
        self.now_s += seconds
        self.log.now_ms += round(seconds * 1000)

    def deliver(self) -> int:
        """Let the worker apply all that was fed; returns how many records were new."""
        return self.worker.deliver(self.batch)

    def flush(self) -> None:
        """Deliver and flush until nothing moves any more: second stages read what the first flush derived.

        A flush that a test has torn is tried again, as a worker does.
        """
        while self.deliver() or self.worker.unflushed:
            self.worker.flush()
        self.worker.flush()

    def publish(self, *others: Worker, budget_s: float = 3600.0) -> int:
        """Publish what was flushed until nothing is left to say now; returns how many records were written.

        Done by the driver's worker, and in turns with `others` that own partitions too.
        """
        workers = (self.worker, *others)
        written = 0
        while True:
            round_written = sum([worker.publish(budget_s) for worker in workers])
            written += round_written
            if not round_written and not any(worker.publishing.busy for worker in workers):
                return written

    def restart(self, *, wipe: bool = False) -> None:
        """`kill -9` and come back; what was not flushed is applied again."""
        self.worker.crash(wipe=wipe)
        self.worker.assign(range(self.partitions), self.worker.engine.generation + 1)

    def rows(self, table: str) -> dict[tuple[int, str], dict[str, Any]]:
        """The merged results of a table by (slice start, key), read from its changelog as a view does."""
        return {cell: reading.results for cell, reading in self.readings(table).items()}

    def readings(self, table: str) -> dict[tuple[int, str], Reading]:
        """The same with stamps: which source partitions and offsets a number comes from."""
        group = self.topology.group
        declared = next(t for t in group.tables if t.name == table)
        topic = group.changelog(declared)
        records = {p: self.log.records(TP(topic.name, p)) for p in range(topic.partitions)}
        return read_cells(declared, records)

    def digest(self, table: str) -> Digest:
        """The hash of what the table's closed windows say (tables.digest)."""
        model = ReadModel(Group(self.topology.name, tuple(self.topology.sources.values())), self._root / "digest")
        try:
            run(read_up(model, self.log))
            return digest_model(model, table)
        finally:
            model.close()
            wipe(model.directory)

    def records(self, topic: str) -> list[MemoryRecord]:
        """All records of a topic (late events, dead letters, derived topics), partition after partition."""
        partitions = self.log.topics().get(topic, [])
        return [record for p in partitions for record in self.log.records(TP(topic, p))]

    def values(self, topic: str) -> list[Any]:
        """The records' values, read as JSON."""
        return [msgspec.json.decode(record.value) for record in self.records(topic) if record.value is not None]

    def latest(self, topic: str) -> Mapping[Any, Any]:
        """The last value of each key of a topic of upserts, both read as JSON; keys that are none as text."""
        found = {r.key: r.value for r in self.records(topic)}
        return {_key(k): msgspec.json.decode(v) for k, v in found.items() if k is not None and v is not None}

    def close(self) -> None:
        """Close the stores and delete the temporary directory."""
        run(self.worker.engine.release())
        self.worker.publishing.close()
        shutil.rmtree(self._root, ignore_errors=True)

    def __enter__(self) -> Self:
        """Use as a context manager."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never really waits: the log in memory answers at once."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


async def in_turn(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Run one after the other, so that a test that tears a flush always tears the same one."""
    try:
        for coroutine in coroutines:
            await coroutine
    finally:
        for coroutine in coroutines:
            coroutine.close()


def _key(raw: bytes) -> Any:
    try:
        found = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return raw.decode(errors="replace")
    return tuple(found) if isinstance(found, list) else found


def to_bytes(value: Any) -> bytes | None:
    """A value as it is sent: JSON, unless it is bytes or nothing."""
    if value is None or isinstance(value, bytes):
        return value
    return msgspec.json.encode(value) if isinstance(value, msgspec.Struct) else orjson.dumps(value)


__all__ = ["Driver", "Worker"]


def memory_directory() -> Path | None:
    """Where files are in memory, if the system has such a place: a store's syncs to disk are most of a test's time."""
    place = Path("/dev/shm")
    return place if place.is_dir() and os.access(place, os.W_OK) else None
