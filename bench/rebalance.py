"""How long the others stand still while a third worker joins and leaves, under load, and what takes the time."""

import statistics
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

from streams.simulator.ledger import Ledger
from streams.simulator.run import plan_run
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS, ensure_topics
from topologies.chaos.faults import THIRD
from topologies.chaos.fleet import Fleet
from topologies.chaos.run import environment_of
from topologies.demo.client import Client
from topologies.demo.processes import Children
from topologies.demo.run import Demo
from topologies.sales import GROUP, sales_topology
from topologies.settings import Settings

STAGES = ("flush_s", "group_s", "restore_s")
BETWEEN_S = 1.0


def measure(
    settings: Settings, directory: Path, joins: int, rate: float, report: Callable[[str], None]
) -> dict[str, Any]:
    """Join and leave `joins` times under `rate` orders a second; the two that stay tell how long they stood still."""
    with ExitStack() as stack:
        children = stack.enter_context(Children(directory / "logs", environment_of(settings)))
        shop = ShopSettings(topics=(ORDER_EVENTS.name,))
        plan = plan_run(shop, now_ms=time.time_ns() // 1_000_000, rate=rate)
        client = Client(f"http://127.0.0.1:{settings.views_port}")
        demo = Demo(settings, children, client, plan, Ledger(settings.partitions))
        stack.callback(demo.end)
        ensure_topics(settings.cluster, sales_topology(settings).topics())
        fleet = Fleet(settings, children, settings.prefix + GROUP)
        for slot in (0, 1):
            fleet.start(slot)
        fleet.wait_ready()
        demo.simulate()
        before = [len(pauses_of(fleet, slot)) for slot in (0, 1)]
        for number in range(joins):
            report(f"join {number + 1} of {joins}")
            time.sleep(BETWEEN_S)
            fleet.start(THIRD)
            fleet.wait_ready()
            time.sleep(BETWEEN_S)
            fleet.end(THIRD)
            fleet.wait_ready()
        found = [pause for slot in (0, 1) for pause in pauses_of(fleet, slot)[before[slot] :]]
    return summary(found)


def pauses_of(fleet: Fleet, slot: int) -> list[dict[str, float]]:
    """What a worker says of its rebalances."""
    with urllib.request.urlopen(f"http://127.0.0.1:{fleet.ports[slot]}/rebalances", timeout=5) as response:
        pauses: list[dict[str, float]] = orjson.loads(response.read())["pauses"]
        return pauses


def summary(pauses: list[dict[str, float]]) -> dict[str, Any]:
    """Median, p95 and maximum of the pauses in seconds, and the median of each stage.

    >>> summary([{"flush_s": 0.1, "group_s": 0.5, "restore_s": 0.2}])["median_s"]
    0.8
    """
    totals = sorted(sum(pause[stage] for stage in STAGES) for pause in pauses)
    return {
        "rebalances": len(totals),
        "median_s": round(statistics.median(totals), 3),
        "p95_s": round(totals[min(len(totals) - 1, int(len(totals) * 0.95))], 3),
        "max_s": round(totals[-1], 3),
        "stages_median_s": {stage: round(statistics.median(p[stage] for p in pauses), 3) for stage in STAGES},
    }
