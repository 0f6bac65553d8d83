"""Events handed on to another topic, keyed anew: none is missing, and a repeat counts once where they arrive."""

from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from shop import MINUTE, SALES, SECOND, Sale, sell

from streams.intake import EventTime
from streams.log import TP
from streams.topics import Topic
from tables.aggregates import Count, Sum
from tables.table import Table
from topologies.driver import Driver
from topologies.topology import Topology


class Part(msgspec.Struct, frozen=True, rename="camel"):
    """What one sale says of one kind of amount."""

    event_id: str
    kind: str
    amount: int
    occurred_at: int


PARTS = Topic("parts", Part, partitions=2, dedupe_s=120)
AHEAD = 10**12
CHECKED = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def parts(sale: Sale, at: int) -> Iterator[tuple[int, bytes, bytes]]:
    if sale.amount == 13:
        raise ValueError("thirteen")
    kind = "odd" if sale.amount % 2 else "even"
    part = Part(f"{sale.event_id}:{kind}", kind, sale.amount, at)
    yield sale.amount % 2, kind.encode(), msgspec.json.encode(part)


def by_kind(part: Part) -> list[tuple[str, int]]:
    return [(part.kind, part.amount)]


def forwarding(of: Any = parts) -> Topology:
    """Sales by user's partition, and amounts by kind in the partition of the kind, in one group."""
    topology = Topology("shop").source(SALES, time=EventTime(MINUTE, MINUTE))
    topology.source(PARTS, time=EventTime(MINUTE, MINUTE, max_ahead_ms=AHEAD))
    topology.add(SALES, Table("sales", {"count": Count()}, lambda sale: [("all", 1)]))
    topology.forward(SALES, PARTS, of, timed=True)
    topology.add(PARTS, Table("by_kind", {"amount": Sum()}, by_kind))
    return topology


def by_kinds(driver: Driver) -> dict[str, int]:
    sums: dict[str, int] = {}
    for (_, kind), row in driver.rows("by_kind").items():
        sums[kind] = sums.get(kind, 0) + row["amount"]
    return sums


def test_a_topic_that_could_not_tell_a_repeat_is_refused() -> None:
    with pytest.raises(ValueError, match="dedupe_s"):
        Topology("shop").forward(SALES, Topic("parts", Part), parts)


def test_a_topic_is_forwarded_once() -> None:
    with pytest.raises(ValueError, match="already"):
        forwarding().forward(SALES, PARTS, parts)


def test_the_receiving_topic_belongs_to_the_topologys() -> None:
    topology = Topology("shop")
    topology.forward(SALES, PARTS, parts)
    assert PARTS in topology.topics()


def test_a_source_without_tables_only_forwards() -> None:
    topology = Topology("shop")
    topology.forward(SALES, PARTS, parts, timed=True)
    with Driver(topology) as driver:
        sell(driver, 5, 10, event_id="a")
        driver.flush()
        driver.restart(wipe=True)
        sell(driver, 6, 11, event_id="b")
        driver.flush()
        assert [value["eventId"] for value in driver.values("parts")] == ["b:even", "a:odd"]


def test_events_arrive_under_their_new_key_with_the_intakes_time() -> None:
    with Driver(forwarding()) as driver:
        for i, amount in enumerate((1, 2, 4, 7)):
            sell(driver, amount, 10 + i, partition=i % 2, event_id=f"e{i}")
        driver.flush()
        assert by_kinds(driver) == {"odd": 8, "even": 6}
        assert {r.key for r in driver.log.records(TP("parts", 1))} == {b"odd"}
        assert {value["occurredAt"] for value in driver.values("parts")} == {10_000, 11_000, 12_000, 13_000}


def test_late_and_duplicate_events_are_not_forwarded() -> None:
    with Driver(forwarding()) as driver:
        sell(driver, 1, 10, event_id="a")
        sell(driver, 1, 10, event_id="a")
        sell(driver, 1, 500, event_id="b")
        sell(driver, 1, 20, event_id="late")
        driver.flush()
        assert [value["eventId"] for value in driver.values("parts")] == ["a:odd", "b:odd"]


def test_an_event_that_cannot_be_forwarded_is_a_dead_letter_and_in_no_table() -> None:
    with Driver(forwarding()) as driver:
        for i, amount in enumerate((1, 13, 3)):
            sell(driver, amount, 10 + i, event_id=f"e{i}")
        driver.flush()
        assert by_kinds(driver) == {"odd": 4}
        assert driver.rows("sales") == {(0, "all"): {"count": 2}}
        (dead,) = driver.records("sales.dead-letters")
        assert b"parts: ValueError: thirteen" in dict(dead.headers)["reason"]


@pytest.mark.parametrize(
    "record", [(2, b"", b""), (-1, b"", b""), (0, "key", b""), (0, b"", b"x" * 1_000_001), (0, b"", 1), (0, b"")]
)
def test_a_record_that_no_flush_could_write_is_poison(record: Any) -> None:
    with Driver(forwarding(lambda sale, at: [record])) as driver:
        sell(driver, 1, 10)
        driver.flush()
        assert len(driver.records("sales.dead-letters")) == 1
        assert driver.rows("sales") == {}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("sell"), st.integers(0, 1), st.integers(0, 12), st.sampled_from([0, 1, 30, 70, 400])),
        st.tuples(st.just("deliver"), st.integers(1, 4), st.just(0), st.just(0)),
        st.tuples(st.just("flush"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("tear"), st.integers(0, 8), st.just(0), st.just(0)),
        st.tuples(st.just("crash"), st.integers(0, 1), st.just(0), st.just(0)),
        st.tuples(st.just("lose"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("zombie"), st.just(0), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@CHECKED
@given(steps=STEPS)
def test_every_event_counts_once_where_it_is_forwarded_to_or_is_late_there(steps: list[tuple[Any, ...]]) -> None:
    with Driver(forwarding()) as driver:
        expected: dict[str, int] = {}
        clock, generation, zombie = 1_000, 0, None
        for i, (what, a, b, c) in enumerate(steps):
            if what == "sell":
                clock += c
                sell(driver, b, clock, partition=a, event_id=f"e{i}")
                expected[f"e{i}:{'odd' if b % 2 else 'even'}"] = b
            elif what == "deliver":
                driver.worker.deliver(a)
            elif what == "flush":
                driver.worker.flush()
            elif what == "tear":
                driver.log.fail_append_after(a)
            elif what == "zombie" and zombie is not None:
                zombie.deliver(3)
                zombie.flush()
            elif what == "lose":
                if zombie is not None:
                    zombie.crash()
                generation += 1
                zombie, driver.worker = driver.worker, driver.add_worker(f"w{generation}")
                driver.worker.assign([0, 1], generation)
            elif what == "crash":
                generation += 1
                driver.worker.crash(wipe=bool(a))
                driver.worker.assign([0, 1], generation)
        driver.flush()
        if zombie is not None:
            zombie.crash()
        sent = driver.values("parts")
        assert {value["eventId"] for value in sent} == set(expected)
        late = {value["eventId"] for value in driver.values("parts.late")}
        counted = sum(by_kinds(driver).values())
        assert counted <= sum(expected.values())
        assert counted >= sum(amount for event, amount in expected.items() if event not in late)
        if not late:
            assert counted == sum(expected.values())


def test_a_repeat_that_comes_when_its_id_is_forgotten_is_late() -> None:
    with Driver(forwarding()) as driver:
        sell(driver, 1, 10, event_id="a")
        driver.worker.deliver()
        driver.log.fail_append_after(2)  # the forwarded record or the changelog's, not the progress
        driver.worker.flush()
        for copy in (10, 400):
            part = Part("a:odd" if copy == 10 else "b:odd", "odd", 1, copy * SECOND)
            driver.feed("parts", part, partition=1)
        driver.restart()
        driver.flush()
        assert by_kinds(driver) == {"odd": 2}
