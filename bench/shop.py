"""What users do in a simulated shop, to measure with: `user-activity` and `order-events`, and what they must come to.

About 200 bytes an event, nine in ten of them clicks: 10,000 users who visit, search, look, fill carts and order, at 25
events a second of event time, so that sessions end and carts are abandoned all along a run. Some events come out of
order, some minutes late, some twice, as in `millrace simulate`.
"""

import time
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from bench.visits import Sent
from streams.cluster import Cluster
from streams.producers import Producer
from streams.simulator.behaviour_ledger import BehaviourLedger
from streams.simulator.emission import slices
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS, USER_ACTIVITY, ensure_topics
from topologies.chaos.behaviour import behaviour_ledger
from topologies.sales import own_topic
from topologies.settings import Settings

EVENTS_PER_S: Final = 25.0
SLICE_MS: Final = 1_000
HOUR_MS: Final = 3_600_000
SOURCES: Final = (USER_ACTIVITY, ORDER_EVENTS)


@dataclass(frozen=True)
class Doings:
    """`count` records, the last of them about now."""

    count: int
    seed: int = 7

    @cached_property
    def records(self) -> list[Sent]:
        """All of them, in the order in which they are sent."""
        start = time.time_ns() // 1_000_000 - round(self.count / EVENTS_PER_S * 1000) - HOUR_MS // 2
        shop = ShopSettings(
            seed=self.seed,
            start_ms=start - start % HOUR_MS,
            events_per_s=EVENTS_PER_S,
            topics=tuple(topic.name for topic in SOURCES),
            daily_swing=0.0,
        )
        found: list[Sent] = []
        for end, events in slices(shop, SLICE_MS):
            found += [Sent(topic, key, value, event, end) for topic, key, value, event in events]
            if len(found) >= self.count:
                return found[: self.count]
        raise AssertionError("a shop never closes")

    @cached_property
    def hours(self) -> float:
        """How much event time they span."""
        return (self.records[-1].at - self.records[0].at) / HOUR_MS

    @cached_property
    def kinds(self) -> Counter[str]:
        """How many there are of each event type."""
        return Counter(str(getattr(sent.event, "event_type", "")) for sent in self.records)

    def ledger(self, settings: Settings) -> BehaviourLedger:
        """What they must come to."""
        book = behaviour_ledger(settings)
        for sent in self.records:
            book.record(sent.key, sent.event, sent.at)
        return book

    def fill(self, cluster: Cluster, settings: Settings) -> None:
        """Produce them into the topics of these settings; they are acknowledged then."""
        ensure_topics(cluster, [own_topic(topic, settings) for topic in SOURCES])
        with Producer(cluster) as producer:
            for topic, key, value, _, at in self.records:
                producer.produce(settings.prefix + topic, key, value, timestamp_ms=at)
