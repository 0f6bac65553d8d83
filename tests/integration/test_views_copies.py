"""Copies of derived topics on Apache Kafka: tail, tombstones, topics made anew or cut; several topologies served."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import confluent_kafka
import msgspec
from confluent_kafka.admin import AdminClient
from own import ROOT, forget_topics, free_port

from streams.cluster import Cluster
from streams.topics import Topic, ensure_topics
from tables.aggregates import Count
from tables.read_model import ReadModel
from tables.topic_copy import Copied, TopicCopy
from topologies.demo.client import Client
from topologies.topology import Topology
from topologies.views.follower import Follower
from topologies.views.freshness import Tracker
from topologies.views.hosting import read_group

LIMIT_S = 30.0


class Event(msgspec.Struct, frozen=True):
    """Whatever."""


def declared() -> tuple[Topology, Topic]:
    """A topology with names of its own, and the topic that it copies."""
    name = f"copies-{uuid4().hex[:8]}"
    topology = Topology(name)
    topology.table(Topic(f"{name}-events", Event, partitions=2), name="events", n=Count())(lambda event: [("all", 1)])
    return topology, Topic(f"{name}-derived", partitions=2, cleanup="compact", retention_s=None)


def produce(cluster: Cluster, topic: str, *records: tuple[str, bytes | None], partition: int = 0) -> None:
    producer = confluent_kafka.Producer(cluster.librdkafka(acks="all"))
    for key, value in records:
        producer.produce(topic, value, key, partition)
    assert producer.flush(20) == 0


class Following:
    """A follower of a read model and a copy, and what they have come to."""

    def __init__(self, topology: Topology, copied: Topic, cluster: Cluster, directory: Path) -> None:
        self.model = ReadModel(read_group(topology), directory / "model")
        self.copy = TopicCopy(Copied(copied, lambda key, value: len(value)), directory / "copy")
        self.tracker = Tracker(self.model, copies={copied.name: self.copy})
        topics = [copied, *topology.topics()]
        self._follower = Follower(self.model, self.tracker, cluster, topics, copies=[self.copy], look_every_s=0.1)

    async def __aenter__(self) -> "Following":
        self.task = asyncio.create_task(self._follower.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.model.close()
        self.copy.close()

    async def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not holds():
            assert not self.task.done(), self.task
            assert time.monotonic() < deadline, "not in time"
            await asyncio.sleep(0.02)

    @property
    def values(self) -> dict[bytes, bytes]:
        return dict(self.copy.starting(b""))

    def freshness(self) -> dict[str, Any]:
        return self.tracker.freshness(self.tracker.sources, time.time(), copies=True)


async def test_a_copy_catches_up_goes_on_and_restarts_with_the_tail(kafka: Cluster, tmp_path: Path) -> None:
    topology, copied = declared()
    ensure_topics(kafka, [copied])
    produce(kafka, copied.name, ("a", b"1"), ("b", b"1"), ("a", b"22"))
    produce(kafka, copied.name, ("c", b"333"), partition=1)
    async with Following(topology, copied, kafka, tmp_path) as first:
        await first.until(lambda: first.tracker.caught_up)
        assert first.values == {b"a": b"22", b"b": b"1", b"c": b"333"}
        await first.until(lambda: first.freshness()["copies"] == {copied.name: 0})
        produce(kafka, copied.name, ("b", None))
        await first.until(lambda: b"b" not in first.values)
    produce(kafka, copied.name, ("c", None), partition=1)
    produce(kafka, copied.name, ("d", b"4444"))
    async with Following(topology, copied, kafka, tmp_path) as second:
        assert second.values == {b"a": b"22", b"c": b"333"}
        await second.until(lambda: second.tracker.caught_up)
        assert second.values == {b"a": b"22", b"d": b"4444"}
        assert [found.key for found in second.copy.newest(9)] == [b"d", b"a"]
        assert second.copy.records == 2


async def test_a_copied_topic_that_was_made_anew_begins_its_copy_anew(kafka: Cluster, tmp_path: Path) -> None:
    topology, copied = declared()
    ensure_topics(kafka, [copied])
    produce(kafka, copied.name, ("a", b"1"), ("b", b"1"))
    async with Following(topology, copied, kafka, tmp_path) as first:
        await first.until(lambda: len(first.values) == 2)
    admin = AdminClient(kafka.librdkafka())
    admin.delete_topics([copied.name], operation_timeout=20)[copied.name].result()
    while copied.name in admin.list_topics(timeout=10).topics:
        await asyncio.sleep(0.1)
    ensure_topics(kafka, [copied])
    produce(kafka, copied.name, ("c", b"1"), ("d", b"1"), ("e", b"1"))
    async with Following(topology, copied, kafka, tmp_path) as second:
        await second.until(lambda: second.tracker.caught_up)
        assert set(second.values) == {b"c", b"d", b"e"}


async def test_a_copied_topic_that_was_cut_before_the_copys_position_is_copied_from_its_new_start(
    kafka: Cluster, tmp_path: Path
) -> None:
    topology, copied = declared()
    ensure_topics(kafka, [replace(copied, config={"cleanup.policy": "compact,delete"})])
    produce(kafka, copied.name, ("a", b"1"), ("b", b"1"))
    async with Following(topology, copied, kafka, tmp_path) as first:
        await first.until(lambda: len(first.values) == 2)
    produce(kafka, copied.name, ("c", b"1"), ("d", b"1"), ("e", b"1"))
    cut = confluent_kafka.TopicPartition(copied.name, 0, 4)
    admin = AdminClient(kafka.librdkafka())
    for done in admin.delete_records([cut]).values():
        done.result()
    async with Following(topology, copied, kafka, tmp_path) as second:
        await second.until(lambda: set(second.values) == {b"e"})
        await second.until(lambda: second.freshness()["copies"] == {copied.name: 0})


COMMAND = [sys.executable, "-c", "from topologies.cli import main; main()", "views"]


def test_one_command_serves_several_topologies_their_copies_and_what_is_computed_beside(
    kafka: Cluster, tmp_path: Path
) -> None:
    forget_topics(kafka, "click", "stock")
    paths = [str(ROOT), str(ROOT / "tests/flow"), str(ROOT / "tests/integration")]
    port = free_port()
    options = ["--topology", "clicks:topology", "--topology", "stock:topology", "--port", str(port)]
    where = ["--bootstrap", kafka.bootstrap, "--state", str(tmp_path)]
    server = subprocess.Popen(
        [*COMMAND, *options, *where],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    try:
        assert server.stdout is not None
        assert f"http://127.0.0.1:{port}/" in server.stdout.readline()
        client = Client(f"http://127.0.0.1:{port}")
        eventually(lambda: client.get("/readyz")["ready"])
        assert set(client.get("/healthz")["topologies"]) == {"click-stats", "stock"}
        produce(kafka, "stock-levels", ("a/b", b"5"), ("책", b"7"))
        eventually(lambda: client.get("/api/highest")["highest"] == ["책"])
        assert client.get("/api/stock/a%2Fb")["level"] == 5
        assert client.get("/api/stock/%EC%B1%85")["freshness"]["connected"]
        assert client.get("/api/busiest")["pages"] == []
        assert client.get("/api/stock/nothing")["status"] == 404
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0
        assert server.stderr is not None
        assert "Traceback" not in server.stderr.read()
    finally:
        server.kill()
        server.communicate()


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            if holds():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)
