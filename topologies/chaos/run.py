"""One run: start a fleet, let the shop sell, do one fault after the other, let everything settle, compare."""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from streams.broker import Broker
from streams.errors import MillraceError
from streams.topics import ensure_topics
from topologies.chaos.faults import FAULTS, LAST, RARE
from topologies.chaos.fleet import Fleet, millrace_worker
from topologies.chaos.subject import LOOKED_S, SALES, SOON, Book, Subject
from topologies.chaos.watch import Watch, watching
from topologies.demo.client import Client
from topologies.demo.processes import Children
from topologies.demo.run import Demo
from topologies.names import claim_port
from topologies.settings import Settings

BETWEEN_S = (0.3, 1.5)
SETTLE_S = 240.0
# At 4,000 events a second and five flushes there is hardly a moment without; right after a flush it may be one.
AT_STAKE_S = 2.0
# Segments that roll at once and a cleaner that may take them: what compaction can break, it breaks in a run.
SMALL_SEGMENTS = {
    "segment.ms": "1000",
    "segment.bytes": "1048576",
    "min.cleanable.dirty.ratio": "0.01",
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "1000",
}


@dataclass
class Outcome:
    """What one run came to.

    `faults` are those that counted, in order; `idle` those at whose moment nothing was at stake. `refused`: the last
    fault was one that nobody may go on after, and nobody did; what was compared, was compared before it.
    """

    seed: int
    faults: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    refused: bool = False
    events: int = 0
    cells: int = 0
    mismatches: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether everything that was compared agreed."""
        return not self.mismatches


def schedule(seed: int, count: int, names: Sequence[str]) -> list[str]:
    """The faults of a run, in order: the same for the same seed, and all equally often over consecutive seeds.

    Rare ones come in every fifth run, and those that end a run, too. Runs draw from one endless deck, which has every
    name once before any comes again.
    """
    usual = [name for name in names if name not in (*RARE, *LAST)]
    drawn: list[str] = []
    for place in range(seed * count, (seed + 1) * count) if usual else ():
        deck, at = divmod(place, len(usual))
        drawn.append(random.Random(deck).sample(usual, len(usual))[at])
    random.Random(seed).shuffle(drawn)
    alone = not usual
    rare = [name for name in RARE if name in names and (alone or seed % 5 == 2)]
    last = [name for name in LAST if name in names and (alone or seed % 5 == 0)]
    return rare + drawn[len(rare) :] + last


def run_once(
    settings: Settings,
    broker: Broker | None,
    directory: Path,
    seed: int,
    faults: Sequence[str],
    *,
    rate: float,
    report: Callable[[str], None] = lambda _: None,
    subject: Subject = SALES,
) -> Outcome:
    """Run the subject under these faults. `settings` have a prefix and a state directory of the run's own.

    Faults that did not count come again at the end, until as many have counted as were asked for.
    """
    began = time.monotonic()
    outcome = Outcome(seed)
    rng = random.Random(seed)
    with ExitStack() as stack:
        children = stack.enter_context(Children(directory / "logs", environment_of(settings)))
        client = Client(f"http://127.0.0.1:{settings.views_port}", settings.read_token)
        demo = subject.demo(settings, children, client, seed, rate)
        book = subject.open_book(demo)
        stack.callback(demo.end)
        try:
            if broker is not None:
                broker.up()  # a node that did not come up again in the run before is not this one's fault
            fleet = start_fleet(settings, children, broker, demo, subject)
            watch = stack.enter_context(watching(settings, fleet.group, settings.prefix + subject.watched))
            striking = Striking(fleet, demo, watch, rng, outcome, report)
            demo.simulate()
            striking.all([name for name in faults if name not in LAST])
            _settle_and_compare(striking, subject, book, client)
            outcome.events = demo.sent.events
            if last := [name for name in faults if name in LAST]:
                # After what nobody goes on after, nothing is compared: the ledger hears no more.
                demo.ledger, demo.behaviour, demo.plan = None, None, subject.plan(seed + 1_000_000, rate)
                demo.simulate()
                striking.last(last)
                outcome.refused = True
        except MillraceError as error:
            outcome.mismatches.append(str(error))
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


@dataclass
class Striking:
    """Does faults under load, and notes whether each counted."""

    fleet: Fleet
    demo: Demo
    watch: Watch
    rng: random.Random
    outcome: Outcome
    report: Callable[[str], None]

    def all(self, names: Sequence[str]) -> None:
        """These faults, and again those that did not count, until all have, or three times as many were tried."""
        waiting = list(names)
        for _ in range(3 * len(names)):
            if not waiting:
                return
            name = waiting.pop(0)
            if not self._strike(name, lambda: self.fleet.wait_ready()):
                waiting.append(name)
        if waiting:
            raise MillraceError(f"faults that never counted: {', '.join(waiting)}")

    def last(self, names: Sequence[str]) -> None:
        """Faults after which no worker is left."""
        for name in names:
            self._strike(name, lambda: None)

    def _strike(self, name: str, then: Callable[[], None]) -> bool:
        """Do one; returns whether it counted.

        It counts while something is at stake: at its moment the group had records to make durable or to recover, and
        the load went on until it was over.
        """
        time.sleep(self.rng.uniform(*BETWEEN_S))
        began, sent = time.monotonic(), self.demo.sent.events
        counts = self._at_stake()
        FAULTS[name](self.fleet, self.rng)
        then()
        counts = counts and self.demo.simulating and self.demo.sent.events > sent
        (self.outcome.faults if counts else self.outcome.idle).append(name)
        self.report(f"{name}: {'counted' if counts else 'nothing at stake'}, {time.monotonic() - began:.1f} s")
        return counts

    def _at_stake(self) -> bool:
        if self.watch.uncommitted():  # waits for an answer, which does not count as time with nothing at stake
            return True
        deadline = time.monotonic() + AT_STAKE_S
        while time.monotonic() < deadline:
            if self.watch.uncommitted():
                return True
        return False


def _settle_and_compare(striking: Striking, subject: Subject, book: Book | None, client: Client) -> None:
    demo, outcome = striking.demo, striking.outcome
    began = time.monotonic()
    demo.stop.set()
    demo.wait(lambda: not demo.simulating, SETTLE_S, "the simulator has not ended")
    demo.wait(lambda: subject.applied(demo.settings), SETTLE_S, "the workers have not caught up")
    time.sleep(LOOKED_S)  # the views' next look is later than that
    demo.wait(lambda: subject.shown(demo), SETTLE_S, "the views have not caught up")
    caught_up = time.monotonic()
    compared = subject.compare(demo.settings, book, client)
    for name, comparison in compared.items():
        outcome.cells += comparison.cells
        outcome.mismatches += [f"{name}: {mismatch}" for mismatch in comparison.mismatches]
    took = time.monotonic() - caught_up
    cells = ", ".join(f"{comparison.cells:,} of {name}" for name, comparison in compared.items())
    striking.report(f"settled in {caught_up - began:.1f} s, compared in {took:.1f} s: {cells}")
    demo.stop.clear()


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings that the children of a run need."""
    return {
        **settings.variables(),
        "MILLRACE_SESSION_S": str(settings.session_s),
        **{f"MILLRACE_{name.upper()}": str(getattr(settings, name)) for name in SOON},
    }


def start_fleet(
    settings: Settings, children: Children, broker: Broker | None, demo: Demo, subject: Subject = SALES
) -> Fleet:
    """Two workers that own everything, and a view server that answers."""
    topology = subject.make(settings)
    ensure_topics(settings.cluster, topology.topics())
    shrink_segments(settings, [topology.group.changelog(table).name for table in topology.group.tables])
    worker = partial(millrace_worker, topology=subject.name)
    fleet = Fleet(settings, children, topology.name, broker, worker=worker, topology=subject.name)
    for slot in (0, 1):
        fleet.start(slot)
    children.start("views", ["views", "--topology", subject.name, "--port", str(settings.views_port)])
    for name in subject.beside:
        port = claim_port(settings.state_dir, settings.worker_port)
        children.start(name, ["worker", name, "--name", "w0", "--port", str(port), "-l", "warning"])
    demo.wait(demo.views_answer, 60.0, "the view server does not answer")
    fleet.wait_ready()
    return fleet


def delete_topics(settings: Settings, subject: Subject) -> None:
    """Delete a run's topics: thousands of tiny segments, which a broker that was killed recovers one by one."""
    admin: Any = AdminClient(settings.cluster.librdkafka(log_level=0))
    own = {topic.name for topic in subject.make(settings).topics()}
    prefix = settings.prefix  # without one there may be topics of others
    there = admin.list_topics(timeout=20).topics
    names = [name for name in there if (prefix and name.startswith(prefix)) or name in own]
    for deleted in admin.delete_topics(names, operation_timeout=20).values() if names else ():
        with suppress(KafkaException):  # what a later run would see, its own prefix hides from it
            deleted.result()


def shrink_segments(settings: Settings, topics: Sequence[str]) -> None:
    """Let compaction come as soon as it can. Raises MillraceError if the cluster does not allow it."""
    admin: Any = AdminClient(settings.cluster.librdkafka(log_level=0))
    changes = [
        ConfigResource(
            ResourceType.TOPIC,
            topic,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in SMALL_SEGMENTS.items()
            ],
        )
        for topic in topics
    ]
    for topic, changed in admin.incremental_alter_configs(changes).items():
        if error := changed.exception():
            raise MillraceError(f"{topic} cannot be given small segments: {error}")
