"""What a run is about: a topology, the load that it gets, and how all that it keeps is judged."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from streams.errors import MillraceError
from streams.simulator.behaviour_ledger import BehaviourLedger
from streams.simulator.ledger import Ledger
from streams.simulator.run import Plan, plan_run
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS, USER_ACTIVITY
from topologies.behaviour import behaviour_topology
from topologies.chaos.behaviour import behaviour_ledger, compare_behaviour
from topologies.chaos.compare import compare_all
from topologies.chaos.recommendations import compare_recommendations
from topologies.chaos.watch import watching
from topologies.demo.client import Client
from topologies.demo.processes import Children
from topologies.demo.run import Demo
from topologies.demo.verify import Comparison
from topologies.derived_topics import PRODUCT_RECOMMENDATIONS
from topologies.recommendations import recommendations_topology
from topologies.sales import sales_topology
from topologies.settings import Settings
from topologies.topology import Topology

ANSWER_S = 10.0
LOOKED_S = 3.0
QUIET_S = 3.0
SPEED = 20.0
# Sessions and carts that end within seconds of a run, at twenty seconds of event time in one.
SOON: Mapping[str, Any] = {
    "session_gap_s": 120,
    "cart_timeout_s": 180,
    "alert_window_s": 120,
    "alert_orders": 2,
    "alert_amount": 1_500_000,
}

Book = Ledger | BehaviourLedger
Compare = Callable[[Settings, Any, Client], dict[str, Comparison]]


@dataclass(frozen=True)
class Subject:
    """One of our topologies under faults.

    `watched` is the topic whose uncommitted records make a fault count, `beside` names topologies that one worker each
    runs of, without faults of its own, because the subject reads what they derive.
    """

    name: str
    make: Callable[[Settings], Topology]
    topics: tuple[str, ...]
    watched: str
    book: Callable[[Settings], Book | None]
    compare: Compare
    rate: float = 2500.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    settles: str | None = None
    page: str = "/healthz"

    def fitted(self, settings: Settings) -> Settings:
        """The settings of a run as the subject needs them."""
        return settings

    def plan(self, seed: int, rate: float) -> Plan:
        """The load of a run."""
        shop = ShopSettings(seed=seed, topics=self.topics, duplicates=0.01, late_sessions=0.01)
        return plan_run(shop, now_ms=time.time_ns() // 1_000_000, rate=rate, speed=SPEED)

    def demo(self, settings: Settings, children: Children, client: Client, seed: int, rate: float) -> Demo:
        """What sends the load of a run."""
        return Demo(settings, children, client, self.plan(seed, rate))

    def open_book(self, demo: Demo) -> Book | None:
        """An empty book that the simulator of the demo writes into."""
        book = self.book(demo.settings)
        if isinstance(book, BehaviourLedger):
            demo.behaviour = book
        else:
            demo.ledger = book
        return book

    def applied(self, settings: Settings) -> bool:
        """Whether everything is applied and committed, by those beside it first, and what is published is quiet."""
        # Second stages last: what they have to apply comes from the others.
        for subject in (*(SUBJECTS[name] for name in self.beside), self):
            topology = subject.make(settings)
            with watching(settings, topology.name, settings.prefix + self.watched) as watch:
                if not watch.all_applied(topology.sources) or not watch.all_applied(topology.sources):
                    return False
        return self.settles is None or self._quiet(settings)

    def shown(self, demo: Demo) -> bool:
        """Whether the views show it."""
        if self.name == "analytics":
            return demo.caught_up()
        try:
            fresh = demo.client.get(self.page)["freshness"]
        except (OSError, KeyError):
            return False
        # As of a look that came after everything was applied.
        age, behind = fresh["age_s"], [fresh["lagTotal"], *(fresh.get("copies") or {}).values()]
        return bool(fresh["connected"]) and age is not None and age < LOOKED_S and not any(behind)

    def _quiet(self, settings: Settings) -> bool:
        before = _ends(settings, f"{settings.prefix}{self.settles}")
        time.sleep(QUIET_S)
        return _ends(settings, f"{settings.prefix}{self.settles}") == before


def _ends(settings: Settings, topic: str) -> list[int]:
    config = {"group.id": "millrace-chaos", "enable.auto.commit": False, "log_level": 0}
    consumer = Consumer(settings.cluster.librdkafka(**config))
    try:
        tps = [TopicPartition(topic, number) for number in range(settings.partitions)]
        return [consumer.get_watermark_offsets(tp, timeout=ANSWER_S)[1] for tp in tps]
    except KafkaException:
        return []
    finally:
        consumer.close()


SALES = Subject(
    "analytics",
    sales_topology,
    (ORDER_EVENTS.name,),
    ORDER_EVENTS.name,
    lambda settings: Ledger(settings.partitions, currency=settings.currency),
    compare_all,
)
BEHAVIOUR = Subject(
    "behaviour",
    behaviour_topology,
    (ORDER_EVENTS.name, USER_ACTIVITY.name),
    USER_ACTIVITY.name,
    behaviour_ledger,
    compare_behaviour,
    rate=2000.0,
    settings=SOON,
    page="/api/carts/abandoned",
)
RECOMMENDATIONS = Subject(
    "recommendations",
    recommendations_topology,
    (ORDER_EVENTS.name, USER_ACTIVITY.name),
    USER_ACTIVITY.name,
    behaviour_ledger,
    compare_recommendations,
    rate=2000.0,
    settings=SOON,
    beside=("behaviour",),
    settles=PRODUCT_RECOMMENDATIONS.name,
    page="/api/recommendations/users/1",
)
SUBJECTS = {subject.name: subject for subject in (SALES, BEHAVIOUR, RECOMMENDATIONS)}


def subject_named(name: str) -> Subject:
    """Raises MillraceError for a topology that has nothing to be judged by."""
    if name not in SUBJECTS:
        raise MillraceError(
            f"no exact answers are known for topology {name!r}, only for {', '.join(SUBJECTS)}; one of yours needs "
            "a load: --load module:function"
        )
    return SUBJECTS[name]
