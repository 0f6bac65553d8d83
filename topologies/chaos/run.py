"""One run: start a fleet, let the shop sell, do one fault after the other, let everything settle, compare."""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from streams.broker import Broker
from streams.errors import MillraceError
from streams.simulator.ledger import Ledger
from streams.simulator.run import plan_run
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS, ensure_topics
from topologies.chaos.compare import compare_all
from topologies.chaos.faults import FAULTS
from topologies.chaos.fleet import Fleet
from topologies.demo.client import Client
from topologies.demo.processes import Children
from topologies.demo.run import Demo
from topologies.sales import GROUP, sales_topology
from topologies.settings import Settings

BETWEEN_S = (0.3, 1.5)
SETTLE_S = 240.0
# Segments that roll at once and a cleaner that may take them: what compaction can break, it breaks in a run.
SMALL_SEGMENTS = {
    "segment.ms": "1000",
    "segment.bytes": "1048576",
    "min.cleanable.dirty.ratio": "0.01",
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "1000",
}


@dataclass
class Outcome:
    """What one run came to."""

    seed: int
    faults: list[str] = field(default_factory=list)
    counted: int = 0
    events: int = 0
    cells: int = 0
    mismatches: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether everything that was compared agreed."""
        return not self.mismatches


def schedule(seed: int, count: int, names: Sequence[str]) -> list[str]:
    """The faults of a run, in order: the same for the same seed."""
    rng = random.Random(seed)
    return [rng.choice(list(names)) for _ in range(count)]


def run_once(
    settings: Settings,
    broker: Broker | None,
    directory: Path,
    seed: int,
    faults: Sequence[str],
    *,
    rate: float,
    report: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Run the sales topology under these faults. `settings` have a prefix and a state directory of the run's own."""
    began = time.monotonic()
    outcome = Outcome(seed)
    rng = random.Random(seed)
    with ExitStack() as stack:
        children = stack.enter_context(Children(directory / "logs", environment_of(settings)))
        ledger = Ledger(settings.partitions, currency=settings.currency)
        shop = ShopSettings(seed=seed, topics=(ORDER_EVENTS.name,), duplicates=0.01, late_sessions=0.01)
        plan = plan_run(shop, now_ms=time.time_ns() // 1_000_000, rate=rate, speed=20.0)
        client = Client(f"http://127.0.0.1:{settings.views_port}", settings.read_token)
        demo = Demo(settings, children, client, plan, ledger)
        stack.callback(demo.end)
        fleet = _start(settings, children, broker, demo)
        demo.simulate()
        for name in faults:
            time.sleep(rng.uniform(*BETWEEN_S))
            report(name)
            sent = demo.sent.events
            FAULTS[name](fleet, rng)
            fleet.wait_ready()
            outcome.faults.append(name)
            # The load never pauses, so there is unflushed state at any moment that events are being sent.
            outcome.counted += demo.sent.events > sent and demo.simulating
        demo.stop.set()
        demo.wait(lambda: not demo.simulating, SETTLE_S, "the simulator has not ended")
        report("settling")
        demo.wait(demo.caught_up, SETTLE_S, "the views have not caught up")
        for name, comparison in compare_all(settings, ledger, client).items():
            outcome.cells += comparison.cells
            outcome.mismatches += [f"{name}: {mismatch}" for mismatch in comparison.mismatches]
        outcome.events = demo.sent.events
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings that the children of a run need."""
    return {
        "MILLRACE_BOOTSTRAP": settings.cluster.bootstrap,
        "MILLRACE_HOME": str(settings.home),
        "MILLRACE_STATE": str(settings.state_dir),
        "MILLRACE_PREFIX": settings.prefix,
        "MILLRACE_SESSION_S": str(settings.session_s),
    }


def _start(settings: Settings, children: Children, broker: Broker | None, demo: Demo) -> Fleet:
    topology = sales_topology(settings)
    ensure_topics(settings.cluster, topology.topics())
    shrink_segments(settings, [topology.group.changelog(table).name for table in topology.group.tables])
    fleet = Fleet(settings, children, settings.prefix + GROUP, broker)
    for slot in (0, 1):
        fleet.start(slot)
    children.start("views", ["views", "--port", str(settings.views_port)])
    demo.wait(demo.views_answer, 60.0, "the view server does not answer")
    fleet.wait_ready()
    return fleet


def shrink_segments(settings: Settings, topics: Sequence[str]) -> None:
    """Let compaction come as soon as it can. Raises MillraceError if the cluster does not allow it."""
    admin: Any = AdminClient(settings.cluster.librdkafka(log_level=0))
    changes = [
        ConfigResource(
            ResourceType.TOPIC,
            topic,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in SMALL_SEGMENTS.items()
            ],
        )
        for topic in topics
    ]
    for topic, changed in admin.incremental_alter_configs(changes).items():
        if error := changed.exception():
            raise MillraceError(f"{topic} cannot be given small segments: {error}")
