"""A scenario from its topic to its end, act after act."""

import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import KafkaException

from streams.admin.connection import ANSWER_S, Admin, reason
from streams.admin.lines import Outgoing
from streams.admin.sending import partitioner_named, send
from streams.admin.topics import create_topic, delete_topics
from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.producers import Producer
from topologies.scenarios.acts import Act, Closing, Death, Opening, Spreading, Stage
from topologies.scenarios.consumers import Consumers, Heard
from topologies.scenarios.ownership import Ownership, ask, settled
from topologies.scenarios.plan import Plan, Spreader
from topologies.scenarios.spreading import first_reads, out_of_order, spread_of
from topologies.scenarios.wire import Payload, Read, encode

READ_S: Final = 60.0
POLL_S: Final = 0.05
LOAD_EVERY_S: Final = 0.02
CALM_S: Final = 0.5
DEATH: Final = "death"


def run(plan: Plan, cluster: Cluster, tell: Callable[[Act], object], looked: Callable[[Ownership], object]) -> None:
    """Play a scenario; `tell` hears each act when it is over, `looked` every look at who owns what.

    Topic and group are deleted at the end, also after an error or Ctrl-C. Raises MillraceError.
    """
    admin = Admin(cluster)
    name = f"scenario-{plan.name}-{secrets.token_hex(3)}"
    with _topic_and_group(admin, name, plan, tell), Consumers(cluster, name, name, plan.session_s) as consumers:
        stage = _Stage(plan, cluster, admin, name, consumers, tell, looked)
        stage.gather()
        for spreader in plan.spreaders:
            stage.spread(spreader)
        if plan.kill:
            stage.kill()
    tell(Closing(name, name))


@contextmanager
def _topic_and_group(admin: Admin, name: str, plan: Plan, tell: Callable[[Act], object]) -> Iterator[None]:
    copies = min(3, len(admin.metadata().brokers))
    create_topic(admin, name, partitions=plan.partitions, replication=copies)
    try:
        tell(Opening(admin.cluster.bootstrap, name, name))
        yield
    finally:
        delete_topics(admin, [name])
        delete_group(admin, name, plan.session_s)


def delete_group(admin: Admin, name: str, session_s: float) -> None:
    """Delete a group as soon as it is empty: of one that was killed the broker hears when its session is over."""
    deadline = time.monotonic() + session_s + ANSWER_S
    while ask(admin, name).owners and time.monotonic() < deadline:
        time.sleep(POLL_S)
    try:
        admin.client.delete_consumer_groups([name], request_timeout=ANSWER_S)[name].result(ANSWER_S)
    except KafkaException as error:
        if error.args[0].name() not in ("GROUP_ID_NOT_FOUND", "_NOENT"):  # nobody had joined it yet
            raise MillraceError(f"group {name} cannot be deleted: {reason(error)}") from error


@dataclass
class _Stage:
    """Where a scenario is played."""

    plan: Plan
    cluster: Cluster
    admin: Admin
    name: str
    consumers: Consumers
    tell: Callable[[Act], object]
    looked: Callable[[Ownership], object]
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.plan.seed)

    def gather(self) -> None:
        """Let the consumers join, and look at who owns what whenever there are as many as the plan's stages say."""
        for size in self.plan.stages:
            began = time.monotonic()
            for name in self.plan.consumer_names[len(self.consumers.running) : size]:
                self.consumers.start(name)
            found = self._settled()
            self.tell(Stage(size, self.plan.partitions, found, time.monotonic() - began))

    def _settled(self) -> Ownership:
        return settled(self.admin, self.name, self.consumers.running.keys(), self.plan.partitions, looked=self._look)

    def _look(self, found: Ownership) -> None:
        self.consumers.check()
        self.looked(found)

    def spread(self, spreader: Spreader) -> None:
        """Send by one partitioner, from all producers at once, and wait until everything is read."""
        producers = range(1, self.plan.producers + 1)
        shares = [self._records(spreader.name, number) for number in producers]
        with ThreadPoolExecutor(len(shares)) as pool:
            list(pool.map(lambda share: self._send(share, spreader), shares))
        sent = sum(len(share) for share in shares)
        heard = self._all_read(spreader.name, sent)
        reads = [one.read for one in heard]
        read_by = Counter(one.consumer for one in heard)
        self.tell(
            Spreading(
                spreader.name,
                sent,
                spread_of(reads, self.plan.partitions),
                {name: read_by[name] for name in self.plan.consumer_names},
            )
        )

    def _records(self, act: str, producer: int) -> list[Outgoing]:
        """One producer's share of the records, keys at random, each key's numbered."""
        share = len(range(producer - 1, self.plan.records, self.plan.producers))
        return [self._record(act, producer, number) for number in range(share)]

    def _record(self, act: str, producer: int, number: int) -> Outgoing:
        key = f"user-{self._random.randint(1, self.plan.keys)}".encode()
        return Outgoing(key, encode(Payload(act, producer, number, time.monotonic())))

    def _send(self, records: Sequence[Outgoing], spreader: Spreader) -> None:
        # each producer takes turns by itself
        own = partitioner_named(spreader.name) if spreader.name == "round-robin" else spreader.partitioner
        send(self.cluster, self.name, records, partitioner=own)

    def _all_read(self, act: str, sent: int, limit_s: float = READ_S) -> list[Heard]:
        deadline = time.monotonic() + limit_s
        while True:
            heard = self.consumers.heard(act)
            if len({(one.read.partition, one.read.offset) for one in heard}) >= sent:
                return heard
            if time.monotonic() > deadline:
                return heard
            self.consumers.check()
            time.sleep(POLL_S)

    def kill(self) -> None:
        """Kill the last one that owns something, while records come all the time."""
        owners = ask(self.admin, self.name).working
        victim = max(owners)
        with self._load() as load:
            load.wait(CALM_S)
            began = time.monotonic()
            pid = self.consumers.kill(victim)
            noticed: list[float] = []

            def look(found: Ownership) -> None:
                if victim not in found.owners and not noticed:
                    noticed.append(time.monotonic() - began)
                self._look(found)

            limit_s = 10 * self.plan.session_s + READ_S
            alive = self.consumers.running.keys()
            found = settled(self.admin, self.name, alive, self.plan.partitions, looked=look, limit_s=limit_s)
            settled_s = time.monotonic() - began
            load.wait(CALM_S)
        heard = self._all_read(DEATH, load.sent)
        self.tell(self._death(victim, pid, owners[victim], (noticed[0], settled_s), found, load.sent, heard))

    def _death(
        self,
        victim: str,
        pid: int,
        owned: tuple[int, ...],
        times: tuple[float, float],
        found: Ownership,
        sent: int,
        heard: Sequence[Heard],
    ) -> Death:
        first = first_reads(one.read for one in heard)
        return Death(
            victim,
            pid,
            owned,
            *times,
            found,
            longest_wait_s([one for one in first if one.partition in owned]),
            longest_wait_s([one for one in first if one.partition not in owned]),
            sent,
            again=len(heard) - len(first),
            lost=sent - len(first),
            out_of_order=len(out_of_order(first)),
        )

    @contextmanager
    def _load(self) -> "Iterator[_Load]":
        load = _Load(self)
        load.thread.start()
        try:
            yield load
        finally:
            load.stop.set()
            load.thread.join(READ_S)
        if load.failed:
            raise load.failed[0]


def longest_wait_s(reads: Sequence[Read]) -> float:
    """The longest time between a record's sending and its reading; 0.0 for none."""
    return max((one.read_at - one.payload.sent_at for one in reads), default=0.0)


class _Load:
    """Records all the time, fifty a second, by key hash, from one producer."""

    def __init__(self, stage: _Stage) -> None:
        self.sent = 0
        self.stop = threading.Event()
        self.failed: list[BaseException] = []
        self.thread = threading.Thread(target=self._run, args=(stage,), daemon=True)

    def wait(self, seconds: float) -> None:
        """Go on for a while; a failure ends it."""
        self.stop.wait(seconds)

    def _run(self, stage: _Stage) -> None:
        try:
            with Producer(stage.cluster, **{"linger.ms": 0}) as producer:
                while not self.stop.wait(LOAD_EVERY_S):
                    record = stage._record(DEATH, 1, self.sent)
                    producer.produce(stage.name, record.key, record.value)
                    self.sent += 1
        except BaseException as error:
            self.failed.append(error)
            self.stop.set()
