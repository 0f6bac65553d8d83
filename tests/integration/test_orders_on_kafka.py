"""`millrace orders` and `millrace db` as processes: events lie where answers say, and `kill -9` takes nothing back."""

import json
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from operating import fresh

from streams.cluster import Cluster
from topologies.cli import main
from topologies.demo.processes import Children
from topologies.names import free_port
from topologies.orders.schema import SHARDS

READY_S, ENDED_S = 30, 10
ONE = {"items": [{"productId": 1, "quantity": 1}]}
Answer = tuple[int, dict[str, Any]]


def ask(url: str, body: Any = None, **headers: str) -> Answer:
    """Status and JSON of an answer; whoever is not answered gets an OSError."""
    raw = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, raw, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


@dataclass
class Api:
    """The order API on a port, which can be killed and started again."""

    children: Children
    port: int = field(default_factory=free_port)
    url: str = ""

    def start(self) -> None:
        child = self.children.start("orders", ["orders", "--port", str(self.port)])
        self.url = f"http://127.0.0.1:{self.port}"
        deadline = time.monotonic() + READY_S
        while True:
            try:
                if ask(f"{self.url}/readyz")[0] == 200:
                    return
            except OSError:
                self.children.check()
            assert time.monotonic() < deadline, child.log.read_text()
            time.sleep(0.05)

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        return self.children.running[-1].process

    def kill(self) -> None:
        child = self.children.running.pop()
        child.process.kill()
        child.process.wait()

    def order(self, user: int = 123, **headers: str) -> Answer:
        return ask(f"{self.url}/api/orders", ONE, **{"X-USER-ID": str(user), **headers})

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=20) as response:
            return str(response.read().decode())


Run = Callable[..., str]


@pytest.fixture
def millrace(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """What a command printed: its output, or its complaint where one is expected."""
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))

    def run(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        assert int(ended.value.code or 0) == code, said.err
        return said.err if code else said.out

    return run


@contextmanager
def api(bootstrap: str, home: Path, millrace: Run, prefix: str = "") -> Iterator[Api]:
    millrace("db", "migrate")
    millrace("db", "seed", "--users", "20", "--stock", "100000", "--points", "100000000")
    told = {"MILLRACE_BOOTSTRAP": bootstrap, "MILLRACE_HOME": str(home), "MILLRACE_PREFIX": prefix}
    with Children(home / "logs", told) as children:
        running = Api(children)
        running.start()
        yield running


def record_at(kafka: Cluster, after: str) -> tuple[str, dict[str, Any]]:
    """Key and value of the record that an answer names."""
    topic, partition, offset = after.split(":")
    settings = {"group.id": fresh("look"), "enable.auto.commit": False}
    with closing(confluent_kafka.Consumer(kafka.librdkafka(**settings))) as consumer:
        consumer.assign([confluent_kafka.TopicPartition(topic, int(partition), int(offset))])
        message = consumer.poll(20)
        assert message is not None
        assert message.error() is None
        assert message.offset() == int(offset)
        return (message.key() or b"").decode(), json.loads(message.value() or b"null")


def test_an_answer_says_where_its_event_lies(kafka: Cluster, tmp_path: Path, millrace: Run) -> None:
    prefix = fresh("shop") + "-"
    with api(kafka.bootstrap, tmp_path, millrace, prefix) as running:
        deadline = time.monotonic() + READY_S
        while (placed := running.order()[1])["after"] is None:  # the topics are being made
            assert time.monotonic() < deadline
        assert placed["after"].startswith(f"{prefix}order-events:")
        key, event = record_at(kafka, placed["after"])
        assert (key, event["eventType"], event["orderId"]) == ("user-123", "order.placed", placed["orderId"])
        assert event["eventId"] == f"order-{placed['orderId']}-placed"
        assert (event["amount"], event["region"], event["currency"]) == (placed["amount"], "seoul", "KRW")
        assert event["items"] == [{"productId": 1, "category": "stationery", "quantity": 1, "price": placed["amount"]}]
        path = f"{running.url}/api/orders/{placed['orderId']}"
        assert ask(path)[1] == placed
        cancelled = ask(f"{path}/cancel", {})[1]
        assert record_at(kafka, cancelled["after"])[1]["eventType"] == "order.cancelled"
        told = {"eventType": "product.viewed", "productId": 1}
        status, found = ask(f"{running.url}/api/activity", told, **{"X-USER-ID": "123"})
        assert status == 202
        key, event = record_at(kafka, found["after"])
        assert (key, event["eventType"], event["eventId"]) == ("user-123", "product.viewed", found["eventId"])
        assert f"millrace_relay_shards {SHARDS}.0" in running.metrics()
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(ENDED_S) == 0


def test_what_was_acknowledged_outlives_kills_and_is_published(kafka: Cluster, tmp_path: Path, millrace: Run) -> None:
    prefix, kills, orders = fresh("shop") + "-", 3, 60
    with api(kafka.bootstrap, tmp_path, millrace, prefix) as running:

        def customer(number: int) -> dict[str, int]:
            """Orders by key, each asked for until it is answered."""
            placed = {}
            for request in range(orders):
                key = f"c{number}-{request}"
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline:
                    try:
                        status, answer = running.order(1_001 + number, **{"Idempotency-Key": key})
                    except OSError:
                        time.sleep(0.05)
                        continue
                    if status == 201:
                        placed[key] = answer["orderId"]
                        break
                    assert status == 503, answer
            return placed

        with ThreadPoolExecutor(6) as pool:
            customers = [pool.submit(customer, number) for number in range(6)]
            for _ in range(kills):
                time.sleep(0.7)  # some orders further
                running.kill()
                running.start()
            placed = {key: order for one in customers for key, order in one.result().items()}
        assert len(placed) == len(set(placed.values())) == 6 * orders
        deadline = time.monotonic() + READY_S
        while "millrace_orders_outbox_waiting 0.0" not in running.metrics():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    with closing(sqlite3.connect(tmp_path / "orders.db")) as books:
        rows = books.execute("SELECT id, idempotency_key FROM orders").fetchall()
        assert {key: number for number, key in rows} == placed
        (left,) = books.execute("SELECT stock FROM products WHERE id = 1").fetchone()
        assert left == 100_000 - 6 * orders
        sent = books.execute("SELECT event_id, topic, sent_partition, sent_offset FROM outbox").fetchall()
    assert Counter(event for event, *_ in sent) == Counter(f"order-{number}-placed" for number in placed.values())
    event, topic, partition, offset = sent[-1]
    assert record_at(kafka, f"{topic}:{partition}:{offset}")[1]["eventId"] == event


def test_what_cannot_start_says_so_in_one_line(tmp_path: Path, millrace: Run) -> None:
    start = ("orders", "--bootstrap", "127.0.0.1:1")
    assert millrace(*start, code=1).strip() == (
        "error: the database has no tables yet: make them with `millrace db migrate`"
    )
    assert "millrace db migrate" in millrace("db", "seed", code=1)
    assert "is no URL" in millrace("db", "migrate", "--database", "shop", code=1)
    found = json.loads(millrace("db", "migrate", "--json"))
    assert found == {"database": f"sqlite:///{tmp_path}/orders.db", "before": None, "after": "0001"}
    assert json.loads(millrace("db", "seed", "--json")) == {"users": 1, "products": 20}
    assert json.loads(millrace("db", "seed", "--json")) == {"users": 0, "products": 0}
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        assert f"127.0.0.1:{port}" in millrace(*start, "--port", port, code=1).splitlines()[-1]


def test_orders_are_taken_while_the_cluster_is_away(tmp_path: Path, millrace: Run) -> None:
    with api("127.0.0.1:1", tmp_path, millrace) as running:
        status, placed = running.order()
        assert (status, placed["after"]) == (201, None)
        assert ask(f"{running.url}/api/orders/{placed['orderId']}")[1]["status"] == "placed"
        assert "millrace_orders_outbox_waiting 1.0" in running.metrics()
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(20) == 0
