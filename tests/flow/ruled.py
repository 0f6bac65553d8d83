"""Visits and buys by user, a rule over both in miniature, and the plain loop that says what it should emit.

A visit is a *last* one when no other of the same user follows in less than `GAP`. What is told of it: how long before
it the user's nearest other visit was, if that is less than a gap, and which buys lie less than a gap around it.
"""

from collections import defaultdict
from typing import Any

import msgspec

from streams.intake import EventTime
from streams.log import TP
from streams.topics import Topic
from tables.aggregates.moments import Moments
from tables.rules import Candidate, Rule
from tables.table import Table
from topologies.driver import Driver
from topologies.topology import Topology

SECOND = 1_000
GAP_S = 300
GAP = GAP_S * SECOND
Emitted = tuple[int, bytes, bytes | None]


class Visit(msgspec.Struct, frozen=True, rename="camel"):
    """A user was there."""

    user: str
    id: int
    occurred_at: int


class Buy(msgspec.Struct, frozen=True, rename="camel"):
    """A user bought something."""

    user: str
    id: int
    occurred_at: int


VISITS = Topic("visits", Visit, partitions=2)
BUYS = Topic("buys", Buy, partitions=2)
TIMES = {"visits": EventTime(60 * SECOND, 60 * SECOND), "buys": EventTime(20 * SECOND, 10 * SECOND)}
LASTS = Topic("lasts", partitions=2, cleanup="compact")
NOTED = Topic("noted", partitions=2, cleanup="compact")
# what falls due, one slice, and as far back: not a second more
RETENTION_S = 3 * GAP_S


def by_user(event: Visit | Buy, at: int) -> list[tuple[str, tuple[int, int]]]:
    return [(event.user, (at, event.id))]


def decide_last(c: Candidate) -> list[tuple[bytes, bytes | None]]:
    """Last visits in the candidate's cell that fall due `GAP` after."""
    found: list[tuple[bytes, bytes | None]] = []
    for at, number in c.states[0][1]:
        if c.since < at + GAP <= c.until:
            visits = [v for start in (-GAP, 0, GAP) for v in moments(c, "visits", c.window + start)]
            starts = range(c.window - GAP, c.window + 2 * GAP, 60 * SECOND)
            buys = [b for start in starts for b in moments(c, "buys", start)]
            found += told(c.key, at, number, visits, buys)
    return found


def moments(c: Candidate, table: str, start: int) -> list[tuple[int, int]]:
    states = c.look(table, start)
    return [] if states is None else states[0][1]


def told(
    user: str, at: int, number: int, visits: list[tuple[int, int]], buys: list[tuple[int, int]]
) -> list[tuple[bytes, bytes]]:
    """The record of a visit if it is a last one; of all visits and buys those within a gap count."""
    if any((at, number) < visit < (at + GAP,) for visit in visits):
        return []
    before = max((visit[0] for visit in visits if (at - GAP,) < visit < (at, number)), default=None)
    near = sorted(buy for buy in buys if at - GAP <= buy[0] < at + GAP)
    return [(msgspec.json.encode([user, at, number]), msgspec.json.encode({"before": before, "buys": near}))]


def dues(window: int, states: Any) -> list[int]:
    return [at + GAP for at, _ in states[0][1]]


def ruled() -> Topology:
    """The rule twice: asking every cell, and only those that have noted their time."""
    topology = Topology("ruled")
    for topic in (VISITS, BUYS):
        topology.source(topic, time=TIMES[topic.name])
    kept: dict[str, Any] = {"moments": Moments(100)}
    topology.add(VISITS, Table("visits", kept, by_user, RETENTION_S, slice_s=GAP_S, timed=True))
    topology.add(BUYS, Table("buys", kept, by_user, RETENTION_S, slice_s=60, timed=True))
    for topic, notes in ((LASTS, None), (NOTED, dues)):
        rule = Rule(topic.name, topic, "visits", decide_last, GAP, ("buys",), back_ms=GAP, dues=notes)
        topology.rule(rule)
    return topology


class PlainLoop:
    """One record after the other, everything remembered."""

    def __init__(self) -> None:
        self.watermarks: dict[tuple[str, int], int] = defaultdict(lambda: -1)
        self.events: dict[tuple[str, int, str], list[tuple[int, int]]] = defaultdict(list)
        self.count = 0

    def feed(self, driver: Driver, topic: str, partition: int, user: str, at_s: float, clock_s: float) -> None:
        """Put an event into the log and take it."""
        self.count += 1
        at = round(at_s * SECOND)
        event = {"user": f"{user}{partition}", "id": self.count, "occurredAt": at}
        driver.feed(topic, event, partition=partition, timestamp_ms=round(clock_s * SECOND))
        place = topic, partition
        if not TIMES[topic].is_late(at, self.watermarks[place]):
            self.watermarks[place] = max(self.watermarks[place], at)
            self.events[topic, partition, f"{user}{partition}"].append((at, self.count))

    def until(self, partition: int) -> int:
        """Up to where both sources are closed."""
        return min(TIMES[topic].closed_before(self.watermarks[topic, partition]) for topic in TIMES)

    def emissions(self) -> set[Emitted]:
        """Every (partition, key, value) that has fallen due."""
        out: set[Emitted] = set()
        for (topic, partition, user), visits in list(self.events.items()):
            if topic != "visits":
                continue
            until = self.until(partition)
            for at, number in visits:
                if at + GAP <= until:
                    found = told(user, at, number, visits, self.events["buys", partition, user])
                    out |= {(partition, key, value) for key, value in found}
        return out


def emitted(driver: Driver, topic: Topic = LASTS) -> set[Emitted]:
    """Everything that was ever emitted."""
    return {(p, r.key or b"", r.value) for p in range(topic.partitions) for r in driver.log.records(TP(topic.name, p))}
