"""How soon a worker is ready again after `kill -9` under load, with its local state: process start to `/readyz`."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil

from bench.freshness import quantile
from streams.errors import MillraceError
from streams.simulator.ledger import Ledger
from streams.simulator.run import plan_run
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS, ensure_topics
from topologies.chaos.fleet import Fleet, owned_by
from topologies.chaos.run import environment_of
from topologies.demo.client import Client
from topologies.demo.processes import Children
from topologies.demo.run import Demo
from topologies.sales import GROUP, sales_topology
from topologies.settings import Settings

# Long enough for several flushes and a good many accumulators since the last start.
BETWEEN_S: Final = 2.0
ASK_EVERY_S: Final = 0.01
GIVE_UP_S: Final = 90.0


def measure(
    settings: Settings, directory: Path, kills: int, rate: float, done: Callable[[int, float], None]
) -> dict[str, Any]:
    """Kill the only worker `kills` times under `rate` orders a second; `done` hears how long each start took (s).

    Processor time until then is told beside it: a busy machine stretches the one and hardly the other.
    """
    took: list[float] = []
    worked: list[float] = []
    with ExitStack() as stack:
        children = stack.enter_context(Children(directory / "logs", environment_of(settings)))
        plan = plan_run(ShopSettings(topics=(ORDER_EVENTS.name,)), now_ms=time.time_ns() // 1_000_000, rate=rate)
        client = Client(f"http://127.0.0.1:{settings.views_port}")
        demo = Demo(settings, children, client, plan, Ledger(settings.partitions))
        stack.callback(demo.end)
        ensure_topics(settings.cluster, sales_topology(settings).topics())
        fleet = Fleet(settings, children, settings.prefix + GROUP)
        fleet.start(0)
        fleet.wait_ready()
        demo.simulate()
        for number in range(kills):
            time.sleep(BETWEEN_S)
            fleet.kill(0)
            took.append(_started(fleet, settings.partitions))
            worked.append(sum(psutil.Process(fleet.workers[0].process.pid).cpu_times()[:2]))
            done(number, took[-1])
        lasting = demo.simulating
    if not lasting:
        raise MillraceError("the load ended before the last kill: the figures would be of an idle worker")
    return {**summary(took), "median_cpu_s": round(median(worked), 3)}


def _started(fleet: Fleet, partitions: int) -> float:
    began = time.perf_counter()
    fleet.start(0)
    while len(owned_by(fleet.ports[0]) or ()) < partitions:
        if time.perf_counter() - began > GIVE_UP_S:
            raise MillraceError(f"the worker is not ready after {GIVE_UP_S:g} s: {fleet.last_line(0)}")
        time.sleep(ASK_EVERY_S)
    return time.perf_counter() - began


def summary(took: list[float]) -> dict[str, Any]:
    """Median, p95 and maximum in seconds.

    >>> summary([1.0, 2.0, 3.0])
    {'kills': 3, 'median_s': 2.0, 'p95_s': 3.0, 'max_s': 3.0}
    """
    ordered = sorted(took)
    figures = {"median_s": median(ordered), "p95_s": quantile(ordered, 0.95), "max_s": ordered[-1]}
    return {"kills": len(ordered), **{name: round(figure, 3) for name, figure in figures.items()}}
