"""The same faults under the same load on millrace and on plain Faust, each compared with the ledger cell by cell.

Only delivery is judged: the load has no duplicates, no late events and one currency, and its rate is one that plain
Faust keeps up with. Faults are those that any worker can suffer: kills, wiped state, members that join, leave or stand
still. A worker that ends by itself is started again, as a supervisor would. What is compared is what the changelog
says after the group has committed everything and its workers have ended in order.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.errors import MillraceError
from streams.simulator.ledger import Cell, Ledger
from streams.simulator.run import Plan, plan_run
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS
from topologies.chaos.faults import FAULTS
from topologies.chaos.fleet import POLL_S, Fleet
from topologies.chaos.run import BETWEEN_S, environment_of
from topologies.chaos.target import Cells, Sales, Target
from topologies.demo.client import Client
from topologies.demo.processes import Children
from topologies.demo.run import Demo
from topologies.settings import Settings

FAULTS_FOR_ALL = ("kill", "wipe", "join-leave", "pause")
SPEED = 20.0
# Two of Faust's commits (it commits every 2.8 s), and a load for a run without faults, the control.
WARM_UP_S = 6.0
# As supervisors do it: not at once, so that a crash of one does not become a crash of all, time after time.
RESTART_AFTER_S = 5.0
READY_S = 45.0
SETTLE_S = 45.0
# Nothing more may come into the changelog for so long; a transaction left open is taken back after a minute.
QUIET_S = 3.0


@dataclass(frozen=True)
class Verdict:
    """Cells and orders of the ledger, and how far a table is off: `over` counts too many, `under` too few."""

    cells: int = 0
    over_cells: int = 0
    under_cells: int = 0
    money_cells: int = 0
    orders: int = 0
    over: int = 0
    lost: int = 0

    @property
    def exact(self) -> bool:
        """Whether every cell is right, in number and in money."""
        return not (self.over_cells or self.under_cells or self.money_cells)

    def __add__(self, other: "Verdict") -> "Verdict":
        return Verdict(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass
class Run:
    """One target under one schedule.

    `restarts` of workers that ended by themselves or hung; `wiped`: how often their state had to be deleted, as Faust
    asks for, for them to get ready at all; `stuck`: why there is no verdict, as even that did not help.
    """

    target: str
    seed: int
    faults: list[str] = field(default_factory=list)
    verdict: Verdict = Verdict()
    restarts: int = 0
    wiped: int = 0
    stuck: str = ""
    seconds: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether all was taken, and every cell is right."""
        return self.verdict.exact and not self.stuck


def judge(ledger: Mapping[tuple[int, str], Cell], found: Cells) -> Verdict:
    """Compare number and value of placed orders in every cell of either side.

    >>> judge({(0, "a"): Cell(placed=9, orders=3), (0, "b"): Cell()}, {(0, "a"): Sales(4, 12)}).over
    1
    """
    verdict = Verdict(orders=sum(cell.orders for cell in ledger.values()))
    for at in ledger.keys() | found.keys():
        must, is_ = ledger.get(at, Cell()), found.get(at, Sales())
        off = is_.orders - must.orders
        money = off == 0 and is_.placed != must.placed
        verdict += Verdict(1, off > 0, off < 0, money, 0, max(off, 0), max(-off, 0))
    return verdict


@dataclass
class Supervised(Fleet):
    """A fleet whose workers are started again when they end by themselves, and on empty state if they never get ready.

    Faust's message for a store that is ahead of its changelog is to delete it: an operator would, in the end.
    """

    restarts: int = 0
    wiped: int = 0
    ended_at: dict[int, float] = field(default_factory=dict)

    def wait_ready(self) -> None:
        """Wait until all partitions are owned. Raises MillraceError when that does not come on empty state either."""
        if self._ready_within(READY_S):
            return
        self.wiped += 1
        slots = list(self.workers)
        for slot in slots:
            self.kill(slot)
        self.wipe()
        for slot in slots:
            self.start(slot)
        if not self._ready_within(READY_S):
            raise MillraceError(
                f"workers are not ready on empty state either; the logs are in {self.children.directory}"
            )

    def restart(self) -> None:
        """Start every worker anew."""
        for slot in list(self.workers):
            self.restarts += 1
            self.end(slot)
            self.start(slot)

    def revive(self) -> None:
        """Start those that have ended again, a moment after they were seen to have."""
        for slot, child in list(self.workers.items()):
            if child.process.poll() is None:
                continue
            ended = self.ended_at.setdefault(child.process.pid, time.monotonic())
            if time.monotonic() > ended + RESTART_AFTER_S:
                self.restarts += 1
                self.kill(slot)
                self.start(slot)

    def _ready_within(self, limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            self.revive()
            if self._owned_by_all():
                return True
            time.sleep(POLL_S)
        return False


def plan_for(seed: int, rate: float) -> Plan:
    """A load in which a table can be wrong for one reason only: how records were delivered."""
    shop = ShopSettings(
        seed=seed, topics=(ORDER_EVENTS.name,), duplicates=0.0, late_sessions=0.0, foreign=0.0, daily_swing=0.0
    )
    return plan_run(shop, now_ms=time.time_ns() // 1_000_000, rate=rate, speed=SPEED)


def run_target(
    target: Target,
    settings: Settings,
    directory: Path,
    seed: int,
    faults: Sequence[str],
    plan: Plan,
    report: Callable[[str], None] = lambda _: None,
) -> Run:
    """Do the faults to a target's workers under the load of a plan, which goes on until the last fault is over."""
    began, rng = time.monotonic(), random.Random(seed)
    done = Run(target.name, seed, list(faults))
    with ExitStack() as stack:
        children = stack.enter_context(Children(directory / "logs", environment_of(settings)))
        ledger = Ledger(settings.partitions, currency=settings.currency)
        demo = Demo(settings, children, Client(""), plan, ledger)
        stack.callback(demo.end)
        target.create_topics(settings)
        worker = partial(target.arguments, settings)
        fleet = Supervised(settings, children, target.group(settings), program=target.program, worker=worker)
        for slot in (0, 1):
            fleet.start(slot)
        fleet.wait_ready()
        demo.simulate()
        time.sleep(WARM_UP_S)
        try:
            for name in faults:
                time.sleep(rng.uniform(*BETWEEN_S))
                report(name)
                FAULTS[name](fleet, rng)
                fleet.wait_ready()
        except MillraceError as error:
            done.stuck = str(error)
        demo.stop.set()
        while demo.simulating:
            time.sleep(POLL_S)
        if not done.stuck:
            report("settling")
            if behind := settle(target, settings, fleet):
                done.stuck = f"{behind:,} records are not taken"
            for slot in list(fleet.workers):
                fleet.end(slot)
        if not done.stuck:
            done.verdict = judge(ledger.cells("region"), target.cells(settings))
        done.restarts, done.wiped = fleet.restarts, fleet.wiped
    done.seconds = round(time.monotonic() - began, 1)
    return done


def settle(target: Target, settings: Settings, fleet: Supervised) -> int:
    """Wait until all is committed and the changelog is quiet; returns how many records are not committed after all.

    It waits for as long as there is progress. Where there is none, every worker is started anew, once.
    """
    offsets = Offsets(target, settings)
    moved = quiet = time.monotonic()
    before: object = None
    restarted = False
    while True:
        fleet.revive()
        now, behind, open_ = time.monotonic(), offsets.behind(), offsets.open_transactions()
        at = (behind, open_, offsets.changelog())
        if at != before or behind or open_:
            quiet = now
        elif now > quiet + QUIET_S:
            return 0
        if at != before:
            before, moved = at, now
        elif now > moved + SETTLE_S:
            if restarted:
                return behind
            restarted, moved = True, now
            fleet.restart()
        time.sleep(5 * POLL_S)


class Offsets:
    """Where a group and its changelog are."""

    def __init__(self, target: Target, settings: Settings) -> None:
        """Connect in the background."""
        self._admin: Any = AdminClient(settings.cluster.librdkafka(log_level=0))
        self._group = target.group(settings)
        self._source = _partitions(settings.prefix + ORDER_EVENTS.name, settings.partitions)
        self._changelog = _partitions(target.changelog(settings), settings.partitions)

    def behind(self) -> int:
        """How many source records are not committed."""
        asked = [ConsumerGroupTopicPartitions(self._group, self._source)]
        group = self._admin.list_consumer_group_offsets(asked)[self._group].result()
        committed: int = sum(max(0, tp.offset) for tp in group.topic_partitions)
        return sum(self._ends(self._source)) - committed

    def changelog(self) -> list[int]:
        """The changelog's end offsets."""
        return self._ends(self._changelog)

    def open_transactions(self) -> bool:
        """Whether the changelog ends with records that are neither committed nor taken back."""
        return self._ends(self._changelog, IsolationLevel.READ_COMMITTED) != self.changelog()

    def _ends(
        self, tps: list[TopicPartition], isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED
    ) -> list[int]:
        latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # published without types
        asked = dict.fromkeys(tps, latest)
        found = self._admin.list_offsets(asked, isolation_level=isolation)
        return [found[tp].result().offset for tp in tps]


def _partitions(topic: str, count: int) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(count)]
