"""How much memory a worker holds while millions of events pass, hours of event time and expired windows among them."""

import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from streams.errors import MillraceError
from streams.producers import Producer
from streams.simulator.run import plan_run, run
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS, ensure_topics
from topologies.demo.processes import Child, Children
from topologies.names import free_port
from topologies.sales import own_topic, sales_topology
from topologies.settings import Settings

# 200 events a second of event time: 5 million are 7 hours, of which one is kept.
SPEED: Final = 10.0
RETENTION_S: Final = 3600.0
EVERY_S: Final = 1.0
METRIC: Final = "millrace_events_total"
MIB: Final = 1 << 20


@dataclass
class Samples:
    """What the worker held, by how many order events it had applied; bytes of state on disk beside it."""

    events: list[int] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    state: list[int] = field(default_factory=list)

    def near(self, events: int) -> int:
        """The largest resident size in the tenth of the run that ends there."""
        found = [(at, rss) for at, rss in zip(self.events, self.rss, strict=True) if at <= events * 1.02]
        return max(rss for at, rss in found if at >= found[-1][0] * 0.9)


def measure(settings: Settings, directory: Path, events: int, report: Callable[[str], None]) -> dict[str, Any]:
    """Send `events` orders flat out to one worker and watch it until it has applied all of them."""
    settings_of_worker = {
        "MILLRACE_BOOTSTRAP": settings.cluster.bootstrap,
        "MILLRACE_STATE": str(settings.state_dir),
        "MILLRACE_PREFIX": settings.prefix,
        "MILLRACE_RETENTION_S": str(RETENTION_S),
    }
    ensure_topics(settings.cluster, sales_topology(settings).topics())
    port, samples = free_port(), Samples()
    with Children(directory / "logs", settings_of_worker) as children:
        worker = children.start("worker", ["worker", "analytics", "--port", str(port), "-l", "warning"])
        sender = threading.Thread(target=_send, args=(settings, events), daemon=True)
        sender.start()
        _watch(worker, port, settings.state_dir, samples, events, report)
    half, end = samples.near(events // 2), samples.near(events)
    return {
        "events": events,
        "peak_mib": round(max(samples.rss) / MIB),
        "half_mib": round(half / MIB),
        "end_mib": round(end / MIB),
        "growth": round(end / half - 1, 3),
        "state_mib": round(samples.state[-1] / MIB),
    }


def _send(settings: Settings, events: int) -> None:
    shop = ShopSettings(topics=(ORDER_EVENTS.name,), daily_swing=0.0)
    plan = plan_run(shop, now_ms=time.time_ns() // 1_000_000, events=events, speed=SPEED)
    with Producer(settings.cluster) as producer:
        run(plan, _Prefixed(producer, own_topic(ORDER_EVENTS, settings).name))  # type: ignore[arg-type]


@dataclass
class _Prefixed:
    """A producer that sends everything to one topic."""

    producer: Producer
    topic: str

    def produce(self, topic: str, key: bytes, value: bytes, timestamp_ms: int | None = None) -> None:
        """Send a record to the topic, whichever was named."""
        self.producer.produce(self.topic, key, value, timestamp_ms=timestamp_ms)

    def check(self) -> None:
        """Raise what went wrong so far."""
        self.producer.check()

    def flush(self) -> None:
        """Wait for all acknowledgements."""
        self.producer.flush()


def _watch(worker: Child, port: int, state: Path, samples: Samples, events: int, report: Callable[[str], None]) -> None:
    process, told = psutil.Process(worker.process.pid), 0
    while not samples.events or samples.events[-1] < events:
        time.sleep(EVERY_S)
        if worker.process.poll() is not None:
            raise MillraceError(f"the worker has ended by itself; its log is {worker.log}")
        samples.events.append(applied(port))
        samples.rss.append(process.memory_info().rss)
        samples.state.append(sum(f.stat().st_size for f in state.rglob("*.sst")))
        if samples.events[-1] >= told:
            told += max(1, events // 20)
            report(f"{samples.events[-1]:>10,} events  {samples.rss[-1] // MIB:>5} MiB")


def applied(port: int) -> int:
    """How many order events the worker has taken; 0 while it does not answer."""
    lines = [line for line in page(port) if line.startswith(METRIC) and "order-events" in line]
    return round(sum(float(line.split()[-1]) for line in lines))


def page(port: int) -> list[str]:
    """The lines of a worker's metrics; none while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
    except OSError:
        return []
    return text.splitlines()
