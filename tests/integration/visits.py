"""A simulated shop for behaviour and recommendations on real Kafka: both groups' workers, views, and the ledger."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
from fleet import Fleet, committed, ends, free_port, get, wait_until

from streams.cluster import Cluster
from streams.producers import Producer
from streams.simulator.emission import emitted
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS, USER_ACTIVITY, ensure_topics
from topologies.behaviour import behaviour_topology
from topologies.chaos.behaviour import behaviour_ledger, compare_behaviour
from topologies.chaos.recommendations import compare_recommendations
from topologies.demo.client import Client
from topologies.demo.processes import Children
from topologies.demo.verify import Comparison, together
from topologies.recommendations import recommendations_topology
from topologies.settings import Settings
from topologies.topology import Topology

# Sessions and carts end within a few thousand events: at 50 a second of event time, every minute a slice closes.
SOON = {
    "MILLRACE_SESSION_GAP_S": "60",
    "MILLRACE_CART_TIMEOUT_S": "120",
    "MILLRACE_ALERT_WINDOW_S": "60",
    "MILLRACE_ALERT_ORDERS": "1",
    "MILLRACE_ALERT_AMOUNT": "1000000",
}
QUIET_S = 3.0


class Visits:
    """What customers do, under a prefix of its own, and the ledger of what was sent."""

    def __init__(self, cluster: Cluster, prefix: str, seed: int = 7) -> None:
        self.cluster = cluster
        where = {"MILLRACE_BOOTSTRAP": cluster.bootstrap, "MILLRACE_PREFIX": prefix, "MILLRACE_HOME": "/nonexistent"}
        self.settings = Settings.from_environment({**where, **SOON})
        self.behaviour = behaviour_topology(self.settings)
        self.recommendations = recommendations_topology(self.settings)
        self.ledger = behaviour_ledger(self.settings)
        shop = ShopSettings(
            seed=seed,
            topics=(ORDER_EVENTS.name, USER_ACTIVITY.name),
            events_per_s=50.0,
            users=3_000,
            products=300,
            daily_swing=0.0,
            late_sessions=0.01,
            duplicates=0.01,
        )
        self._events = emitted(shop)
        self.sent = 0
        self._by_topic = Counter[str]()
        self._producer = Producer(cluster, **{"message.timeout.ms": 120_000})

    def create_topics(self) -> None:
        ensure_topics(self.cluster, [*self.behaviour.topics(), *self.recommendations.topics()])

    def send(self, events: int) -> None:
        """Send the next events, in order, and note them."""
        for _ in range(events):
            topic, key, value, event = next(self._events)
            self._producer.produce(self.settings.prefix + topic, key, value)
            self.ledger.record(key, event)
            self._by_topic[topic] += 1
        self.sent += events
        self._producer.flush(120)

    @contextlib.contextmanager
    def load(self, events_per_s: float = 1_500, batch: int = 250) -> Iterator[None]:
        """Send at a rate in the background while the context lasts."""
        stop, failed = threading.Event(), list[BaseException]()

        def run() -> None:
            try:
                while not stop.wait(batch / events_per_s):
                    self.send(batch)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(150)
        if failed:
            raise failed[0]

    def wait_for(self, more: int) -> None:
        """Wait until so many more events have been sent by the load."""
        goal = self.sent + more
        wait_until(lambda: self.sent >= goal, f"{more} more events sent", 120.0)

    def fleet(self, directory: Path, topology: str) -> Fleet:
        """Workers of one of the two, with a state directory of their own."""
        return Fleet(self.cluster, directory / topology, self.settings.prefix, topology, SOON)

    def assert_arrived(self) -> None:
        """What the ledger has heard of is in the log: if not, it is not the workers that lost it."""
        for topic, count in self._by_topic.items():
            there = sum(ends(self.cluster, self.settings.prefix + topic, self.settings.partitions).values())
            assert there == count, f"{count} records were acknowledged by {topic}, {there} are there"

    def wait_applied(self, topology: Topology, limit_s: float = 120.0) -> None:
        """Return once the group has committed everything of every source, in the order of its stages."""
        partitions = self.settings.partitions

        def done() -> bool:
            with contextlib.suppress(confluent_kafka.KafkaException):
                for _ in range(2):  # the second stage is fed by the first
                    for topic in topology.sources:
                        end = ends(self.cluster, topic, partitions)
                        at = committed(self.cluster, topology.name, topic, partitions)
                        if any(end[p] and at[p] != end[p] for p in end):
                            return False
                return True
            return False

        wait_until(done, f"everything applied and committed by {topology.name}", limit_s, 0.2)

    def wait_published(self, limit_s: float = 120.0) -> None:
        """Return once nobody has published neighbours for a while."""
        topic = f"{self.settings.prefix}product-recommendations"

        def quiet() -> bool:
            before = ends(self.cluster, topic, self.settings.partitions)
            time.sleep(QUIET_S)
            return any(before.values()) and ends(self.cluster, topic, self.settings.partitions) == before

        wait_until(quiet, "nothing more to publish", limit_s)

    def assert_behaviour(self, client: Client | None = None) -> None:
        self.assert_arrived()
        self.wait_applied(self.behaviour)
        assert_exact(lambda: compare_behaviour(self.settings, self.ledger, client), client)

    def assert_recommendations(self, client: Client | None = None) -> None:
        self.assert_arrived()
        self.wait_applied(self.recommendations)
        self.wait_published()
        assert_exact(lambda: compare_recommendations(self.settings, self.ledger, client), client)

    @contextlib.contextmanager
    def views(self, directory: Path, fleet: Fleet) -> Iterator[Client]:
        """One view server of both."""
        port = free_port()
        chosen = ["--topology", "behaviour", "--topology", "recommendations", "--port", str(port)]
        with Children(directory / "logs", fleet.environment()) as children:
            children.start("views", ["views", *chosen, "--state", str(directory / "views")])
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: get(f"{url}/readyz")[0] == 200, "the views are ready")
            yield Client(url)


def assert_exact(compare: Any, client: Client | None) -> None:
    """Everything was compared, something of each kind, and agreed; views may need a moment more."""
    deadline = time.monotonic() + (30.0 if client else 0.0)
    while True:
        parts: dict[str, Comparison] = compare()
        assert all(part.cells for part in parts.values()), {name: part.cells for name, part in parts.items()}
        wrong = together(parts).mismatches
        if not wrong or time.monotonic() > deadline or not wrong[0].startswith("views"):
            break
        time.sleep(1.0)
    assert not wrong, f"{len(wrong)} are wrong:\n" + "\n".join(wrong[:10])
