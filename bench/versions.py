"""What building a second version beside the served one costs it, and what requests see of switching between them.

A shop has a history, and goes on at a rate. One worker keeps the sales, a view server answers. Then `millrace replay
analytics --as v2` builds the same logic beside it, from the beginning, while an order a tenth of a second is followed
from its producer to the answer that has it: the live freshness. A third version has a planted change
(bench.changed_sales). Compared are all closed cells of both with the first. In the end requests come at a fixed rate,
whether earlier ones are answered or not, while the view server is switched to the changed version and back: each answer
has to be there, and of one version, by what it says of itself and by its numbers.

All of it shares the machine: broker, load, two workers (three for the comparison), the view server, the asking.
"""

import asyncio
import os
import secrets
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import orjson

from bench.asking import END_OF_HEAD, LENGTH, request_of
from bench.changed_sales import KEY, PIECES, TABLE, is_changed
from bench.freshness import await_ready, probe, quantile
from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.simulator.run import FLAT_OUT_EVENTS_PER_S, Plan
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS
from topologies.demo.processes import MILLRACE, Child
from topologies.demo.run import Demo, demo
from topologies.names import free_port
from topologies.settings import Settings

CHANGED: Final = "bench.changed_sales:topology"
WARM_UP_S: Final = 5.0
HISTORY_S: Final = 3600
BUILD_S: Final = 300.0
BETWEEN_S: Final = 3.0
CONNECTIONS: Final = 16
# What a dashboard asks for; of the regions only one, since each probe has a region of its own.
REGION: Final = f"/api/sales?by=region&key={KEY}&window=1m"
PATHS: Final = (
    REGION,
    "/api/sales/top?by=category&window=15m",
    f"/api/sales?by=region&key={KEY}&window=5m",
    f"/api/batch?view={quote(REGION)}&view={quote(f'/api/tables/{TABLE}/rows?key={KEY}')}&view=/api/sales",
)
Done = Callable[[str], None]


@dataclass(frozen=True)
class Load:
    """Orders in the history, orders a second meanwhile, requests a second while switching; seconds before building."""

    history: int = 500_000
    rate: float = 5_000
    requests: float = 200
    alone_s: float = 15.0


@dataclass
class Asked:
    """What requests came to. `mixed`: answers of more than one version, or whose numbers are of another one."""

    times: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    mixed: int = 0
    told: int = 0

    def hear(self, seconds: float, status: int, body: Mapping[str, Any]) -> None:
        """Take one answer."""
        self.times.append(seconds)
        if status != 200:
            self.failed[f"{status} {body.get('detail')}"] += 1
            return
        parts = [part["body"] for part in body["views"]] if "views" in body else [body]
        if "views" in body and any(part["status"] != 200 for part in body["views"]):
            self.failed["a part of a batch"] += 1
            return
        versions = {version for part in parts for version in part["freshness"]["versions"].values()}
        says = {said for part in parts if (said := _says(part)) is not None}
        self.told += bool(says)
        self.mixed += len(versions) != 1 or not says <= {versions == {"v3"}}
        self.versions[min(versions)] += 1


def _says(part: Mapping[str, Any]) -> bool | None:
    return is_changed(part["rows"]) if part.get("by") == "region" or part.get("table") == TABLE else None


def measure(cluster: Cluster, home: Path, load: Load, done: Done) -> dict[str, Any]:
    """Build, compare, switch and roll back beside a load. Raises MillraceError for a process that ends by itself."""
    prefix = f"versions-{secrets.token_hex(3)}-"
    settings = Settings.from_environment(
        cluster=cluster, home=home, state_dir=home / "state", views_port=free_port(), prefix=prefix
    )
    with demo(settings, Plan(ShopSettings()), home, None, 1) as running:
        await_ready(running)
        sent = _history(running, load.history)
        done(f"history: {sent:,} orders")
        options = ["--rate", str(load.rate), "--topics", ORDER_EVENTS.name, "--json", "--no-progress"]
        simulator = running.children.start("simulator", ["simulate", *options])
        time.sleep(WARM_UP_S)
        alone = asyncio.run(probe(running, load.alone_s))
        done(f"freshness alone: {_ms(alone)}")
        found: dict[str, Any] = {"machine_cores": os.cpu_count(), "alone": _ms(alone)}
        for version, options in (("v2", []), ("v3", ["--load", CHANGED])):
            found[version] = _build(running, version, options)
            done(f"{version} built: {found[version]}")
        with _worker(running, "v3"):
            with _worker(running, "v2"):
                found["same"] = _diff(running, "v1", "v2")
                found["changed"] = _diff(running, "v1", "v3")
            done(f"differences: {found['same']}, {found['changed']}")
            found["switching"] = _switch(running, load.requests, done)
        running.children.check()
        running.children.end(simulator)
    told = orjson.loads(simulator.log.read_bytes().splitlines()[-1])
    found["events_per_s"] = round(told["events_per_s"])
    return found


def _history(running: Demo, count: int) -> int:
    """Send the history flat out, an hour of the shop that ends now, and wait until it shows."""
    speed = str(max(1.0, HISTORY_S * FLAT_OUT_EVENTS_PER_S / count))
    flat_out = ["--events", str(count), "--rate", "0", "--speed", speed, "--topics", ORDER_EVENTS.name]
    _millrace(running, "simulate", *flat_out, "--no-progress", "--json")
    running.wait(lambda: _lag(running) == 0, BUILD_S, "the history is not counted")
    return count


def _lag(running: Demo) -> int | None:
    lag: int | None = running.client.get("/healthz")["freshness"]["lagTotal"]
    return lag


def _ms(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    ranks = (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0))
    return {name: round(1000 * quantile(ordered, rank), 1) for name, rank in ranks}


def _build(running: Demo, version: str, options: list[str]) -> dict[str, Any]:
    """Build a version while orders are followed to their answers."""
    told: dict[str, Any] = {}

    def build() -> None:
        told.update(_millrace(running, "replay", "analytics", "--as", version, "--once", "--json", *options))

    building = threading.Thread(target=build, name="building")
    building.start()
    times: list[float] = []
    while building.is_alive() or not times:
        times += asyncio.run(probe(running, 5.0, f"{version}-{len(times)}"))
    building.join()
    if not told:
        raise MillraceError(f"{version} could not be built; see the logs in {running.children.directory}")
    return {
        "records": told["records"],
        "seconds": told["seconds"],
        "records_per_s": round(told["records"] / told["seconds"]),
        "probes": len(times),
        **_ms(times),
    }


@contextmanager
def _worker(running: Demo, version: str) -> Iterator[Child]:
    child = running.children.start(f"worker-{version}", ["worker", "analytics", "--as", version])
    try:
        yield child
    finally:
        running.children.end(child)


def _diff(running: Demo, one: str, other: str) -> dict[str, Any]:
    """What a comparison finds; `unplanted` are differing cells that are not as the change has them."""
    found = _millrace(running, "replay", "diff", one, other, "--limit", "1000000", "--json", codes=(0, 3))
    regions = next(table for table in found["tables"] if table["table"] == TABLE)
    planted = [cell for cell in found["examples"] if _is_planted(cell)]
    return {
        "windows": max(table["windows"] for table in found["tables"]),
        "cells": sum(table["cells"][0] for table in found["tables"]),
        "differing": sum(table["differing"] for table in found["tables"]),
        "planted": len(planted),
        "unplanted": len(found["examples"]) - len(planted),
        "windows_of_table": regions["windows"],
    }


def _is_planted(cell: Mapping[str, Any]) -> bool:
    if (cell["table"], cell["key"], cell["columns"]) != (TABLE, KEY, ["units"]):
        return False
    more: int = cell["other"]["units"] - cell["one"]["units"]
    return bool(more == PIECES * cell["one"]["orders"] > 0)


def _switch(running: Demo, rate: float, done: Done) -> dict[str, Any]:
    """Switch and roll back while requests come."""
    asked, ended = Asked(), threading.Event()
    asking = threading.Thread(target=lambda: asyncio.run(_ask(running.client.url, rate, asked, ended)), name="asking")
    asking.start()
    took = {}
    try:
        time.sleep(BETWEEN_S)
        for command in (["switch", "v3"], ["rollback"]):
            began = time.monotonic()
            said = _millrace(running, "replay", *command, "--json")
            took[f"{command[0]}_s"] = round(time.monotonic() - began, 2)
            done(f"{command[0]}: {said}")
            time.sleep(BETWEEN_S)
    finally:
        ended.set()
        asking.join()
    return {
        "requests": len(asked.times),
        **took,
        **_ms(asked.times),
        "failed": dict(asked.failed),
        "mixed": asked.mixed,
        "told_by_numbers": asked.told,
        "versions": dict(asked.versions),
    }


async def _ask(url: str, rate: float, asked: Asked, ended: threading.Event) -> None:
    """Send so many a second at fixed times over a few connections that stay open; whoever is free takes the next."""
    due = _due(rate, ended)
    address = urlsplit(url)
    connections = (_connection(address.hostname or "", address.port or 80, due, asked) for _ in range(CONNECTIONS))
    await asyncio.gather(*connections)


def _due(rate: float, ended: threading.Event) -> Iterator[tuple[float, bytes]]:
    began, number = time.perf_counter(), 0
    while not ended.is_set():
        yield began + number / rate, request_of(PATHS[number % len(PATHS)])
        number += 1


async def _connection(host: str, port: int, due: Iterator[tuple[float, bytes]], asked: Asked) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        for intended, request in due:
            await asyncio.sleep(max(0.0, intended - time.perf_counter()))
            writer.write(request)
            head = await reader.readuntil(END_OF_HEAD)
            raw = await reader.readexactly(int(LENGTH.search(head)[1]))  # type: ignore[index]  # our server says it
            asked.hear(time.perf_counter() - intended, int(head.split(b" ", 2)[1]), orjson.loads(raw))
    except (OSError, EOFError) as error:
        asked.failed[repr(error)] += 1
    finally:
        writer.close()


def _millrace(running: Demo, *arguments: str, codes: tuple[int, ...] = (0,)) -> Any:
    """What a command says as JSON."""
    environment = {**os.environ, **running.children.environment}
    done = subprocess.run([*MILLRACE, *arguments], env=environment, capture_output=True, text=True, timeout=BUILD_S)
    if done.returncode not in codes:
        raise MillraceError(f"`millrace {' '.join(arguments)}` ended with {done.returncode}: {done.stderr.strip()}")
    return orjson.loads(done.stdout.strip().splitlines()[-1])
