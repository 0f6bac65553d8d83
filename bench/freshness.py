"""How old an answer is: from the moment an order is handed to a producer until an HTTP answer contains it.

The shop sends at a rate, from a process of its own. Every 100 ms an order with a region of its own goes out beside
it, and `GET /api/sales?by=region&key=<that region>` is asked again and again until it shows. What is measured is the
whole way: producer, broker, worker, flush, changelog, read model, HTTP. A probe does not wait for the one before it,
so a slow moment is seen by every probe that falls into it.

Or nobody asks, and one client follows `/api/sales?by=region` live: then a probe is there when the frame that has its
region is.
"""

import asyncio
import math
import re
import secrets
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import orjson

from bench.streams import Client, Frames
from streams.broker import Broker
from streams.cluster import Cluster
from streams.codecs import encode, user_key
from streams.errors import MillraceError
from streams.events import OrderEvent
from streams.producers import Producer
from streams.simulator.run import Plan
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS
from topologies.demo.run import Demo, demo
from topologies.names import free_port
from topologies.settings import Settings

PROBE_EVERY_S = 0.1
# Adds at most this and a request's time to what is measured.
ASK_EVERY_S = 0.005
WARM_UP_S = 5.0
GIVE_UP_S = 30.0
REGION = re.compile(rb'"key":"(probe-\d+)"')
# librdkafka's own default; ours waits 20 ms, for larger batches.
LINGER_MS = 5


@dataclass(frozen=True)
class Load:
    """Events/s and workers, how long to probe and between two flushes of a worker (s); and whether live."""

    rate: float
    seconds: float = 30.0
    workers: int = 1
    flush_s: float = 0.2
    live: bool = False


@dataclass(frozen=True)
class Freshness:
    """Times from produce to answer, in ms, of `probes` orders beside a load of `rate` events/s (asked, reached)."""

    rate: float
    reached_eps: float
    workers: int
    flush_s: float
    live: bool
    probes: int
    median_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float

    def __str__(self) -> str:
        until = "live client" if self.live else "HTTP answer"
        return (
            f"{self.probes} orders beside {self.reached_eps:,.0f} events/s, {self.workers} worker(s), flush each "
            f"{1000 * self.flush_s:.0f} ms, from produce to {until}: median {self.median_ms:.0f} ms, "
            f"p90 {self.p90_ms:.0f} ms, p99 {self.p99_ms:.0f} ms, max {self.max_ms:.0f} ms"
        )


def measure(cluster: Cluster, home: Path, load: Load) -> Freshness:
    """Run workers, a view server and the load on a cluster, under names of their own, and probe.

    Raises MillraceError when a process ends by itself, or an order does not show within 30 s.
    """
    settings = Settings.from_environment(
        cluster=cluster,
        home=home,
        state_dir=home / "state",
        views_port=free_port(),
        flush_s=load.flush_s,
        prefix=f"freshness-{secrets.token_hex(3)}-",
    )
    with demo(settings, Plan(ShopSettings()), home, None, load.workers) as running:
        await_ready(running)
        options = ["--rate", str(load.rate), "--topics", ORDER_EVENTS.name, "--json", "--no-progress"]
        child = running.children.start("simulator", ["simulate", *options])
        time.sleep(WARM_UP_S)
        times = sorted(asyncio.run(probe_live(running, load.seconds) if load.live else probe(running, load.seconds)))
        running.children.check()
        running.children.end(child)
    sent = orjson.loads(child.log.read_bytes().splitlines()[-1])
    ms = [1000 * quantile(times, rank) for rank in (0.5, 0.9, 0.99, 1.0)]
    figures = (round(at, 1) for at in ms)
    return Freshness(load.rate, sent["events_per_s"], load.workers, load.flush_s, load.live, len(times), *figures)


def quantile(ordered: Sequence[float], rank: float) -> float:
    """The value that at least this share of the values does not exceed.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5), quantile([1.0, 2.0, 3.0, 4.0], 0.99)
    (2.0, 4.0)
    """
    return ordered[max(0, math.ceil(rank * len(ordered)) - 1)]


def await_ready(running: Demo) -> None:
    """Return when every worker has restored its partitions."""
    urls = [f"http://127.0.0.1:{port}/readyz" for port in running.ports]
    running.wait(lambda: all(map(answers, urls)), GIVE_UP_S, "the workers are not ready")


def answers(url: str) -> bool:
    """Whether a URL is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False


async def probe(running: Demo, seconds: float, name: str = "probe") -> list[float]:
    """Seconds from produce to answer of one order each 100 ms; another time it needs another name."""
    probes: list[asyncio.Task[float]] = []
    async with aiohttp.ClientSession(running.client.url) as session:
        async for region, sent in _sent(running, seconds, name):
            probes.append(asyncio.create_task(_shows(session, region, sent)))
        return await asyncio.gather(*probes)


async def probe_live(running: Demo, seconds: float) -> list[float]:
    """Seconds from produce until one client that follows all regions has a frame with the order's region."""
    shown: dict[bytes, float] = {}

    def seen(frame: bytes) -> None:
        at = time.perf_counter()
        for region in REGION.findall(frame):
            shown.setdefault(region, at)

    client = Client(running.client.url, "/api/sales?by=region&window=1h", Frames(seen))
    following = asyncio.create_task(client.run())
    try:
        sent = {region.encode(): at async for region, at in _sent(running, seconds)}
        deadline = time.monotonic() + GIVE_UP_S
        while missing := sent.keys() - shown.keys():
            if following.done():
                following.result()
            if time.monotonic() > deadline:
                told = ", ".join(sorted(map(bytes.decode, missing)))
                raise MillraceError(f"orders do not show after {GIVE_UP_S:g} s: {told}; see the workers' logs")
            await asyncio.sleep(ASK_EVERY_S)
        return [shown[region] - at for region, at in sent.items()]
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _sent(running: Demo, seconds: float, name: str = "probe") -> AsyncIterator[tuple[str, float]]:
    """Send an order each 100 ms; yields its region, and when it was handed over (of perf_counter)."""
    settings = running.settings
    producer = Producer(settings.cluster, **{"linger.ms": LINGER_MS})
    began = time.monotonic()
    for number in range(round(seconds / PROBE_EVERY_S)):
        await asyncio.sleep(max(0.0, began + number * PROBE_EVERY_S - time.monotonic()))
        region = f"{name}-{number}"
        order = OrderEvent(region, number, 1, region=region)
        sent = time.perf_counter()
        producer.produce(settings.prefix + ORDER_EVENTS.name, user_key(number), encode(order))
        yield region, sent


async def _shows(session: aiohttp.ClientSession, region: str, sent: float) -> float:
    question = {"by": "region", "key": region}
    while True:
        async with session.get("/api/sales", params=question) as answer:
            rows = (await answer.json())["rows"]
        waited = time.perf_counter() - sent
        if rows:
            return waited
        if waited > GIVE_UP_S:
            raise MillraceError(f"order of region {region} does not show after {GIVE_UP_S:g} s: see the workers' logs")
        await asyncio.sleep(ASK_EVERY_S)


@contextmanager
def own_cluster(bootstrap: Cluster | None) -> Iterator[tuple[Cluster, Path]]:
    """A cluster, else an embedded broker, in a temporary home; what is started and written here is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="millrace-freshness-", ignore_cleanup_errors=True) as home:
        if bootstrap is not None:
            yield bootstrap, Path(home)
            return
        broker = Broker(Path(home))
        try:
            yield broker.up(), Path(home)
        finally:
            broker.down(wipe=True)


def as_json(found: Freshness) -> bytes:
    """The figures as one JSON object."""
    return orjson.dumps(asdict(found))
