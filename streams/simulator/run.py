"""Send a simulated shop to Kafka, at a pace or flat out.

Paced, an event is sent when it happens: `speed` seconds of event time pass in one second, and `rate` events
are sent in it. Flat out, event time still advances as it would at 2,000 events/s, or `speed` times as fast.

A record's Kafka timestamp is now, or the event time that the run has come to if that is ahead. A run is
planned to end about now, for Kafka refuses records from more than an hour ahead.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from threading import Event as Flag
from typing import Any, Protocol

from streams.errors import MillraceError
from streams.producers import Producer
from streams.simulator.emission import Emitted, slices
from streams.simulator.settings import DAY_MS, ShopSettings

FLAT_OUT_EVENTS_PER_S = 2000.0
PACED_SLICE_S = 0.02
FLAT_OUT_SLICE_S = 0.1
REPORT_S = 0.2
AHEAD_MAX_MS = 50 * 60_000


class Book(Protocol):
    """What reckons exact answers from events as they are sent (streams.simulator.ledger)."""

    @property
    def takes(self) -> frozenset[type]:
        """The types of the events that it hears of."""

    def record(self, key: bytes, event: Any) -> None:
        """Hear of an event, after all that were sent before."""


class Books:
    """Several books that are kept at once."""

    def __init__(self, *books: Book) -> None:
        self.takes = frozenset[type]().union(*(book.takes for book in books))
        self._books = books

    def record(self, key: bytes, event: Any) -> None:
        """Tell all whom it concerns."""
        for book in self._books:
            if event.__class__ in book.takes:
                book.record(key, event)


@dataclass(frozen=True)
class Plan:
    """What is sent and how fast: `events` None goes on until stopped, `rate` 0 (events/s) is flat out.

    Nothing is sent that would be after `until_ms` of event time, if that is given.
    """

    shop: ShopSettings
    events: int | None = None
    rate: float = 0.0
    speed: float = 1.0
    until_ms: int | None = None

    @property
    def slice_ms(self) -> int:
        """How much event time is handed over at once."""
        return max(1, round(1000 * self.speed * (PACED_SLICE_S if self.rate else FLAT_OUT_SLICE_S)))


@dataclass
class Sent:
    """How far a run has come: events by topic, event time reached, seconds since its first event."""

    events: int = 0
    by_topic: Counter[str] = field(default_factory=Counter)
    start_ms: int = 0
    reached_ms: int = 0
    seconds: float = 0.0
    stopped: bool = False

    def __str__(self) -> str:
        topics = ", ".join(f"{name} {count:,}" for name, count in sorted(self.by_topic.items()))
        rate = self.events / max(self.seconds, 1e-6)
        return (
            f"{'stopped after ' if self.stopped else ''}{self.events:,} events in {self.seconds:.1f} s "
            f"({rate:,.0f}/s); {topics or 'none'}; "
            f"event time {iso(self.start_ms)} to {iso(self.reached_ms)}"
        )


def plan_run(
    shop: ShopSettings,
    *,
    now_ms: int,
    events: int | None = None,
    rate: float = 0.0,
    speed: float = 1.0,
    start_ms: int | None = None,
) -> Plan:
    """The shop as it is at this rate and speed; `now_ms` is the moment at which the run begins.

    Without `start_ms` it opens now if event time passes no faster than time, else so long ago that the last
    event happens about now; a day ago if there is no last one. Raises MillraceError for impossible numbers.
    """
    if events is not None and events < 1:
        raise MillraceError(f"events: at least 1, not {events}")
    if not 0 <= rate < float("inf"):
        raise MillraceError(f"rate: events/s, or 0 for flat out, not {rate}")
    if not 0 < speed <= DAY_MS:
        raise MillraceError(f"speed: seconds of event time in a second, above 0, not {speed}")
    events_per_s = (rate or FLAT_OUT_EVENTS_PER_S) / speed
    if start_ms is None:
        start_ms = now_ms - _head_start_ms(events, rate, speed, events_per_s)
    return Plan(replace(shop, start_ms=start_ms, events_per_s=events_per_s), events, rate, speed)


def _head_start_ms(events: int | None, rate: float, speed: float, events_per_s: float) -> int:
    if rate and speed <= 1:
        return 0
    if events is None:
        return DAY_MS
    return round(1000 * events / events_per_s * (1 - 1 / speed if rate else 1))


def run(
    plan: Plan,
    producer: Producer,
    *,
    ledger: Book | None = None,
    stop: Flag | None = None,
    report: Callable[[Sent], None] | None = None,
) -> Sent:
    """Send all of the plan, or until `stop` is set, and return once every record is acknowledged.

    The ledger, if there is one, holds exactly what was sent. `report` is called five times a
    second. Raises MillraceError if a record is not delivered.
    """
    stop = stop or Flag()
    sent = Sent(start_ms=plan.shop.start_ms, reached_ms=plan.shop.start_ms)
    began = reported = time.monotonic()
    for end, events in slices(plan.shop, plan.slice_ms):
        if plan.rate:
            stop.wait(began + (end - plan.shop.start_ms) / 1000 / plan.speed - time.monotonic())
        if stop.is_set() or (plan.until_ms is not None and end > plan.until_ms):
            break
        if plan.events is not None:
            events = list(islice(events, plan.events - sent.events))
        hand_over(events, producer, ledger, timestamp_ms(end))
        _account(sent, events, end)
        if sent.events == plan.events:
            break
        if time.monotonic() >= reported + REPORT_S:
            reported = time.monotonic()
            sent.seconds = reported - began
            producer.check()
            if report is not None:
                report(sent)
    producer.flush()
    sent.seconds = time.monotonic() - began
    sent.stopped = stop.is_set()
    return sent


def hand_over(events: list[Emitted], producer: Producer, ledger: Book | None, at_ms: int | None) -> None:
    """Produce one slice, and note it."""
    produce = producer.produce
    takes = frozenset[type]() if ledger is None else ledger.takes
    for topic, key, value, event in events:
        produce(topic, key, value, timestamp_ms=at_ms)
        if ledger is not None and event.__class__ in takes:
            ledger.record(key, event)


def timestamp_ms(reached_ms: int) -> int | None:
    """The Kafka timestamp of records sent as event time has come to `reached_ms`; None is now.

    Raises MillraceError when that is so far ahead that Kafka would refuse it.
    """
    ahead_ms = reached_ms - time.time() * 1000
    if ahead_ms > AHEAD_MAX_MS:
        raise MillraceError(
            f"event time has come to {iso(reached_ms)}, too far ahead for Kafka: give an earlier --start"
        )
    return reached_ms if ahead_ms > 0 else None


def _account(sent: Sent, events: list[Emitted], end: int) -> None:
    sent.events += len(events)
    sent.by_topic.update([event[0] for event in events])
    sent.reached_ms = end


def iso(ms: int) -> str:
    """Epoch ms as `2025-01-31T12:00:00Z`."""
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
