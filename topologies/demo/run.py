"""The demo from the first process to the last: start in order, follow, compare, end in reverse order."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.producers import Producer
from streams.simulator.behaviour_ledger import BehaviourLedger
from streams.simulator.ledger import Ledger
from streams.simulator.run import Books, Plan, Sent, run
from streams.topics import ORDER_EVENTS, PAYMENT_NOTIFICATIONS, USER_ACTIVITY, ensure_topics
from topologies.demo.client import Client
from topologies.demo.processes import Child, Children
from topologies.demo.verify import Comparison, compare
from topologies.loading import load_topology
from topologies.names import claim_port, require_free
from topologies.sales import own_topic
from topologies.settings import Settings

READY_S = 60.0
CATCH_UP_S = 300.0
POLL_S = 0.1


class PrefixedProducer(Producer):
    """A producer that puts the settings' prefix before each topic."""

    def __init__(self, cluster: Cluster, prefix: str) -> None:
        """Connect in the background."""
        super().__init__(cluster, log_level=0)
        self._prefix = prefix

    def produce(self, topic: str, *rest: Any, **options: Any) -> None:
        """Hand over one record."""
        super().produce(self._prefix + topic, *rest, **options)


SALES = "analytics"


@dataclass
class Seat:
    """A worker's place: the topology that it runs, its name and port, and the process that has it now."""

    topology: str
    group: str
    name: str
    port: int
    child: Child | None = None

    def __str__(self) -> str:
        pid = "not running" if self.child is None else f"pid {self.child.process.pid}"
        return f"{self.topology} {self.name}: {pid}, port {self.port}"


@dataclass
class Demo:
    """What runs, and how far the simulator has come.

    `history` is sent flat out before `plan`, which then begins at the time that it is: so that something is there to
    look at that takes an hour to happen.
    """

    settings: Settings
    children: Children
    client: Client
    plan: Plan
    ledger: Ledger | None = None
    behaviour: BehaviourLedger | None = None
    sent: Sent = field(default_factory=Sent)
    failure: BaseException | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    history: Plan | None = None
    seats: list[Seat] = field(default_factory=list)
    _thread: threading.Thread | None = None

    def start(self, workers: Mapping[str, int], *, views: Sequence[str] = ()) -> None:
        """Create topics, start so many workers of each topology and views, and wait until the views answer.

        `views` are more options of `millrace views`.
        """
        settings = self.settings
        require_free(settings.views_port)  # else somebody else would answer in place of the views
        topologies = {name: load_topology(name, settings) for name in workers}
        simulated = [own_topic(topic, settings) for topic in (ORDER_EVENTS, USER_ACTIVITY, PAYMENT_NOTIFICATIONS)]
        topics = [topic for topology in topologies.values() for topic in topology.topics()]
        ensure_topics(settings.cluster, {topic.name: topic for topic in [*simulated, *topics]}.values())
        self.seats = [
            Seat(name, topologies[name].name, f"w{n}", claim_port(settings.state_dir, settings.worker_port))
            for name, count in workers.items()
            for n in range(count)
        ]
        for seat in self.seats:
            self.start_worker(seat)
        chosen = [option for name in workers for option in ("--topology", name)]
        self.children.start("views", ["views", *chosen, "--port", str(settings.views_port), *views])
        self.wait(self.views_answer, READY_S, "the view server does not answer")

    @property
    def ports(self) -> list[int]:
        """The workers' ports."""
        return [seat.port for seat in self.seats]

    def start_worker(self, seat: Seat) -> None:
        """Start a worker, or start it again."""
        options = ["--name", seat.name, "--port", str(seat.port)]
        seat.child = self.children.start(f"{seat.topology}-{seat.name}", ["worker", seat.topology, *options])

    def revive(self) -> list[str]:
        """Start workers again that somebody killed with SIGKILL, or ended in good order; returns their names.

        Raises MillraceError for a child that ended in any other way.
        """
        running, told = self.children.running, []
        for seat in self.seats:
            child = seat.child
            if child is not None and child in running and child.process.poll() in (0, -signal.SIGKILL):
                running.remove(child)
                self.start_worker(seat)
                told.append(f"{seat.topology} {seat.name}")
        self.children.check()
        return told

    def views_answer(self) -> bool:
        """Whether the view server is there."""
        try:
            self.client.get("/healthz")
        except OSError:
            return False
        return True

    def simulate(self) -> None:
        """Send the shop's events in the background."""
        self._thread = threading.Thread(target=self._simulate, name="simulator", daemon=True)
        self._thread.start()

    def _simulate(self) -> None:
        books = Books(*(book for book in (self.ledger, self.behaviour) if book is not None))
        try:
            with PrefixedProducer(self.settings.cluster, self.settings.prefix) as producer:
                plan = self.plan
                if self.history is not None:
                    run(self.history, producer, stop=self.stop, report=self._report)
                    plan = replace(plan, shop=replace(plan.shop, start_ms=time.time_ns() // 1_000_000))
                self.history = None
                self.sent = run(plan, producer, ledger=books, stop=self.stop, report=self._report)
        except BaseException as error:
            self.failure = error

    def _report(self, sent: Sent) -> None:
        self.sent = sent

    @property
    def simulating(self) -> bool:
        """Whether events are still being sent. Raises what the simulator raised."""
        if self.failure is not None:
            raise self.failure
        return self._thread is not None and self._thread.is_alive()

    def end(self) -> None:
        """Stop sending, then end every child."""
        self.stop.set()
        if self._thread is not None:
            self._thread.join()
        self.children.stop()

    def wait(self, holds: Callable[[], bool], limit_s: float, otherwise: str) -> None:
        """Wait for a condition while every child lives. Raises MillraceError."""
        deadline = time.monotonic() + limit_s
        while not holds():
            self.revive()
            if time.monotonic() > deadline:
                raise MillraceError(
                    f"{otherwise} after {limit_s:g} s; the logs are in {self.children.directory}; see `millrace doctor`"
                )
            time.sleep(POLL_S)

    def caught_up(self) -> bool:
        """Whether the views contain every order that was sent, in every partition."""
        sources = self.ledger.sources if self.ledger is not None else []
        topic = self.settings.prefix + ORDER_EVENTS.name
        try:
            fresh = self.client.get("/api/tables/sales_by_total")["freshness"]
        except OSError:
            return False
        covered = sum(fresh["offsets"].get(f"{topic}:{p}", 0) for p in range(len(sources)))
        return bool(fresh["connected"]) and covered == sum(s.counted + s.late + s.duplicates for s in sources)

    def verify(self) -> Comparison:
        """Wait until the views have caught up, and compare."""
        assert self.ledger is not None
        self.wait(self.caught_up, CATCH_UP_S, "the views have not caught up")
        slice_ms = self.settings.slice_s * 1000
        return compare(self.ledger, lambda table, start: self.client.rows(table, start, slice_ms))


@contextmanager
def demo(
    settings: Settings,
    plan: Plan,
    directory: Path,
    ledger: Ledger | None,
    workers: int,
    *,
    behaviour: BehaviourLedger | None = None,
    beside: Sequence[str] = (),
    history: Plan | None = None,
) -> Iterator[Demo]:
    """Start everything but the simulator; at the end of the context nothing of it runs any more.

    `workers` are of the sales topology; of those `beside` it one each is started.
    """
    environment = settings.variables()
    if settings.flush_s is not None:
        environment["MILLRACE_FLUSH_S"] = str(settings.flush_s)
    with ExitStack() as stack:
        children = stack.enter_context(Children(directory / "logs", environment))
        client = Client(f"http://127.0.0.1:{settings.views_port}", settings.read_token)
        running = Demo(settings, children, client, plan, ledger, behaviour, history=history)
        stack.callback(running.end)
        running.start({SALES: workers, **dict.fromkeys(beside, 1)})
        yield running
