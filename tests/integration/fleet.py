"""Real worker processes under a load, and the comparison of all they kept with the ledger, cell by cell."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import confluent_kafka
from confluent_kafka import TopicPartition

from streams.cluster import Cluster
from streams.log import Record
from streams.memory_log import MemoryRecord
from streams.producers import Producer
from streams.simulator.emission import emitted
from streams.simulator.ledger import BY, Cell, Ledger
from streams.simulator.settings import ShopSettings
from streams.topics import ensure_topics
from tables.aggregates import Distinct, Quantiles
from tables.reading import read_cells
from tables.table import Group
from topologies.sales import sales_topology
from topologies.settings import Settings

ROOT = Path(__file__).parents[2]
MILLRACE = "from topologies.cli import main; main()"
POLL_S = 0.02
# A session short enough to wait for; the broker's least is set to 1 s.
SESSION_S = 4.0


def wait_until(holds: Callable[[], Any], what: str, limit_s: float = 60.0, poll_s: float = 0.05) -> Any:
    """Return what `holds` returns once it is true; AssertionError when it never is."""
    deadline = time.monotonic() + limit_s
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < deadline, f"after {limit_s:g} s not yet: {what}"
        time.sleep(poll_s)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str, timeout_s: float = 5.0) -> tuple[int, Any]:
    """Status and JSON of a page; (0, None) while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, None
    except (OSError, ValueError):
        return 0, None


@dataclass
class Worker:
    """One worker process; `started` is on the monotonic clock."""

    name: str
    process: "subprocess.Popen[bytes]"
    port: int
    log: Path
    started: float

    def owns(self) -> set[int] | None:
        """The partitions it is ready with, None while it is not ready."""
        status, page = get(f"http://127.0.0.1:{self.port}/readyz", 1.0)
        return set(page["partitions"]) if status == 200 else None

    def applied(self, topic: str) -> int:
        """How many records of a topic it has applied, durable or not."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        mine = [line for line in lines if line.startswith("millrace_position{") and f'topic="{topic}"' in line]
        return sum(int(float(line.split()[-1])) for line in mine)

    def wait_ready(self, limit_s: float = 40.0) -> float:
        """Seconds from the start of the process until it is ready with some partition."""
        wait_until(self._ready_or_dead, f"{self.name} ready; its log is {self.log}", limit_s, POLL_S)
        return time.monotonic() - self.started

    def _ready_or_dead(self) -> bool:
        assert self.process.poll() is None, f"{self.name} has ended:\n{self.text()[-3000:]}"
        return bool(self.owns())

    def send_signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.wait(10)

    def end(self, number: int = signal.SIGTERM, limit_s: float = 30.0) -> int:
        """End it in good order; returns its exit code."""
        self.send_signal(number)
        return self.process.wait(limit_s)

    def text(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class Fleet:
    """Workers of one topology on one state directory; leaving the context kills what still runs."""

    cluster: Cluster
    directory: Path
    prefix: str
    topology: str = "analytics"
    settings: Mapping[str, str] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def environment(self) -> dict[str, str]:
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("MILLRACE_")},
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
            "MILLRACE_HOME": str(self.directory / "home"),
            "MILLRACE_BOOTSTRAP": self.cluster.bootstrap,
            "MILLRACE_STATE": str(self.state),
            "MILLRACE_PREFIX": self.prefix,
            "MILLRACE_SESSION_S": str(SESSION_S),
            **self.settings,
        }

    def start(self, name: str, *arguments: str, wait: bool = True) -> Worker:
        self.directory.mkdir(parents=True, exist_ok=True)
        port, log = free_port(), self.directory / f"{name}.log"
        command = ["worker", self.topology, "--name", name, "--port", str(port), *arguments]
        with log.open("ab") as out:
            started = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-c", MILLRACE, *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                start_new_session=True,
            )
        worker = self.workers[name] = Worker(name, process, port, log, started)
        if wait:
            worker.wait_ready()
        return worker

    def run_to_its_end(self, *arguments: str, limit_s: float = 60.0) -> "subprocess.CompletedProcess[str]":
        """Run `millrace` with these arguments; for commands that refuse."""
        return subprocess.run(
            [sys.executable, "-c", MILLRACE, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self.environment(),
            timeout=limit_s,
            check=False,
        )

    def wipe_state(self) -> None:
        shutil.rmtree(self.state, ignore_errors=True)

    def owners(self) -> dict[str, set[int]] | None:
        """Who is ready with what, once every running worker is ready."""
        running = {name: w for name, w in self.workers.items() if w.process.poll() is None}
        found = {name: worker.owns() for name, worker in running.items()}
        return None if None in found.values() else found  # type: ignore[return-value]

    def wait_shared(self, names: Sequence[str], partitions: int = 4, limit_s: float = 60.0) -> dict[str, set[int]]:
        """Wait until exactly these workers own all partitions, each partition once and each worker at least one."""

        def shared() -> dict[str, set[int]] | None:
            owners = self.owners()
            if owners is None or set(owners) != set(names) or not all(owners.values()):
                return None
            owned = sorted(n for numbers in owners.values() for n in numbers)
            return owners if owned == list(range(partitions)) else None

        return wait_until(shared, f"{list(names)} share {partitions} partitions", limit_s)  # type: ignore[no-any-return]

    def stop(self) -> None:
        for worker in self.workers.values():
            if worker.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    worker.send_signal(signal.SIGCONT)
                worker.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Shop:
    """The sales topology under a prefix of its own, orders into it, and the ledger of what was sent."""

    def __init__(
        self, cluster: Cluster, prefix: str, *, as_counted: Callable[[Any], Any] = lambda event: event, **shop: Any
    ) -> None:
        self.cluster = cluster
        self._as_counted = as_counted
        self.settings = Settings.from_environment(
            {"MILLRACE_BOOTSTRAP": cluster.bootstrap, "MILLRACE_PREFIX": prefix, "MILLRACE_HOME": "/nonexistent"}
        )
        self.topology = sales_topology(self.settings)
        self.group: Group = self.topology.group
        self.orders = f"{prefix}order-events"
        # a window closes every few thousand events; 3 events a second and customer
        plan = {"topics": ("order-events",), "events_per_s": 200.0, "daily_swing": 0.0, "seed": 7, **shop}
        self._events = emitted(ShopSettings(**plan))
        self.ledger = Ledger(partitions=self.settings.partitions)
        self.sent = 0
        self.events: list[Any] = []
        self._producer = Producer(cluster, **{"message.timeout.ms": 120_000})

    def create_topics(self) -> None:
        ensure_topics(self.cluster, self.topology.topics())

    def send(self, events: int) -> None:
        """Send the next events, in order, and note them."""
        for _ in range(events):
            _, key, value, event = next(self._events)
            self._producer.produce(self.orders, key, value)
            self.events.append(event)
            self.ledger.record(key, self._as_counted(event))
        self.sent += events
        self._producer.flush(120)

    @contextlib.contextmanager
    def load(self, events_per_s: float, batch: int = 500) -> Iterator[None]:
        """Send at a rate in the background while the context lasts."""
        stop, failed = threading.Event(), list[BaseException]()

        def run() -> None:
            try:
                due = time.monotonic()
                while not stop.wait(max(0.0, due - time.monotonic())):
                    self.send(batch)
                    due += batch / events_per_s
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(150)
        if failed:
            raise failed[0]

    def wait_for(self, more: int) -> None:
        """Wait until so many more events have been sent by the load."""
        goal = self.sent + more
        wait_until(lambda: self.sent >= goal, f"{more} more events sent", 120.0)


def ends(cluster: Cluster, topic: str, partitions: int) -> dict[int, int]:
    consumer = confluent_kafka.Consumer(cluster.librdkafka(**{"group.id": "ends", "log_level": 0}))
    try:
        return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in range(partitions)}
    finally:
        consumer.close()


def committed(cluster: Cluster, group: str, topic: str, partitions: int) -> dict[int, int]:
    consumer = confluent_kafka.Consumer(cluster.librdkafka(**{"group.id": group, "log_level": 0}))
    try:
        found = consumer.committed([TopicPartition(topic, p) for p in range(partitions)], timeout=10)
        return {tp.partition: tp.offset for tp in found}
    finally:
        consumer.close()


def read_all(cluster: Cluster, topic: str, partitions: int) -> dict[int, list[Record]]:
    """Every record of a topic, by partition."""
    config = {"group.id": "none", "auto.offset.reset": "error", "enable.auto.commit": False, "log_level": 0}
    consumer = confluent_kafka.Consumer(cluster.librdkafka(**config, **{"enable.partition.eof": True}))
    tps = [TopicPartition(topic, p) for p in range(partitions)]
    for tp in tps:
        tp.offset = consumer.get_watermark_offsets(tp, timeout=10)[0]
    consumer.assign(tps)
    found: dict[int, list[Record]] = {p: [] for p in range(partitions)}
    ended: set[int] = set()
    while len(ended) < partitions:
        for message in consumer.consume(10_000, timeout=0.2):
            error, number = message.error(), message.partition()
            assert number is not None
            if error is not None:
                assert error.code() == confluent_kafka.KafkaError._PARTITION_EOF, error
                ended.add(number)
                continue
            headers: list[tuple[str, bytes]] = list(message.headers() or [])  # type: ignore[arg-type]
            found[number].append(
                MemoryRecord(message.offset() or 0, message.timestamp()[1], message.key(), message.value(), headers)
            )
    consumer.close()
    return found


def wait_applied(shop: Shop, limit_s: float = 90.0) -> None:
    """Return once the group has committed everything of every source, second stages included."""

    def done() -> bool:
        try:
            return all_applied()
        except confluent_kafka.KafkaException:
            return False  # a broker that has just come back does not know its groups yet

    def all_applied() -> bool:
        for source in shop.group.sources:
            name, partitions = source.topic.name, source.topic.partitions
            end, at = ends(shop.cluster, name, partitions), committed(shop.cluster, shop.group.name, name, partitions)
            if any(end[p] and at[p] != end[p] for p in end):
                return False
        return True

    wait_until(done, "everything applied and committed", limit_s, 0.2)


def expected_row(cell: Cell, *, with_customers: bool) -> dict[str, Any]:
    """What a row must say, estimates included: their state does not depend on order."""
    row: dict[str, Any] = {n: getattr(cell, n) for n in ("placed", "cancelled", "refunded", "orders", "units")}
    if with_customers:
        distinct, quantiles = Distinct(), Quantiles()
        customers, values = distinct.initial(), quantiles.initial()
        for customer in cell.customers:
            customers = distinct.add(customers, int(customer))
        for value in cell.order_values:
            values = quantiles.add(values, value)
        row |= {"customers": distinct.result(customers), "order_value": quantiles.result(values)}
    return row


def assert_exact(shop: Shop) -> int:
    """Compare every cell of every table with the ledger, and finals and side topics too; returns how many cells."""
    cells = 0
    expected: dict[str, dict[tuple[int, str], dict[str, Any]]] = {}
    for by in BY:
        table = next(t for t in shop.group.tables if t.name == f"sales_by_{by}")
        rows = {k: expected_row(c, with_customers=by != "product") for k, c in shop.ledger.cells(by).items()}
        changelog = read_all(shop.cluster, shop.group.changelog(table).name, shop.settings.partitions)
        found = {key: reading.results for key, reading in read_cells(table, changelog).items()}
        assert_same(found, rows, table.name)
        expected[table.name] = rows
        cells += len(rows)
    assert_finals(shop, expected)
    late = [dict(r.headers)["id"] for rs in _records(shop, f"{shop.orders}.late") for r in rs]
    assert len(set(late)) == sum(source.late for source in shop.ledger.sources)
    return cells


def _records(shop: Shop, topic: str) -> list[list[Record]]:
    return list(read_all(shop.cluster, topic, shop.settings.partitions).values())


def assert_finals(shop: Shop, expected: Mapping[str, Mapping[tuple[int, str], Mapping[str, Any]]]) -> None:
    """Every closed slice has its final result, and it is the ledger's."""
    edge = min(source.watermark for source in shop.ledger.sources) - 60_000
    closed = edge - edge % 60_000
    found: dict[tuple[str, int, str], dict[str, Any]] = {}
    for records in _records(shop, f"{shop.settings.prefix}sales-per-minute"):
        for record in records:
            assert record.value is not None
            value = json.loads(record.value)
            found[value["table"], value["windowStart"], value["key"]] = value
    for name, rows in expected.items():
        if name != "sales_by_product":
            mine = {(w, k): {n: v[n] for n in rows[w, k]} for (t, w, k), v in found.items() if t == name}
            assert_same(mine, {key: row for key, row in rows.items() if key[0] < closed}, f"finals of {name}")


def assert_same(found: Mapping[Any, Any], expected: Mapping[Any, Any], what: str) -> None:
    wrong = [k for k in sorted(found.keys() | expected.keys()) if found.get(k) != expected.get(k)]
    lines = [f"{k}: is {found.get(k)}, must be {expected.get(k)}" for k in wrong[:5]]
    assert not wrong, f"{what}: {len(wrong)} of {len(expected)} cells are wrong:\n" + "\n".join(lines)


def new_prefix(name: str) -> str:
    """A prefix that no other test has used on this cluster."""
    return f"{name}-{uuid4().hex[:6]}-"
