"""What an event costs, in processor time, bytes and keys: the figures that a larger shop is reckoned from.

One worker takes events at a pace, as it would live: what a flush costs five times a second is in the figures. The
shop's customers, products and their popularity are the simulator's.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

import psutil

from bench.memory import METRIC, page
from streams.admin.reading import Begin, Stop, read
from streams.broker import Broker
from streams.errors import MillraceError
from streams.producers import Producer
from streams.simulator.run import plan_run, run
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS, PAYMENT_NOTIFICATIONS, USER_ACTIVITY, ensure_topics
from topologies.demo.client import Client
from topologies.demo.processes import Child, Children
from topologies.loading import load_topology
from topologies.names import free_port
from topologies.settings import Settings

READY_S: Final = 60.0
STILL_S: Final = 2.0
# Of a processor, a partition's disk and its network: what is left is for catching up and for what is not foreseen.
BUSY: Final = 0.6


@dataclass(frozen=True)
class Cost:
    """What one worker needed; `cpu_us` and the changelog's figures are for one event that it took."""

    topology: str
    events: int
    cpu_us: float
    changelog_records: float
    changelog_bytes: float
    keys: int
    bytes_a_key: float
    rss_mib: int


@dataclass(frozen=True)
class Wire:
    """What Kafka needed for one event: bytes on disk (compressed, one copy), and the broker's processor time."""

    bytes: float
    broker_cpu_us: float


@dataclass(frozen=True)
class Needs:
    """What a rate takes: partitions of each source topic, workers (one core each), brokers, and disk over retention."""

    partitions: int
    workers: int
    brokers: int
    disk_tb: float


def needs(
    rate: float,
    cpu_us: float,
    wire_bytes: float,
    *,
    copies: int = 3,
    retention_days: float = 7,
    broker_mb_s: float = 150.0,
    partition_mb_s: float = 10.0,
) -> Needs:
    """What a rate of events (per second) takes, on paper.

    A worker is one core, busy to 60%. There are twice as many partitions as workers, so that there can be more, and
    so many that none takes more than `partition_mb_s`; a broker writes `broker_mb_s`, copies included; at least three.

    >>> needs(1_000_000, 10, 100)
    Needs(partitions=34, workers=17, brokers=3, disk_tb=181.4)
    """
    workers = max(1, ceil(rate * cpu_us / 1e6 / BUSY))
    written_mb_s = rate * wire_bytes / 1e6
    partitions = max(2 * workers, ceil(written_mb_s / partition_mb_s))
    brokers = max(copies, ceil(copies * written_mb_s / broker_mb_s))
    disk_tb = round(copies * written_mb_s * retention_days * 86_400 / 1e6, 1)
    return Needs(partitions, workers, brokers, disk_tb)


def measure(
    settings: Settings, directory: Path, name: str, events: int, rate: float, tell: Callable[[str], None]
) -> tuple[Wire, Cost]:
    """Measure one of our topologies on the embedded broker of `directory`, which nobody has used."""
    topics = [ORDER_EVENTS, USER_ACTIVITY, PAYMENT_NOTIFICATIONS, *load_topology(name, settings).topics()]
    ensure_topics(settings.cluster, {topic.name: topic for topic in topics}.values())
    environment = {"MILLRACE_BOOTSTRAP": settings.cluster.bootstrap, "MILLRACE_STATE": str(settings.state_dir)}
    with Children(directory / "logs", environment) as children:
        port = free_port()
        worker = children.start(name, ["worker", name, "--port", str(port), "-l", "warning"])
        tell(f"{name}: {events:,} events at {rate:,.0f}/s")
        wire, (taken, cpu_s, rss) = _under_load(directory, worker, port, settings, events, rate)
    records, size, keys, kept = _changelogs(settings, name)
    cost = Cost(name, taken, cpu_s / taken * 1e6, records / taken, size / taken, keys, kept / max(keys, 1), rss >> 20)
    return wire, cost


def _under_load(
    directory: Path, worker: Child, port: int, settings: Settings, events: int, rate: float
) -> tuple[Wire, tuple[int, float, int]]:
    process = psutil.Process(worker.process.pid)
    broker = _broker(directory)
    _await_ready(worker, port)
    cpu_before, broker_before = _cpu_s(process), _cpu_s(broker)
    bytes_before = _stored(directory)
    plan = plan_run(ShopSettings(daily_swing=0.0), now_ms=time.time_ns() // 1_000_000, events=events, rate=rate)
    with Producer(settings.cluster) as producer:
        run(plan, producer)
    rss = process.memory_info().rss
    taken = _settled(port)
    wire = Wire((_stored(directory) - bytes_before) / events, (_cpu_s(broker) - broker_before) / events * 1e6)
    return wire, (taken, _cpu_s(process) - cpu_before, rss)


def _await_ready(worker: Child, port: int) -> None:
    client, deadline = Client(f"http://127.0.0.1:{port}"), time.monotonic() + READY_S
    while True:
        try:
            if client.get("/readyz")["ready"]:
                return
        except OSError:
            pass
        if worker.process.poll() is not None or time.monotonic() > deadline:
            raise MillraceError(f"{worker.name} does not get ready; its log is {worker.log}")
        time.sleep(0.1)


def _settled(port: int) -> int:
    """How many events were taken, once that stands still."""
    before, since = _taken(port), time.monotonic()
    while time.monotonic() - since < STILL_S:
        time.sleep(0.2)
        if (now := _taken(port)) != before:
            before, since = now, time.monotonic()
    return before


def _taken(port: int) -> int:
    return round(sum(float(line.split()[-1]) for line in page(port) if line.startswith(METRIC)))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _broker(directory: Path) -> psutil.Process:
    (node,) = Broker(directory).status().nodes
    return psutil.Process(node.pid)


def _stored(directory: Path) -> int:
    """Bytes of the shop's own topics in Kafka's files."""
    data = directory / "broker" / "node-1" / "data"
    return sum(path.stat().st_size for topic in ShopSettings().topics for path in data.glob(f"{topic}-[0-9]*/*.log"))


def _changelogs(settings: Settings, name: str) -> tuple[int, int, int, int]:
    """Of all tables' changelogs: records, their bytes, keys that have a value, and these keys' bytes."""
    group = load_topology(name, settings).group
    records = size = keys = kept = 0
    for table in group.tables:
        newest: dict[tuple[int, bytes], int] = {}
        for place, key, length in _entries(settings, group.changelog(table).name):
            records, size = records + 1, size + len(key) + length
            newest[place, key] = length
        found = {entry: length for entry, length in newest.items() if length}
        keys, kept = keys + len(found), kept + sum(len(key) + length for (_, key), length in found.items())
    return records, size, keys, kept


def _entries(settings: Settings, topic: str) -> Iterator[tuple[int, bytes, int]]:
    for messages in read(settings.cluster, topic, Begin("beginning"), Stop(at_ends=True)):
        for message in messages:
            key, value = message.key(), message.value()
            yield message.partition() or 0, key if isinstance(key, bytes) else b"", len(value or b"")
