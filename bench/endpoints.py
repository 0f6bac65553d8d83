"""What each endpoint of the view server costs, beside a bare aiohttp handler that returns the same bytes.

A shop is there that was busy for three hours, and quiet meanwhile. Each endpoint of the server's own document is asked
in a closed loop, a second of ours and a second of the bare handler's in turn; figures are medians over the rounds. What
is a stream is not asked here (`millrace bench live`).
"""

import asyncio
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final
from urllib.parse import quote

import aiohttp
import msgspec
import orjson

from bench.asking import Answered, ask
from bench.busy import busy_shop
from bench.freshness import GIVE_UP_S, answers, quantile
from streams.cluster import Cluster
from streams.errors import MillraceError
from topologies.demo.run import Demo
from topologies.names import free_port

TOPOLOGIES: Final = ("analytics", "behaviour", "recommendations")
CONNECTIONS: Final = 8
CATCH_UP_S: Final = 120.0
USERS_TRIED: Final = 500
LIVE: Final = "/live"
FILE: Final = re.compile(r'stylesheet" href="([^"]+)"')


@dataclass(frozen=True)
class Figures:
    """Requests a second and the 99th percentile (ms), of ours and of the bare handler; `size` in bytes."""

    endpoint: str
    size: int
    per_s: int
    p99_ms: float
    bare_per_s: int
    bare_p99_ms: float
    ratio: float


def measure(
    cluster: Cluster, home: Path, seconds: float, rounds: int, done: Callable[[Figures], None]
) -> list[Figures]:
    """Figures of every endpoint; `done` hears of each. Raises MillraceError for a process or an answer that fails."""
    with busy_shop(cluster, home, TOPOLOGIES) as running:
        running.wait(lambda: _complete(running), CATCH_UP_S, "the views have not taken in the history")
        return asyncio.run(_all(running, home, seconds, rounds, done))


def _complete(running: Demo) -> bool:
    fresh = running.client.get("/api")["freshness"]
    return bool(fresh["caughtUp"]) and fresh["lagTotal"] == 0 and sum(fresh["offsets"].values()) > 0


async def _all(
    running: Demo, home: Path, seconds: float, rounds: int, done: Callable[[Figures], None]
) -> list[Figures]:
    async with aiohttp.ClientSession(running.client.url) as session:
        asked = {endpoint: await _path(session, endpoint) for endpoint in await _endpoints(session)}
        prepared = [await _answer(session, path) for path in asked.values()]
    url = _start_bare(running, home, prepared)
    found = []
    for (endpoint, path), (_, _, body) in zip(asked.items(), prepared, strict=True):
        found.append(await _figures(running.client.url, url, endpoint, path, len(body), seconds, rounds))
        done(found[-1])
    running.children.check()
    return found


async def _endpoints(session: aiohttp.ClientSession) -> list[str]:
    """What the server's document names, without the streams."""
    async with session.get("/openapi.json") as answer:
        paths = (await answer.json())["paths"]
    return [path for path in paths if not path.endswith(LIVE)]


async def _path(session: aiohttp.ClientSession, endpoint: str) -> str:
    """The endpoint with whatever it needs, so that it answers with 200."""
    match endpoint:
        case "/api/batch":
            return "/api/batch?view=/api/sales/top&view=/api/funnel&view=/api/trending"
        case "/api/explain":
            return await _explained(session)
        case "/page/{version}/{name}" | "/docs/{name}":
            return await _file(session, "/" if endpoint.startswith("/page") else "/docs")
        case _ if "{name}" in endpoint:
            return endpoint.replace("{name}", "sales_by_category")
        case _ if "{" in endpoint:
            return await _found(session, re.sub(r"\{\w+\}", "{}", endpoint))
        case _:
            return endpoint


async def _explained(session: aiohttp.ClientSession) -> str:
    async with session.get("/api/sales", params={"by": "category"}) as answer:
        row = (await answer.json())["rows"][0]
    return f"/api/explain?by=category&key={quote(row['key'])}&window={row['start']}"


async def _file(session: aiohttp.ClientSession, page: str) -> str:
    async with session.get(page) as answer:
        found = FILE.search(await answer.text())
    if found is None:
        raise MillraceError(f"the page at {page} names no style sheet")
    return f"/{found[1]}"


async def _found(session: aiohttp.ClientSession, template: str) -> str:
    """The path of the first user or product that there is something of."""
    for number in range(1, USERS_TRIED):
        path = template.format(number)
        async with session.get(path) as answer:
            if answer.status == 200:
                return path
    raise MillraceError(f"none of {USERS_TRIED} at {template} is found: the history is too short")


async def _answer(session: aiohttp.ClientSession, path: str) -> tuple[str, str, bytes]:
    async with session.get(path, headers={"Accept-Encoding": "identity"}) as answer:
        if answer.status != 200:
            raise MillraceError(f"{path} answers with {answer.status}: {(await answer.text())[:200]}")
        return path.partition("?")[0], answer.headers["Content-Type"], await answer.read()


def _start_bare(running: Demo, home: Path, prepared: Sequence[tuple[str, str, bytes]]) -> str:
    port, file = free_port(), home / "prepared"
    file.write_bytes(msgspec.msgpack.encode(prepared))
    program = (sys.executable, "-m", "bench.contenders.bare_aiohttp")
    running.children.start("bare", [str(port), str(file)], program=program)
    url = f"http://127.0.0.1:{port}"
    running.wait(lambda: answers(f"{url}/api"), GIVE_UP_S, "the bare handlers do not answer")
    return url


async def _figures(ours: str, bare: str, endpoint: str, path: str, size: int, seconds: float, rounds: int) -> Figures:
    pairs = []
    for _ in range(rounds):
        pairs.append((await ask(ours, path, CONNECTIONS, seconds), await ask(bare, path, CONNECTIONS, seconds)))
    if failed := sum(one.failed for pair in pairs for one in pair):
        raise MillraceError(f"{failed} answers of {path} were no 200: these figures mean nothing")
    own, others = ([_rate(pair[which]) for pair in pairs] for which in (0, 1))
    return Figures(
        endpoint, size,
        round(median(own)), _p99_ms([pair[0] for pair in pairs]),
        round(median(others)), _p99_ms([pair[1] for pair in pairs]),
        round(median(mine / theirs for mine, theirs in zip(own, others, strict=True)), 3),
    )  # fmt: skip


def _rate(found: Answered) -> float:
    return len(found.times) / found.seconds


def _p99_ms(rounds: Sequence[Answered]) -> float:
    return round(1000 * median(quantile(sorted(one.times), 0.99) for one in rounds), 2)


def as_json(found: Sequence[Figures]) -> bytes:
    """The figures by endpoint, as one JSON object."""
    return orjson.dumps({one.endpoint: asdict(one) for one in found})
