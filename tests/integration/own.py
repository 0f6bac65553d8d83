"""A topology's own worker and view server as real processes, and the requests that a user would make."""

import os
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka.admin import AdminClient

from streams.cluster import Cluster
from topologies.demo.client import Client
from topologies.demo.processes import Children

ROOT = Path(__file__).parents[2]
READY_S = 40.0


@dataclass(frozen=True)
class Running:
    """One worker and one view server."""

    cluster: Cluster
    children: Children
    worker: Client
    views: Client

    def wait(self, holds: Callable[[], Any], limit_s: float = 30.0, poll_s: float = 0.05) -> Any:
        """What `holds` returns once it is true, while both processes live."""
        deadline = time.monotonic() + limit_s
        while True:
            self.children.check()
            try:
                found = holds()
            except OSError:
                found = None
            if found:
                return found
            assert time.monotonic() < deadline, f"not after {limit_s:g} s; {self.where()}"
            time.sleep(poll_s)

    def where(self) -> str:
        """How far worker and views are, and where they log."""
        try:
            metrics = self.text(self.worker, "/metrics").splitlines()
            told = [line for line in metrics if line.startswith(("millrace_events_total", "millrace_position"))]
            return f"worker {told}; views {self.views.get('/healthz')}; logs in {self.children.directory}"
        except OSError as error:
            return f"{error}; logs in {self.children.directory}"

    def text(self, client: Client, path: str) -> str:
        with urllib.request.urlopen(f"{client.url}{path}", timeout=5) as response:
            return str(response.read().decode())

    def produce(self, topic: str, *records: tuple[str, bytes]) -> None:
        """With another client than ours, as anybody would."""
        producer = confluent_kafka.Producer({"bootstrap.servers": self.cluster.bootstrap})
        for key, value in records:
            producer.produce(topic, value, key)
        assert producer.flush(20) == 0

    def consume(self, topic: str, count: int, limit_s: float = 20.0) -> list[confluent_kafka.Message]:
        config = {"group.id": f"read-{time.monotonic_ns()}", "auto.offset.reset": "earliest", "log_level": 0}
        consumer = confluent_kafka.Consumer(self.cluster.librdkafka(**config))
        consumer.subscribe([topic])
        try:
            return consumer.consume(count, limit_s)
        finally:
            consumer.close()


def headers_of(message: confluent_kafka.Message) -> dict[str, str]:
    """A record's headers as text."""
    found = message.headers() or []
    pairs = found.items() if isinstance(found, dict) else found
    return {name: value.decode() if isinstance(value, bytes) else str(value) for name, value in pairs}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(cluster: Cluster, directory: Path, topology: str, **settings: str) -> Iterator[Running]:
    """Run `millrace worker` and `millrace views` of a topology until the context ends; both are ready in it."""
    environment = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests/flow"), str(ROOT / "tests/integration")]),
        "MILLRACE_HOME": str(directory / "home"),
        "MILLRACE_STATE": str(directory / "state"),
        "MILLRACE_BOOTSTRAP": cluster.bootstrap,
        **settings,
    }
    worker_port, views_port = free_port(), free_port()
    with Children(directory / "logs", environment) as children:
        children.start("worker", ["worker", topology, "--port", str(worker_port)])
        children.start("views", ["views", "--topology", topology, "--port", str(views_port)])
        worker, views = (Client(f"http://127.0.0.1:{port}") for port in (worker_port, views_port))
        both = Running(cluster, children, worker, views)
        both.wait(lambda: worker.get("/readyz")["ready"] and views.get("/readyz")["ready"], READY_S)
        yield both


def forget_topics(cluster: Cluster, *prefixes: str) -> None:
    """Delete the topics that begin so: the cluster is shared by the session, and others may have used these names."""
    admin = AdminClient(cluster.librdkafka(log_level=0))

    def left() -> list[str]:
        return [name for name in admin.list_topics(timeout=10).topics if name.startswith(prefixes)]

    for deleted in admin.delete_topics(left(), operation_timeout=10).values() if left() else ():
        deleted.result()
    deadline = time.monotonic() + 20
    while left():
        assert time.monotonic() < deadline, f"still there: {left()}"
        time.sleep(0.05)
