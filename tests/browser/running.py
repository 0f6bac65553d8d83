"""A demo that runs for the browser's tests: a shop with hours behind it, its exact answers, and a page on it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from streams.cluster import Cluster
from streams.simulator.ledger import Cell, Ledger
from streams.simulator.run import Plan, run
from streams.simulator.settings import ShopSettings
from topologies.demo.client import Client
from topologies.demo.run import Demo, PrefixedProducer, demo
from topologies.names import free_port
from topologies.settings import Settings

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
# Carts are given up after an hour, sessions end after half of one.
BEHIND_MS: Final = 110 * 60_000
LIMIT_S: Final = 90.0
# What is made of the shop's events becomes the next stage's source.
STAGES: Final = ("events", "sessions", "baskets")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def wait_until(holds: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """What `holds` returns once it is true; AssertionError when it never is."""
    deadline = time.monotonic() + limit_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"after {limit_s:g} s not yet: {what}"
        time.sleep(0.1)
    return found


@dataclass
class Running:
    """Broker, workers and views that run, and a shop that sends when it is told to."""

    demo: Demo
    ledger: Ledger
    users: int = 4_000
    seed: int = 1
    reached_ms: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return self.demo.client.url

    @property
    def client(self) -> Client:
        return self.demo.client

    def history(self, start_ms: int, until_ms: int, events_per_s: float) -> None:
        """Send hours that are over, flat out."""
        self._send(Plan(self._shop(start_ms, events_per_s), until_ms=until_ms))
        self.reached_ms = until_ms

    def begin(self, rate: float) -> None:
        """Send what happened since history ended, and from now on what happens, as it happens."""
        for _ in range(8):
            if now_ms() - self.reached_ms < 3_000:
                break
            self.history(self.reached_ms, now_ms(), rate)
        plan = Plan(self._shop(now_ms(), rate), rate=rate)
        self._stop.clear()
        self._thread = threading.Thread(target=self._send, args=(plan,), daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """Send nothing more, and wait until all that was sent is in the views."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self.reached_ms = now_ms()
        self.settled()

    def _shop(self, start_ms: int, events_per_s: float) -> ShopSettings:
        self.seed += 1
        shop = ShopSettings(seed=self.seed, users=self.users, products=400, pairs=60, daily_swing=0.0)
        return replace(shop, start_ms=start_ms, events_per_s=events_per_s)

    def _send(self, plan: Plan) -> None:
        settings = self.demo.settings
        with PrefixedProducer(settings.cluster, settings.prefix) as producer:
            run(plan, producer, ledger=self.ledger, stop=self._stop)

    def settled(self) -> None:
        """Wait until the sales have every order, and no topology is behind with anything that came of what was sent.

        No lag is not enough: it is counted from a look that may be older than the last events, or than what a topology
        made of them for the next one. So each stage has to be complete as of a time when the one before it was.
        """
        wait_until(self.demo.caught_up, "the views contain every order", 180)
        for stage in STAGES:
            wait_until(partial(self._complete_since, time.time()), f"all {stage} are in the views", 180)

    def _complete_since(self, at: float) -> bool:
        """Whether the tables have all that the topics had at a time (epoch s)."""
        asked = time.time()
        age: float | None = self.fresh["age_s"]
        return age is not None and asked - age >= at

    @property
    def fresh(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("/api")["freshness"]
        return found

    def sold(self, by: str, key: str, start_ms: int, end_ms: int) -> Cell:
        """The exact answer, by the ledger."""
        return self.ledger.window(by, key, start_ms, end_ms)

    def kill_views(self) -> None:
        """End the view server as a power cut would."""
        child = next(child for child in self.demo.children.running if child.name == "views")
        child.process.kill()
        child.process.wait()
        self.demo.children.running.remove(child)

    def start_views(self, *topologies: str, port: int | None = None, environment: dict[str, str] | None = None) -> str:
        """Start a view server, on the port of the first unless told otherwise; its URL, once it answers."""
        chosen = [option for name in topologies for option in ("--topology", name)]
        port = port or self.demo.settings.views_port
        self.demo.children.start(
            "views" if port == self.demo.settings.views_port else f"views-{port}",
            ["views", *chosen, "--port", str(port)],
            environment,
        )
        client = Client(f"http://127.0.0.1:{port}")

        def answers() -> bool:
            try:
                return client.get("/readyz").get("ready") is True
            except OSError:
                return False

        wait_until(answers, "the view server answers")
        return client.url

    @contextmanager
    def stopped_workers(self) -> Iterator[None]:
        """No worker does anything, though all are there."""
        pids = [seat.child.process.pid for seat in self.demo.seats if seat.child is not None]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


@contextmanager
def environment() -> Iterator[None]:
    """What the processes of the demo are told besides: workers that are stopped for a while keep what they own."""
    told = {"MILLRACE_SESSION_S": "30", "MILLRACE_ALERT_AMOUNT": "3000000"}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def running(
    cluster: Cluster, directory: Path, *, events_per_s: float = 12.0, users: int = 4_000, prefix: str | None = None
) -> Iterator[Running]:
    """A demo of all our topologies, with yesterday's hour and the last two behind it."""
    settings = Settings(
        cluster=cluster,
        home=directory,
        state_dir=directory / "state",
        views_port=free_port(),
        worker_port=free_port(),
        prefix=f"page-{uuid4().hex[:6]}-" if prefix is None else prefix,
    )
    ledger = Ledger(settings.partitions, currency=settings.currency)
    plan = Plan(ShopSettings())
    beside = ("behaviour", "recommendations")
    with environment(), demo(settings, plan, directory, ledger, 1, beside=beside) as started:
        found = Running(started, ledger, users)
        now = now_ms()
        found.history(now - DAY_MS - 70 * 60_000, now - DAY_MS + 40 * 60_000, events_per_s)
        found.history(now - BEHIND_MS, now, events_per_s)
        found.settled()
        try:
            yield found
        finally:
            found._stop.set()


def shown(page: Any) -> Any:
    """A page once it has its numbers."""
    page.wait_for_selector('body[data-state="live"]', timeout=30_000)
    page.wait_for_function("document.querySelectorAll('#shop-tab .card').length > 1")
    page.wait_for_function("document.querySelectorAll('#shop-tab .card[aria-busy]').length === 0")
    return page
