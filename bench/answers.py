"""How long the views of behaviour and recommendations take to answer while events flow in.

A shop is there that was busy for three hours; it goes on at a rate, one worker of each topology takes it in, and a view
server follows both. Requests are sent at fixed times, whether earlier ones are answered or not (an open loop), and a
request's time is from when it was to be sent: what holds the server up is seen by all that would have come meanwhile.

All of it shares the machine: broker, simulator, two workers, the view server, and the asking itself, whose own delays
count as well. So the view server's processor time is told too. With `real_time` server and asking have real-time
priority (`topologies.real_time`): the one answers, and the other would be on a machine of its own, before those that
count.
"""

import asyncio
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from bench.asking import END_OF_HEAD, LENGTH, request_of
from bench.busy import SHOP, TOPICS, busy_shop
from bench.freshness import quantile
from streams.cluster import Cluster
from topologies.demo.processes import Child
from topologies.real_time import running_first

TOPOLOGIES: Final = ("behaviour", "recommendations")
WARM_UP_S: Final = 5.0
RANKS: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
PATHS: Final = (
    "/api/recommendations/products/{product}",
    "/api/recommendations/users/{user}",
    "/api/trending",
    "/api/sessions/{user}",
    "/api/funnel",
)
# At 10 ms an answer they would do for 3,200 a second.
CONNECTIONS: Final = 32


@dataclass
class Asked:
    """By path, the seconds from the intended time to the whole answer, and its status; and how late each was sent."""

    times: dict[str, list[tuple[float, int]]]
    late: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Questions:
    """So many `requests` a second in all, for so many `seconds`, beside `rate` events a second."""

    rate: float
    requests: float
    seconds: float
    real_time: bool = False


def measure(cluster: Cluster, home: Path, questions: Questions) -> dict[str, Any]:
    """Times of the answers by path. Raises MillraceError for a process gone, and what `run_first` raises."""
    rate, requests, seconds = questions.rate, questions.requests, questions.seconds
    with busy_shop(cluster, home, TOPOLOGIES, views=["--real-time"] if questions.real_time else []) as running:
        live = ["simulate", "--rate", str(rate), "--topics", TOPICS, "--json", "--no-progress"]
        simulator = running.children.start("simulator", live)
        time.sleep(WARM_UP_S)
        views = next(child for child in running.children.running if child.name == "views")
        began, cpu = time.monotonic(), _cpu_s(views)
        with running_first() if questions.real_time else nullcontext():
            asked = asyncio.run(_ask(running.client.url, requests, seconds))
        spent, took = _cpu_s(views) - cpu, time.monotonic() - began
        running.children.check()
        running.children.end(simulator)
    times = asked.times
    sent = orjson.loads(simulator.log.read_bytes().splitlines()[-1])
    return {
        "events_per_s": round(sent["events_per_s"]),
        "requests_per_s": round(sum(map(len, times.values())) / seconds),
        "paths": {path: _figures(found) for path, found in times.items()},
        "all": _figures([one for found in times.values() for one in found]),
        "sent_late_p99_ms": round(1000 * quantile(sorted(asked.late), 0.99), 2),
        "view_server_cores": round(spent / took, 2),
        "real_time": questions.real_time,
        "machine_cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def _cpu_s(child: Child) -> float:
    """Processor seconds of a process, 0 where the system does not tell."""
    stat = Path(f"/proc/{child.process.pid}/stat")
    if not stat.exists():
        return 0.0
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def _ask(url: str, requests: float, seconds: float) -> Asked:
    """Send so many a second at fixed times over a few connections that stay open; whoever is free takes the next."""
    chance = random.Random(7)
    asked = Asked({path: [] for path in PATHS})
    began = time.perf_counter() + 0.1
    due = iter(_due(chance, began, requests, seconds))
    address = urlsplit(url)
    asking = (_connection(address.hostname or "", address.port or 80, due, asked) for _ in range(CONNECTIONS))
    await asyncio.gather(*asking)
    return asked


def _due(chance: random.Random, began: float, requests: float, seconds: float) -> Iterator[tuple[float, str, bytes]]:
    for number in range(round(requests * seconds)):
        path = PATHS[number % len(PATHS)]
        named = path.format(product=chance.randint(1, SHOP.products), user=chance.randint(1, SHOP.users))
        yield began + number / requests, path, request_of(named)


async def _connection(host: str, port: int, due: Iterator[tuple[float, str, bytes]], asked: Asked) -> None:
    # By hand: aiohttp's client takes 0.7 ms of processor time for a request, which the server would have to wait for.
    reader, writer = await asyncio.open_connection(host, port)
    try:
        for intended, path, request in due:
            await asyncio.sleep(max(0.0, intended - time.perf_counter()))
            asked.late.append(time.perf_counter() - intended)
            writer.write(request)
            head = await reader.readuntil(END_OF_HEAD)
            await reader.readexactly(int(LENGTH.search(head)[1]))  # type: ignore[index]  # our server always says it
            asked.times[path].append((time.perf_counter() - intended, int(head.split(b" ", 2)[1])))
    finally:
        writer.close()


def _figures(found: Sequence[tuple[float, int]]) -> dict[str, Any]:
    ordered = sorted(seconds for seconds, _ in found)
    ms = {f"{name}_ms": round(1000 * quantile(ordered, rank), 2) for name, rank in RANKS}
    statuses = [status for _, status in found]
    return {**ms, "answers": len(found), "not_found": statuses.count(404), "failed": _failed(statuses)}


def _failed(statuses: Sequence[int]) -> int:
    return sum(status not in (200, 404) for status in statuses)
