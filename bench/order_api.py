"""How many orders a second the order API takes, on each database, and what keeps it from taking more.

Customers order as fast as they are answered: each waits for its answer, so latency is clients over rate. API process,
database server and customers are three processes; what each takes of a core says where the limit is. Alone, the API
publishes nothing; publishing, a broker and a relay run beside it, and each answer waits to say where its event lies.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from sqlalchemy import URL

from bench.customers import Crowd, Habits, Tally
from bench.databases import SERVERS, Server
from bench.freshness import answers, own_cluster
from streams.errors import MillraceError
from topologies.demo.processes import Children
from topologies.names import free_port
from topologies.orders.database import Database, database_url
from topologies.orders.migrating import migrate
from topologies.orders.seeding import FIRST_OTHER, Stock, seed

SQLITE: Final = "sqlite"
DATABASES: Final = (SQLITE, *SERVERS)
USERS, PRODUCTS, PLENTY = 500, 100, 10**9
WARM_UP: Final = 200
READY_S: Final = 30.0
LOOK_S: Final = 0.05
NO_CLUSTER: Final = "127.0.0.1:1"
# A process that takes this much of a core has no more to give.
FULL: Final = 0.9


@dataclass(frozen=True)
class Load:
    """How many orders of one to three products, from how many customers; `publish`: with broker and relay."""

    orders: int = 5_000
    clients: int = 64
    publish: bool = False


@dataclass(frozen=True)
class Found:
    """One database's figures: rates by the second, latency in ms, cores taken by whom."""

    database: str
    publish: bool
    orders: int
    orders_per_s: float
    p50_ms: float
    p99_ms: float
    api_cores: float
    database_cores: float
    customers_cores: float
    limit: str


def measure(kind: str, load: Load) -> Found:
    """Start a database and the API, and order. Raises MillraceError, NoServer."""
    with ExitStack() as opened:
        home = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="millrace-orders-")))
        server: Server | None = None if kind == SQLITE else opened.enter_context(SERVERS[kind]())
        url = database_url(f"sqlite:///{home}/orders.db", {}, home) if server is None else server.url
        asyncio.run(_fill(url))
        bootstrap = opened.enter_context(own_cluster(None))[0].bootstrap if load.publish else NO_CLUSTER
        api, port = opened.enter_context(_api(home, url, bootstrap, load))
        watched = {"api": api, "database": None if server is None else psutil.Process(server.pid)}
        _order(port, Load(WARM_UP, load.clients), seed=1)
        before, began = _cpu_s(watched), time.perf_counter()
        tally = _order(port, load, seed=2)
        took_s, after = time.perf_counter() - began, _cpu_s(watched)
    cores = {name: (after[name] - before[name]) / took_s for name in after}
    return _found(kind, load, tally, took_s, cores)


def _found(kind: str, load: Load, tally: Tally, took_s: float, cores: dict[str, float]) -> Found:
    if tally.wrong or tally.refused:
        raise MillraceError(f"orders were not taken as they should: {tally.wrong[:3] or dict(tally.refused)}")
    took = sorted(tally.took_ms)
    return Found(
        database=kind,
        publish=load.publish,
        orders=load.orders,
        orders_per_s=round(load.orders / took_s, 1),
        p50_ms=round(took[len(took) // 2], 1),
        p99_ms=round(took[len(took) * 99 // 100], 1),
        api_cores=round(cores["api"], 2),
        database_cores=round(cores["database"], 2),
        customers_cores=round(cores["customers"], 2),
        limit=limit(cores),
    )


def limit(cores: dict[str, float]) -> str:
    """Who has nothing left: a process of one thread its core, all together the machine, else the wait for the disk."""
    if cores["api"] >= FULL:
        return "the API's one core"
    if sum(cores.values()) >= FULL * (psutil.cpu_count() or 1):
        return "the machine's cores, which all share"
    return "waiting: for the disk at each commit, and for each other's rows"


async def _fill(url: URL) -> None:
    async with Database.open(url) as database:
        await migrate(database)
        await seed(database, Stock(USERS, PRODUCTS, PLENTY, PLENTY))


@contextmanager
def _api(home: Path, url: URL, bootstrap: str, load: Load) -> Iterator[tuple[psutil.Process, int]]:
    port = free_port()
    told = {"MILLRACE_HOME": str(home), "MILLRACE_BOOTSTRAP": bootstrap, "MILLRACE_DATABASE": _text(url)}
    arguments = ["orders", "--port", str(port), *([] if load.publish else ["--no-relay", "--publish-wait", "0"])]
    with Children(home / "logs", told) as children:
        child = children.start("orders", arguments)
        deadline = time.monotonic() + READY_S
        while not answers(f"http://127.0.0.1:{port}/readyz"):
            children.check()
            if time.monotonic() > deadline:
                raise MillraceError(f"the order API is not ready after {READY_S:g} s; its log is {child.log}")
            time.sleep(LOOK_S)
        yield psutil.Process(child.process.pid), port


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _order(port: int, load: Load, *, seed: int) -> Tally:
    habits = Habits(load.orders, load.clients, repeats=0, cancels=0, refunds=0, seed=seed)
    users = range(FIRST_OTHER, FIRST_OTHER + USERS)
    crowd = Crowd(f"http://127.0.0.1:{port}", habits, users, range(1, PRODUCTS + 1))
    asyncio.run(crowd.shop())
    return crowd.tally


def _cpu_s(watched: dict[str, psutil.Process | None]) -> dict[str, float]:
    found = {"customers": sum(psutil.Process().cpu_times()[:2])}
    for name, process in watched.items():
        found[name] = 0.0 if process is None else sum(process.cpu_times()[:2])
    return found
