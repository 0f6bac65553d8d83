"""A soak: days of event time in minutes, under faults, while memory, disk and open files are watched.

One worker and the view server are never ended, so that what leaks in them shows; the faults befall the others, and
the broker. They begin with a backlog, since a worker that catches up with full batches holds its most: what it is
given once it keeps for the next time, and that is not to be taken for a leak.

Event time runs many times as fast as time and windows are kept for an hour of it, so that everything that must be
given back (closed cells, expired windows, event ids, logs after compaction) has to be given back many times. At the
end what is still kept, and all final results of all that time, are compared with the ledger.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import linear_regression, median
from typing import Any, Final

import psutil

from streams.broker import Broker
from streams.simulator.ledger import Ledger
from streams.simulator.run import Plan, plan_run
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS
from topologies.chaos.compare import compare_all
from topologies.chaos.faults import FAULTS
from topologies.chaos.fleet import Fleet
from topologies.chaos.run import SETTLE_S, environment_of, start_fleet
from topologies.demo.client import Client
from topologies.demo.processes import Child, Children
from topologies.demo.run import Demo
from topologies.settings import Settings

SPARED: Final = 0
BEFALLING: Final = ("kill", "kill-at-point", "join-leave", "pause", "kill-at-hand-over")
RETENTION_S: Final = 3600.0
SAMPLE_S: Final = 2.0
BETWEEN_S: Final = (10.0, 20.0)
# What a start needs (caches, RocksDB's buffers) is there after this share of the run.
WARM: Final = 0.25
BACKLOG: Final = 500_000
MIB: Final = 1 << 20


@dataclass
class Series:
    """One measure over time: MiB or a number, at seconds since the start."""

    at: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, at: float, value: float) -> None:
        """One more sample."""
        self.at.append(at)
        self.values.append(value)

    def told(self) -> dict[str, float]:
        """Medians of the second and of the last quarter, the highest value, and the trend of the last three quarters.

        `per_hour` is the slope of a straight line, in the measure's unit an hour of running.
        """
        since = [i for i, at in enumerate(self.at) if at >= self.at[-1] * WARM]
        at, values = [self.at[i] for i in since], [self.values[i] for i in since]
        quarter = max(1, len(values) // 3)
        slope = linear_regression(at, values).slope if len(set(at)) > 1 else 0.0
        return {
            "early": round(median(values[:quarter]), 1),
            "late": round(median(values[-quarter:]), 1),
            "highest": round(max(self.values), 1),
            "per_hour": round(slope * 3600, 1),
        }


def soak(
    settings: Settings,
    broker: Broker | None,
    directory: Path,
    *,
    minutes: float,
    rate: float,
    speed: float,
    seed: int,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Run for so long and compare; returns the figures, `exact` and `mismatches` among them."""
    settings = replace(settings, retention_s=RETENTION_S)
    environment = {**environment_of(settings), "MILLRACE_RETENTION_S": str(RETENTION_S)}
    rng, measured = random.Random(seed), dict[str, Series]()
    with ExitStack() as stack:
        children = stack.enter_context(Children(directory / "logs", environment))
        ledger = Ledger(settings.partitions, currency=settings.currency)
        shop = ShopSettings(
            seed=seed, topics=(ORDER_EVENTS.name,), duplicates=0.01, late_sessions=0.01, daily_swing=0.0
        )
        events = round(rate * minutes * 60)
        plan = plan_run(shop, now_ms=time.time_ns() // 1_000_000, events=events, rate=rate, speed=speed)
        client = Client(f"http://127.0.0.1:{settings.views_port}", settings.read_token)
        demo = Demo(settings, children, client, plan, ledger)
        stack.callback(demo.end)
        fleet = start_fleet(settings, children, broker, demo)
        fleet.spared = frozenset({SPARED})
        _catch_up(fleet, demo, plan, report)
        watch = _Watch(settings, fleet, children, measured)
        stack.enter_context(watch)
        demo.simulate()
        struck = _strike(fleet, demo, rng, BEFALLING if broker is None else (*BEFALLING, "broker"), report, watch)
        demo.wait(lambda: not demo.simulating, SETTLE_S, "the simulator has not ended")
        demo.wait(demo.caught_up, SETTLE_S, "the views have not caught up")
        newest = max(source.watermark for source in ledger.sources)
        kept_from = newest - round(RETENTION_S * 1000) // 2
        compared = compare_all(settings, ledger, client, kept_from=kept_from - kept_from % (settings.slice_s * 1000))
        mismatches = [f"{name}: {one}" for name, found in compared.items() for one in found.mismatches]
        return {
            "minutes": round(watch.elapsed / 60, 1),
            "event_hours": round((newest - plan.shop.start_ms) / 3.6e6, 1),
            "events": demo.sent.events,
            "faults": struck,
            "cells": sum(found.cells for found in compared.values()),
            "exact": not mismatches,
            "mismatches": mismatches,
            "measured": {name: series.told() for name, series in measured.items()},
        }


def _catch_up(fleet: Fleet, demo: Demo, plan: Plan, report: Callable[[str], None]) -> None:
    """Have the workers find a backlog of the hours before the plan; one catches up alone."""
    hours_ms = round(BACKLOG * 1000 / plan.shop.events_per_s)
    demo.plan = Plan(
        replace(plan.shop, seed=plan.shop.seed + 1, start_ms=plan.shop.start_ms - hours_ms), BACKLOG, 0.0, 1.0
    )
    for slot in list(fleet.workers):
        fleet.kill(slot)
    demo.simulate()
    demo.wait(lambda: not demo.simulating, SETTLE_S, "the backlog is not sent")
    fleet.start(SPARED)
    demo.wait(demo.caught_up, SETTLE_S, "the views have not caught up")
    fleet.start(1)
    fleet.wait_ready()
    report(f"caught up with {BACKLOG:,} events")
    demo.plan = plan


def _strike(
    fleet: Fleet,
    demo: Demo,
    rng: random.Random,
    names: Sequence[str],
    report: Callable[[str], None],
    watch: "_Watch",
) -> int:
    struck = 0
    while _goes_on(demo, rng.uniform(*BETWEEN_S)):
        name = rng.choice(names)
        FAULTS[name](fleet, rng)
        fleet.wait_ready()
        struck += 1
        report(f"{watch.elapsed / 60:5.1f} min  {demo.sent.events:>10,} events  {watch.line()}  after {name}")
    return struck


def _goes_on(demo: Demo, seconds: float) -> bool:
    """Wait; returns whether events are still being sent then."""
    until = time.monotonic() + seconds
    while demo.simulating:
        if time.monotonic() >= until:
            return True
        time.sleep(0.2)
    return False


class _Watch:
    """Takes a sample every two seconds, in a thread of its own."""

    def __init__(self, settings: Settings, fleet: Fleet, children: Children, measured: dict[str, Series]) -> None:
        self._state = settings.state_dir / fleet.group
        views = next(child for child in children.running if child.name == "views")
        self._processes = {"worker": _process(fleet.workers[SPARED]), "views": _process(views)}
        self._measured = measured
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="soak", daemon=True)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def line(self) -> str:
        """The newest samples in one line."""
        return "  ".join(f"{name} {series.values[-1]:.0f}" for name, series in self._measured.items())

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            for name, process in self._processes.items():
                try:
                    self._add(f"{name}_mib", process.memory_info().rss / MIB)
                    self._add(f"{name}_files", process.num_fds())
                except psutil.Error:
                    return
            views = sum(_size(path) for path in self._state.glob("views-*"))
            self._add("worker_state_mib", (_size(self._state) - views) / MIB)
            self._add("views_state_mib", views / MIB)

    def _add(self, name: str, value: float) -> None:
        self._measured.setdefault(name, Series()).add(self.elapsed, value)


def _process(child: Child) -> psutil.Process:
    return psutil.Process(child.process.pid)


def _size(path: Path) -> int:
    total = 0
    for file in path.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:  # RocksDB deletes files at any time
            continue
    return total
