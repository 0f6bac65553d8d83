"""How late live views come to many clients of one view server while events flow in, and whether all end right.

The shop sends at a rate to one worker, a view server follows, and clients listen to a few views, one connection each;
some of them read nothing for seconds. A frame's delay is from the moment when the server began to compute it until the
client has it and has made its answer of it. When the shop has stopped, each client's answer has to be what a plain GET
says, number for number.

All of it shares the machine: broker, simulator, worker, the view server, and this process with all clients. So the
processor time of both is told too.
"""

import asyncio
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import psutil

from bench.freshness import GIVE_UP_S, await_ready, quantile
from bench.streams import Client, Frames, SlowClient
from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.simulator.run import Plan
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS
from topologies.demo.processes import Child
from topologies.demo.run import Demo, demo
from topologies.names import free_port
from topologies.settings import Settings

# What a wall of dashboards shows: each is one channel of the server, whoever follows it.
PATHS: Final = (
    "/api/sales",
    "/api/sales?by=region&window=5m",
    "/api/sales?by=category&window=15m",
    "/api/sales?by=category&key=books",
    "/api/sales/top?by=product&n=10",
    "/api/sales/top?by=product&metric=units&n=50&window=5m",
    "/api/sales/top?by=category",
    "/api/tables/sales_by_region/rows?window=5m",
)
WARM_UP_S: Final = 5.0
# So many at a time connect, so that none is refused.
AT_A_TIME: Final = 50
QUIET_S: Final = 60.0


@dataclass(frozen=True)
class Load:
    """So many clients, and slow ones beside them that read nothing for `pause_s` at a time; times in seconds."""

    rate: float
    clients: int
    slow: int
    seconds: float
    pause_s: float = 5.0


def measure(cluster: Cluster, home: Path, load: Load, flush_s: float) -> dict[str, Any]:
    """Figures of one run, under names of its own. Raises MillraceError when a process ends, or a client is wrong."""
    settings = Settings.from_environment(
        cluster=cluster, home=home, state_dir=home / "state", views_port=free_port(), flush_s=flush_s,
        prefix=f"live-{secrets.token_hex(3)}-",
    )  # fmt: skip
    with demo(settings, Plan(ShopSettings()), home, None, 1) as running:
        await_ready(running)
        options = ["--rate", str(load.rate), "--topics", ORDER_EVENTS.name, "--json", "--no-progress"]
        simulator = running.children.start("simulator", ["simulate", *options])
        time.sleep(WARM_UP_S)
        told = asyncio.run(_follow(running, simulator, load))
        running.children.check()
    sent = orjson.loads(simulator.log.read_bytes().splitlines()[-1])
    return {"events_per_s": round(sent["events_per_s"]), "flush_s": flush_s, **told}


async def _follow(running: Demo, simulator: Child, load: Load) -> dict[str, Any]:
    frames, url = Frames(), running.client.url
    clients = [Client(url, PATHS[number % len(PATHS)], frames) for number in range(load.clients)]
    clients += [SlowClient(url, PATHS[n % len(PATHS)], frames, pause_s=load.pause_s) for n in range(load.slow)]
    views = psutil.Process(next(child for child in running.children.running if child.name == "views").process.pid)
    alone = views.memory_info().rss
    tasks = await _connected(clients)
    try:
        with _spending(views) as server, _spending(psutil.Process()) as own:
            began = [len(client.delays_ms) for client in clients]
            await _while_all_follow(tasks, load.seconds)
            took = [client.delays_ms[start:] for client, start in zip(clients, began, strict=True)]
        memory = views.memory_info().rss
        await asyncio.to_thread(running.children.end, simulator)
        await _caught_up(url, simulator)
        wrong = await _wrong(url, clients, tasks, load.pause_s)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    fast, slow = clients[: load.clients], clients[load.clients :]
    return {
        "clients": len(fast),
        "slow_clients": len(slow),
        "views": len(PATHS),
        "wrong": wrong,
        **_delays(sorted(delay for found in took[: load.clients] for delay in found)),
        "frames_per_s": round(sum(map(len, took)) / load.seconds),
        "events": {name.decode(): n for name, n in sum((c.events for c in fast), Counter[bytes]()).items()},
        "slow_events": {name.decode(): n for name, n in sum((c.events for c in slow), Counter[bytes]()).items()},
        "received_mb": round(sum(client.received for client in clients) / 1e6),
        "view_server_cores": round(server["cores"], 2),
        "view_server_mb_alone": round(alone / 1e6),
        "view_server_mb": round(memory / 1e6),
        "clients_cores": round(own["cores"], 2),
        "machine_cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
    }


async def _connected(clients: Sequence[Client]) -> list["asyncio.Task[None]"]:
    """Let all follow; returns when each that is not slow has an answer."""
    tasks: list[asyncio.Task[None]] = []
    for start in range(0, len(clients), AT_A_TIME):
        some = clients[start : start + AT_A_TIME]
        tasks += [asyncio.create_task(client.run()) for client in some]
        while any(client.state is None for client in some if not isinstance(client, SlowClient)):
            await _while_all_follow(tasks, 0.02)
    return tasks


async def _while_all_follow(tasks: Sequence["asyncio.Task[None]"], seconds: float) -> None:
    """Wait. Raises what ends a client."""
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


@contextmanager
def _spending(process: psutil.Process) -> Iterator[dict[str, float]]:
    """Tell afterwards how many cores a process took."""
    spent: dict[str, float] = {}
    began, before = time.monotonic(), process.cpu_times()
    yield spent
    after = process.cpu_times()
    spent["cores"] = (after.user + after.system - before.user - before.system) / (time.monotonic() - began)


def _delays(ordered: Sequence[float]) -> dict[str, float]:
    if not ordered:
        raise MillraceError("no client was sent anything: give it more --seconds")
    ranks = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: round(quantile(ordered, rank), 1) for name, rank in ranks.items()}


async def _caught_up(url: str, simulator: Child) -> None:
    """Return when the views cover all that was sent."""
    sent = orjson.loads(simulator.log.read_bytes().splitlines()[-1])
    deadline = time.monotonic() + QUIET_S
    while True:
        fresh = (await _answers(url, ["/api/tables/sales_by_total"]))[0]["freshness"]
        if fresh["lagTotal"] == 0 and sum(fresh["offsets"].values()) >= sent["events"]:
            return
        if time.monotonic() > deadline:
            raise MillraceError(f"the views do not cover what was sent after {QUIET_S:g} s: see the logs")
        await asyncio.sleep(0.5)


async def _wrong(url: str, clients: Sequence[Client], tasks: Sequence["asyncio.Task[None]"], pause_s: float) -> int:
    """How many clients have another answer than a plain GET gives, once they had the time to get it."""
    deadline = time.monotonic() + 2 * pause_s + GIVE_UP_S
    while True:
        right = {path: _numbers(found) for path, found in zip(PATHS, await _answers(url, PATHS), strict=True)}
        wrong = sum(client.state is None or _numbers(client.state.body) != right[client.path] for client in clients)
        if not wrong or time.monotonic() > deadline:
            return wrong
        await _while_all_follow(tasks, 1.0)


async def _answers(url: str, paths: Sequence[str]) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession(url) as session:
        found = []
        for path in paths:
            async with session.get(path) as answer:
                found.append(orjson.loads(await answer.read()))
        return found


def _numbers(body: dict[str, Any]) -> dict[str, Any]:
    """An answer without its age, which goes with the clock."""
    return {**body, "freshness": {**body["freshness"], "age_s": None}}
