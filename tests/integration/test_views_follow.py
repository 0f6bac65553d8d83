"""A view server's follower on Apache Kafka: the tail, outages, topics made anew; and the command itself."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import confluent_kafka
import msgspec
import orjson
import pytest
from confluent_kafka.admin import AdminClient

from streams.broker import Broker
from streams.cluster import Cluster
from streams.errors import PartitionMismatch
from streams.topics import Topic, ensure_topics
from tables.aggregates import Sum
from tables.read_model import ReadModel
from tables.windows import Window
from topologies.driver import Driver
from topologies.topology import Topology
from topologies.views.follower import Follower
from topologies.views.freshness import Tracker
from topologies.views.hosting import read_group

FIRST = Window(0, 60_000)
LIMIT_S = 30.0
COMMAND = [sys.executable, "-c", "from topologies.cli import main; main()", "views"]


class Sale(msgspec.Struct, frozen=True, rename="camel"):
    amount: int


def shop() -> Topology:
    """A topology with names of its own."""
    name = f"views-{uuid4().hex[:8]}"
    topology = Topology(name)
    topic = Topic(f"{name}-sales", Sale, partitions=2)

    @topology.table(topic, name="takings", amount=Sum())
    def takings(sale: Sale) -> list[tuple[str, int]]:
        return [("all", sale.amount)]

    return topology


class Copy:
    """Copies what a driver's log holds to Kafka: the same partitions, in the same order."""

    def __init__(self, driver: Driver, cluster: Cluster) -> None:
        self._driver = driver
        self._cluster = cluster
        self.sent: dict[tuple[str, int], int] = {}

    def more(self) -> None:
        """Send what was not sent yet."""
        producer = confluent_kafka.Producer(self._cluster.librdkafka(acks="all"))
        for topic in self._driver.topology.topics():
            for number in range(topic.partitions):
                sent = self.sent.get((topic.name, number), 0)
                for record in self._driver.log.records((topic.name, number), sent):  # type: ignore[arg-type]  # a TP
                    producer.produce(topic.name, record.value, record.key, number, timestamp=1_000)
                    self.sent[topic.name, number] = record.offset + 1
        assert producer.flush(20) == 0

    @property
    def followed(self) -> int:
        """How many records of those that were sent a read model takes: changelogs and progress."""
        group = self._driver.topology.group
        names = {group.progress.name, *(group.changelog(t).name for s in group.sources for t in s.tables)}
        return sum(sent for (name, _), sent in self.sent.items() if name in names)


def sell(driver: Driver, amount: int, partition: int = 0) -> None:
    (source,) = driver.topology.sources
    driver.feed(source, {"amount": amount}, partition=partition, timestamp_ms=1_000)
    driver.flush()


def takings(model: ReadModel) -> int:
    found = model.result("takings", FIRST, "all")
    return found["amount"] if found else 0


class Following:
    """A follower that runs, and what it has come to."""

    def __init__(self, topology: Topology, cluster: Cluster, directory: Path) -> None:
        self.model = ReadModel(read_group(topology), directory)
        self.tracker = Tracker(self.model)
        self._follower = Follower(self.model, self.tracker, cluster, topology.topics(), look_every_s=0.1)

    async def __aenter__(self) -> "Following":
        self.task = asyncio.create_task(self._follower.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.model.close()

    async def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not holds():
            assert not self.task.done(), self.task
            assert time.monotonic() < deadline, "not in time"
            await asyncio.sleep(0.02)

    def freshness(self) -> dict[str, Any]:
        return self.tracker.freshness(self.tracker.sources, time.time())


async def test_it_catches_up_and_goes_on_with_the_tail(kafka: Cluster, tmp_path: Path) -> None:
    topology = shop()
    with Driver(topology) as driver:
        ensure_topics(kafka, topology.topics())
        copy = Copy(driver, kafka)
        sell(driver, 10)
        sell(driver, 5, partition=1)
        copy.more()
        async with Following(topology, kafka, tmp_path / "copy") as first:
            await first.until(lambda: first.tracker.caught_up)
            await first.until(lambda: first.freshness()["lagTotal"] == 0)
            assert takings(first.model) == 15
            assert first.freshness()["connected"]
            sell(driver, 7)
            copy.more()
            await first.until(lambda: first.model.records == copy.followed)
            assert takings(first.model) == 22
            assert sum(first.freshness()["offsets"].values()) == 3
        sell(driver, 1)
        copy.more()
        async with Following(topology, kafka, tmp_path / "copy") as second:
            assert takings(second.model) == 22
            assert not second.tracker.caught_up
            await second.until(lambda: second.tracker.caught_up)
            assert takings(second.model) == 23
            assert first.model.records + second.model.records == copy.followed  # none a second time


async def test_a_server_may_start_before_any_worker(kafka: Cluster, tmp_path: Path) -> None:
    async with Following(shop(), kafka, tmp_path / "copy") as following:
        await following.until(lambda: following.tracker.caught_up)
        await following.until(lambda: following.freshness()["lagTotal"] == 0)
        assert takings(following.model) == 0


async def test_lag_counts_what_the_tables_do_not_cover(kafka: Cluster, tmp_path: Path) -> None:
    topology = shop()
    ensure_topics(kafka, topology.topics())
    (source,) = topology.sources
    producer = confluent_kafka.Producer(kafka.librdkafka())
    for _ in range(3):
        producer.produce(source, b"{}", partition=1)
    assert producer.flush(20) == 0
    async with Following(topology, kafka, tmp_path / "copy") as following:
        await following.until(lambda: following.freshness()["lagTotal"] == 3)
        assert following.freshness()["lag"] == {f"{source}:0": 0, f"{source}:1": 3}
        assert following.freshness()["age_s"] is None


async def test_an_outage_is_marked_survived_and_made_up_for(kafka_broker: Broker, tmp_path: Path) -> None:
    cluster = kafka_broker.cluster()
    assert cluster is not None
    topology = shop()
    with Driver(topology) as driver:
        ensure_topics(cluster, topology.topics())
        sell(driver, 10)
        copy = Copy(driver, cluster)
        copy.more()
        async with Following(topology, cluster, tmp_path / "copy") as following:
            await following.until(lambda: takings(following.model) == 10 and following.tracker.connected)
            try:
                await asyncio.to_thread(kafka_broker.down)
                await following.until(lambda: not following.tracker.connected)
                assert takings(following.model) == 10
                age = following.freshness()["age_s"]
                await asyncio.sleep(0.3)
                assert following.freshness()["age_s"] > age
            finally:
                await asyncio.to_thread(kafka_broker.up)
            sell(driver, 5)
            await asyncio.to_thread(copy.more)
            await following.until(lambda: takings(following.model) == 15 and following.tracker.connected)
            assert following.tracker.caught_up


async def test_topics_that_were_made_anew_begin_a_copy_anew(kafka: Cluster, tmp_path: Path) -> None:
    topology = shop()
    ensure_topics(kafka, topology.topics())
    with Driver(topology) as driver:
        for _ in range(3):
            sell(driver, 10)
        Copy(driver, kafka).more()
        async with Following(topology, kafka, tmp_path / "copy") as following:
            await following.until(lambda: takings(following.model) == 30)
    admin = AdminClient(kafka.librdkafka())
    names = [topic.name for topic in topology.topics()]
    for deleted in admin.delete_topics(names, operation_timeout=20).values():
        deleted.result()
    with Driver(topology) as driver:
        await asyncio.to_thread(_created, kafka, topology)
        sell(driver, 1)
        Copy(driver, kafka).more()
        async with Following(topology, kafka, tmp_path / "copy") as following:
            await following.until(lambda: takings(following.model) == 1)
            await following.until(lambda: following.tracker.caught_up)


def _created(kafka: Cluster, topology: Topology) -> None:
    """A deleted topic's name is free again once every broker has heard of it."""
    deadline = time.monotonic() + LIMIT_S
    names = {topic.name for topic in topology.topics()}
    while names & AdminClient(kafka.librdkafka()).list_topics(timeout=10).topics.keys():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ensure_topics(kafka, topology.topics())


async def test_a_partition_mismatch_ends_it_with_the_way_out(kafka: Cluster, tmp_path: Path) -> None:
    topology = shop()
    ensure_topics(kafka, [topic.with_partitions(3) for topic in topology.topics()])
    async with Following(topology, kafka, tmp_path / "copy") as following:
        with pytest.raises(PartitionMismatch):
            await asyncio.wait_for(asyncio.shield(following.task), LIMIT_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started(*options: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [*COMMAND, *options], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_stopped(kafka: Cluster, tmp_path: Path, number: int) -> None:
    port = free_port()
    options = ("--bootstrap", kafka.bootstrap, "--state", str(tmp_path), "--port", str(port))
    server = started(*options)
    try:
        assert server.stdout is not None
        assert f"http://127.0.0.1:{port}/" in server.stdout.readline()
        deadline = time.monotonic() + LIMIT_S
        while not (ready := _ready(port)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert ready["freshness"]["caughtUp"]
        second = started(*options)
        said = second.communicate(timeout=LIMIT_S)[1]
        assert second.returncode == 1
        assert said.count("\n") == 1
        assert "open in another process" in said
        server.send_signal(number)
        assert server.wait(10) == 0
        assert server.stderr is not None
        assert "Traceback" not in server.stderr.read()
    finally:
        server.kill()
        server.communicate()


def _ready(port: int) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            found: dict[str, Any] = orjson.loads(answer.read())
            return found
    except OSError:
        return None


def test_a_port_that_is_taken_is_one_line(kafka: Cluster, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        server = started("--bootstrap", kafka.bootstrap, "--state", str(tmp_path), "--port", port)
        said = server.communicate(timeout=LIMIT_S)[1]
    assert server.returncode == 1
    assert "choose another with --port" in said
    assert "Traceback" not in said


def test_it_answers_from_its_copy_with_no_broker_at_all(tmp_path: Path) -> None:
    port = free_port()
    server = started("--bootstrap", f"localhost:{free_port()}", "--state", str(tmp_path), "--port", str(port))
    try:
        assert server.stdout is not None
        server.stdout.readline()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            fresh = orjson.loads(answer.read())["freshness"]
        assert (fresh["connected"], fresh["caughtUp"], fresh["lag"]) == (False, False, None)
        server.send_signal(signal.SIGINT)
        assert server.wait(40) == 0  # a call to a broker that is away is under way, and takes its ten seconds
    finally:
        server.kill()
        server.communicate()
