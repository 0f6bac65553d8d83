"""How long the views of behaviour and recommendations take to answer while events flow in.

A shop is there that was busy for three hours; it goes on at a rate, one worker of each topology takes it in, and a view
server follows both. Requests are sent at fixed times, whether earlier ones are answered or not (an open loop), and a
request's time is from when it was to be sent: what holds the server up is seen by all that would have come meanwhile.

All of it shares the machine: broker, simulator, two workers, the view server, and the asking itself, whose own delays
count as well. So the view server's processor time is told too.
"""

import asyncio
import os
import random
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from bench.freshness import GIVE_UP_S, await_ready, quantile
from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.simulator.run import Plan
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS, USER_ACTIVITY
from topologies.demo.client import Client
from topologies.demo.processes import Child, Children
from topologies.demo.run import Demo
from topologies.names import free_port
from topologies.settings import Settings

SHOP: Final = ShopSettings()
TOPOLOGIES: Final = ("behaviour", "recommendations")
TOPICS: Final = f"{USER_ACTIVITY.name},{ORDER_EVENTS.name}"
HISTORY: Final = 60_000
# Flat out, 60,000 events are 30 s of event time; so they are three hours, or up to six at a quiet time of the day.
HISTORY_SPEED: Final = 360
HISTORY_BEGAN_MS: Final = 7 * 3_600_000
WARM_UP_S: Final = 5.0
RANKS: Final = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
PATHS: Final = (
    "/api/recommendations/products/{product}",
    "/api/recommendations/users/{user}",
    "/api/trending",
    "/api/sessions/{user}",
    "/api/funnel",
)


def measure(cluster: Cluster, home: Path, rate: float, requests: float, seconds: float) -> dict[str, Any]:
    """Times of `requests` a second in all beside `rate` events/s, by path. Raises MillraceError for a process gone."""
    with _running(cluster, home) as running:
        await_ready(running)
        past = ["simulate", "-n", str(HISTORY), "--speed", str(HISTORY_SPEED), "--topics", TOPICS, "--no-progress"]
        past += ["--start", str(time.time_ns() // 1_000_000 - HISTORY_BEGAN_MS)]
        history = running.children.start("history", past)
        running.wait(lambda: _ended(running, history), GIVE_UP_S, "the history is not sent")
        live = ["simulate", "--rate", str(rate), "--topics", TOPICS, "--json", "--no-progress"]
        simulator = running.children.start("simulator", live)
        time.sleep(WARM_UP_S)
        views = next(child for child in running.children.running if child.name == "views")
        began, cpu = time.monotonic(), _cpu_s(views)
        times = asyncio.run(_ask(running.client.url, requests, seconds))
        spent, took = _cpu_s(views) - cpu, time.monotonic() - began
        running.children.check()
        running.children.end(simulator)
    sent = orjson.loads(simulator.log.read_bytes().splitlines()[-1])
    return {
        "events_per_s": round(sent["events_per_s"]),
        "requests_per_s": round(sum(map(len, times.values())) / seconds),
        "paths": {path: _figures(found) for path, found in times.items()},
        "all": _figures([one for found in times.values() for one in found]),
        "view_server_cores": round(spent / took, 2),
        "machine_cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
    }


@contextmanager
def _running(cluster: Cluster, home: Path) -> Iterator[Demo]:
    """One worker of each topology and a view server, under names of their own."""
    settings = Settings.from_environment(
        cluster=cluster, home=home, state_dir=home / "state", views_port=free_port(),
        prefix=f"answers-{secrets.token_hex(3)}-",
    )  # fmt: skip
    environment = {
        "MILLRACE_BOOTSTRAP": cluster.bootstrap,
        "MILLRACE_HOME": str(home),
        "MILLRACE_STATE": str(settings.state_dir),
        "MILLRACE_PREFIX": settings.prefix,
    }
    with ExitStack() as stack:
        children = stack.enter_context(Children(home / "logs", environment))
        running = Demo(settings, children, Client(f"http://127.0.0.1:{settings.views_port}"), Plan(SHOP))
        stack.callback(running.end)
        running.start(dict.fromkeys(TOPOLOGIES, 1))
        yield running


def _ended(running: Demo, child: Child) -> bool:
    if child.process.poll() is None:
        return False
    running.children.running.remove(child)
    if child.process.returncode:
        raise MillraceError(f"{child.name} failed: {(child.log.read_text().splitlines() or ['no word'])[-1]}")
    return True


def _cpu_s(child: Child) -> float:
    """Processor seconds of a process, 0 where the system does not tell."""
    stat = Path(f"/proc/{child.process.pid}/stat")
    if not stat.exists():
        return 0.0
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def _ask(url: str, requests: float, seconds: float) -> dict[str, list[tuple[float, int]]]:
    """By path, the seconds from the intended time to the whole answer, and its status."""
    chance = random.Random(7)
    times: dict[str, list[tuple[float, int]]] = {path: [] for path in PATHS}
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session:
        asking: list[asyncio.Task[None]] = []
        began = time.perf_counter()
        for number in range(round(requests * seconds)):
            intended = began + number / requests
            await asyncio.sleep(max(0.0, intended - time.perf_counter()))
            path = PATHS[number % len(PATHS)]
            named = path.format(product=chance.randint(1, SHOP.products), user=chance.randint(1, SHOP.users))
            asking.append(asyncio.create_task(_answered(session, named, intended, times[path])))
        await asyncio.gather(*asking)
    return times


async def _answered(session: aiohttp.ClientSession, path: str, intended: float, times: list[tuple[float, int]]) -> None:
    async with session.get(path) as answer:
        await answer.read()
    times.append((time.perf_counter() - intended, answer.status))


def _figures(found: Sequence[tuple[float, int]]) -> dict[str, Any]:
    ordered = sorted(seconds for seconds, _ in found)
    ms = {f"{name}_ms": round(1000 * quantile(ordered, rank), 2) for name, rank in RANKS}
    statuses = [status for _, status in found]
    return {**ms, "answers": len(found), "not_found": statuses.count(404), "failed": _failed(statuses)}


def _failed(statuses: Sequence[int]) -> int:
    return sum(status not in (200, 404) for status in statuses)
