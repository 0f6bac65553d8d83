"""`millrace` as an operator runs it, in this process; and groups with live members."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import confluent_kafka
import pytest

from streams.cluster import Cluster
from topologies.cli import main


def fresh(name: str) -> str:
    return f"{name}-{uuid4().hex[:8]}"


def transact(kafka: Cluster, topic: str, *counts: int, commit: bool = True) -> None:
    """One transaction with so many records in each partition; a marker follows them."""
    config = {"transactional.id": f"{topic}-transactions", "log_level": 0}
    producer = confluent_kafka.Producer(kafka.librdkafka(**config))
    producer.init_transactions(20)
    producer.begin_transaction()
    for partition, count in enumerate(counts):
        for number in range(count):
            producer.produce(topic, b"%d" % number, b"k", partition)
    if commit:
        producer.commit_transaction(20)
    else:
        producer.flush(20)
        producer.abort_transaction(20)


class Operator:
    """Runs commands against one cluster and reads what they print."""

    def __init__(self, cluster: Cluster, captured: pytest.CaptureFixture[str]) -> None:
        self.cluster = cluster
        self._captured = captured

    def run(self, *arguments: str, code: int = 0) -> str:
        """What it printed: its output, or its complaint where one is expected."""
        self._captured.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--bootstrap", self.cluster.bootstrap])
        said = self._captured.readouterr()
        assert int(ended.value.code or 0) == code, said.err
        return said.err if code else said.out

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def records(self, topic: str, *arguments: str) -> list[Any]:
        return [json.loads(line) for line in self.run("consume", topic, *arguments, "--json").splitlines()]

    def refuses(self, *arguments: str) -> str:
        """The one line with which it ends with code 1."""
        said = self.run(*arguments, code=1)
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        return said


@contextmanager
def members(cluster: Cluster, group: str, topic: str, count: int, partitions: int) -> Iterator[list[str]]:
    """Live members of a group, once all partitions are assigned; yields their client ids."""
    names = [f"reader-{number}" for number in range(count)]
    settings = {"group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False, "log_level": 0}
    consumers = [confluent_kafka.Consumer(cluster.librdkafka(**settings, **{"client.id": name})) for name in names]
    stop, settled = threading.Event(), threading.Event()

    def poll() -> None:
        # all in one thread: asking one consumer what it has while another thread polls it can wait for ever
        while not stop.is_set():
            for consumer in consumers:
                consumer.poll(0.05)
            shares = [len(one.assignment()) for one in consumers]
            if sum(shares) == partitions and max(shares) - min(shares) <= 1:
                settled.set()
        for consumer in consumers:
            consumer.close()

    for consumer in consumers:
        consumer.subscribe([topic])
    thread = threading.Thread(target=poll)
    thread.start()
    try:
        assert settled.wait(60), f"after 60 s not yet {count} members with {partitions} partitions"
        yield names
    finally:
        stop.set()
        thread.join(30)
