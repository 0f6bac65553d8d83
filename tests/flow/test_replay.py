"""Replay equals live: digests, late events and final results are a function of the log and of nothing else."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from shop import FINALS, SALES, SECOND, sell, shop
from views_shop import follow, open_model, sales

from streams.log import TP, Entry
from streams.memory_log import MemoryLog
from streams.partitioners import key_hash
from streams.simulator.emission import emitted
from streams.simulator.settings import ShopSettings
from streams.topics import ORDER_EVENTS
from tables.digest import Digest, digest_model, digest_rows
from topologies.driver import Driver, Worker
from topologies.sales import SALES_PER_MINUTE
from topologies.topology import Topology


class Sent(NamedTuple):
    """One source record as it is fed. Times in ms."""

    partition: int
    key: bytes | None
    value: bytes
    timestamp: int


Stream = Sequence[Sent]


@dataclass(frozen=True)
class Course:
    """How a run goes: everything that must not show in what comes of it. `live`: fed while it runs."""

    seed: int = 0
    batch: int = 500
    workers: int = 1
    live: bool = False
    mixed: bool = False
    crashes: float = 0.0
    flushes: float = 0.0
    moves: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What came of a run: digests by table, late records by id, and the last of each final result."""

    digests: Mapping[str, Digest]
    late: Mapping[bytes, bytes]
    finals: Mapping[Any, Any]


LIVE = Course(seed=1, batch=7, live=True, flushes=0.3)
REPLAYS = {
    "all at once": Course(batch=100_000),
    "in small batches": Course(batch=3, flushes=0.02),
    "by two workers": Course(seed=2, batch=40, workers=2, mixed=True, flushes=0.1),
    "by four workers": Course(seed=3, batch=40, workers=4, mixed=True, flushes=0.1),
    "partitions in another order": Course(seed=4, batch=20, mixed=True, flushes=0.2),
    "with crashes and wipes": Course(seed=5, batch=20, mixed=True, flushes=0.2, crashes=0.05),
    "with partitions that move": Course(seed=6, batch=20, workers=3, mixed=True, flushes=0.2, moves=0.1),
    "with all of it": Course(seed=7, batch=25, workers=4, mixed=True, flushes=0.2, crashes=0.05, moves=0.05),
}


class Run:
    """A topology's workers over one log, going a course."""

    def __init__(self, topology: Topology, source: str, course: Course, log: MemoryLog | None = None) -> None:
        self.driver = Driver(topology, log=log)
        self.source = source
        self.course = course
        self.random = random.Random(course.seed)
        self.generation = 1
        self.workers: list[Worker] = [self.driver.worker]
        self.workers += [self.driver.add_worker(f"w{n}") for n in range(1, course.workers)]
        self.share()

    def share(self) -> None:
        """Deal the partitions out anew, as a rebalance does: some flush before they let go, some do not."""
        self.generation += 1
        for worker in self.workers:
            if self.random.random() < 0.5:
                worker.flush()
        numbers = list(range(self.driver.partitions))
        self.random.shuffle(numbers)
        for index, worker in enumerate(self.workers):
            worker.assign(numbers[index :: len(self.workers)], self.generation)

    def step(self) -> bool:
        """One batch of some partition, and perhaps what goes wrong after it; returns whether there was one."""
        waiting = [(w, tp, found) for w in self.workers for tp in sorted(w.next) if (found := self.next_of(w, tp))]
        if not waiting:
            return False
        worker, tp, records = self.random.choice(waiting) if self.course.mixed else waiting[0]
        worker.deliver_records(tp, records)
        luck = self.random.random
        if luck() < self.course.flushes:
            worker.flush()
        if luck() < self.course.crashes:
            owned = sorted(worker.engine.partitions)
            worker.crash(wipe=luck() < 0.5)
            self.generation += 1
            for one in self.workers:  # the group's generation is everybody's
                one.assign(owned if one is worker else sorted(one.engine.partitions), self.generation)
        if luck() < self.course.moves:
            self.share()
        return True

    def next_of(self, worker: Worker, tp: TP) -> list[Any]:
        return list(self.driver.log.records(tp, worker.next[tp]))[: self.course.batch]

    def feed(self, stream: Iterable[Sent]) -> None:
        for sent in stream:
            tp = TP(self.source, sent.partition)
            self.driver.log.put(tp, Entry(sent.key, sent.value), sent.timestamp)
            if self.course.live:
                while self.random.random() < 0.5 and self.step():
                    pass

    def finish(self) -> None:
        """Until nothing moves any more, the second stages included."""
        while True:
            moved = self.step()
            if not moved and not any(worker.unflushed for worker in self.workers):
                break
            if not moved:
                for worker in self.workers:
                    worker.flush()

    def outcome(self, finals: str, late_from: Mapping[int, int] | None = None) -> Outcome:
        driver, late = self.driver, f"{self.source}.late"
        records = [
            record
            for number in range(driver.partitions)
            for record in driver.log.records(TP(late, number), (late_from or {}).get(number, 0))
        ]
        digests = {t.name: driver.digest(t.name) for s in driver.topology.sources.values() for t in s.tables}
        return Outcome(
            digests,
            {dict(record.headers)["id"]: record.value or b"" for record in records},
            driver.latest(finals),
        )

    def close(self) -> None:
        for worker in self.workers[1:]:
            worker.crash()
        self.driver.close()


def outcome(topology: Topology, source: str, finals: str, stream: Stream, course: Course) -> Outcome:
    """What comes of a stream on this course, in a log of its own."""
    running = Run(topology, source, course)
    try:
        running.feed(stream)
        running.finish()
        return running.outcome(finals)
    finally:
        running.close()


def of_shop(stream: Stream, course: Course) -> Outcome:
    return outcome(shop(), SALES.name, FINALS.name, stream, course)


def of_sales(stream: Stream, course: Course) -> Outcome:
    return outcome(sales(), ORDER_EVENTS.name, SALES_PER_MINUTE.name, stream, course)


@cache
def simulated() -> Stream:
    """Half an hour of a busy shop: 2,500 order events, some out of order, late or sent twice."""
    made = ShopSettings(
        seed=11, topics=(ORDER_EVENTS.name,), events_per_s=1.6, users=200, products=60, pairs=10,
        out_of_order=0.1, late_sessions=0.02, duplicates=0.02,
    )  # fmt: skip
    stream, clock = [], 0
    for _, key, value, event in islice(emitted(made), 2_500):
        at = event.occurred_at
        assert isinstance(at, int)
        clock = max(clock, at)
        stream.append(Sent(key_hash(key, ORDER_EVENTS.partitions), key, value, clock))
    return stream


@cache
def live_sales() -> Outcome:
    return of_sales(simulated(), LIVE)


def test_the_live_run_of_the_simulated_shop_has_something_to_compare() -> None:
    found = live_sales()
    assert {name: digest.windows > 20 for name, digest in found.digests.items()} == dict.fromkeys(found.digests, True)
    assert len(set(digest.digest for digest in found.digests.values())) == 4
    assert len(found.late) > 10
    assert len(found.finals) > 100
    assert all(value["final"] for value in found.finals.values())


@pytest.mark.parametrize("course", REPLAYS.values(), ids=REPLAYS)
def test_a_replay_of_the_simulated_shop_equals_the_live_run(course: Course) -> None:
    assert of_sales(simulated(), course) == live_sales()


def test_a_second_group_that_reads_the_same_log_from_the_start_equals_the_first() -> None:
    first = Run(sales(), ORDER_EVENTS.name, LIVE)
    first.feed(simulated())
    first.finish()
    log = first.driver.log
    late = {n: len(log.records(TP(f"{ORDER_EVENTS.name}.late", n))) for n in range(ORDER_EVENTS.partitions)}
    again = sales()
    again.name = "again"
    second = Run(again, ORDER_EVENTS.name, REPLAYS["with all of it"], log)
    second.finish()
    assert second.outcome(SALES_PER_MINUTE.name, late) == live_sales()
    assert "again-sales_by_total-changelog" in log.topics()
    second.close()
    first.close()


def test_duplicates_sent_within_their_time_change_no_digest_of_the_simulated_shop() -> None:
    stream = with_duplicates(simulated(), random.Random(3), 0.1, ORDER_EVENTS.dedupe_s)
    assert len(stream) > len(simulated()) * 1.05
    for course in (LIVE, REPLAYS["all at once"], REPLAYS["with all of it"]):
        assert without_offsets(of_sales(stream, course)) == without_offsets(live_sales())


def with_duplicates(stream: Stream, rng: random.Random, share: float, dedupe_s: float) -> Stream:
    """Send some records again, in their partition, before the watermark has moved on by `dedupe_s`."""
    ats = [orjson.loads(sent.value)["occurredAt"] for sent in stream]
    copies: dict[int, list[Sent]] = {}
    newest: dict[int, int] = {}
    for i, sent in enumerate(stream):
        newest[sent.partition] = max(newest.get(sent.partition, 0), ats[i])  # no watermark is beyond it
        if rng.random() < share and newest[sent.partition] <= ats[i] + dedupe_s * SECOND:
            after = (j for j in range(i, len(stream)) if stream[j].partition == sent.partition)
            last = ats[i] + round(dedupe_s * SECOND)
            possible = list(takewhile(partial(is_before, ats, last), after))
            copies.setdefault(rng.choice(possible), []).append(sent)
    out: list[Sent] = []
    for i, sent in enumerate(stream):
        out.append(sent)
        out += [Sent(copy.partition, copy.key, copy.value, sent.timestamp) for copy in copies.get(i, [])]
    return out


def is_before(ats: Sequence[int], last: int, i: int) -> bool:
    return ats[i] <= last


def without_offsets(found: Outcome) -> tuple[Any, ...]:
    """An outcome whose late events are known by what they are: duplicates move offsets, and so their ids."""
    return found.digests, Counter(found.late.values()), found.finals


class Happening(NamedTuple):
    """One sale of the small shop: seconds after the one before, and how far it lies back."""

    partition: int
    user: int
    amount: int
    ahead_s: int
    behind_s: int


HAPPENINGS = st.lists(
    st.builds(
        Happening,
        st.integers(0, 1),
        st.integers(0, 2),
        st.integers(0, 100),
        st.sampled_from([0, 1, 10, 70, 300, 2_000]),
        st.sampled_from([0, 0, 0, 3, 50, 130, 400]),
    ),
    min_size=1,
    max_size=40,
)
COURSES = st.builds(
    Course,
    st.integers(0, 2**16),
    st.integers(1, 12),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.sampled_from([0.05, 0.2, 0.5]),
    st.sampled_from([0.0, 0.2]),
)
CHECKED = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def stream_of(happenings: Iterable[Happening]) -> Stream:
    """The sales as records, each with an id of its own."""
    stream, clock = [], 1_000
    for i, one in enumerate(happenings):
        clock += one.ahead_s
        at = max(0, clock - one.behind_s) * SECOND
        sale = {"userId": one.user, "amount": one.amount, "occurredAt": at, "eventId": f"e{i}"}
        stream.append(Sent(one.partition, None, orjson.dumps(sale), clock * SECOND))
    return stream


@CHECKED
@given(happenings=HAPPENINGS, course=COURSES)
def test_no_course_shows_in_what_comes_of_a_log(happenings: list[Happening], course: Course) -> None:
    stream = stream_of(happenings)
    assert of_shop(stream, course) == of_shop(stream, REPLAYS["all at once"])


@CHECKED
@given(happenings=HAPPENINGS, course=COURSES, rng=st.integers(0, 99))
def test_no_duplicate_shows_in_what_comes_of_a_log(happenings: list[Happening], course: Course, rng: int) -> None:
    stream = stream_of(happenings)
    copied = with_duplicates(stream, random.Random(rng), 0.5, SALES.dedupe_s)
    assert without_offsets(of_shop(copied, course)) == without_offsets(of_shop(stream, Course()))


@CHECKED
@given(happenings=HAPPENINGS, rng=st.integers(0, 99))
def test_the_interleaving_of_partitions_does_not_show(happenings: list[Happening], rng: int) -> None:
    stream = stream_of(happenings)
    shuffled = interleaved(stream, random.Random(rng))
    assert of_shop(shuffled, LIVE) == of_shop(stream, LIVE)


def interleaved(stream: Stream, rng: random.Random) -> Stream:
    """The same partitions, woven together otherwise."""
    left = {p: [sent for sent in stream if sent.partition == p] for p in {sent.partition for sent in stream}}
    out = []
    while any(left.values()):
        out.append(left[rng.choice([p for p, waiting in left.items() if waiting])].pop(0))
    return out


def feed_minutes(driver: Driver, minutes: int = 5) -> None:
    for at in range(minutes):
        for partition in (0, 1):
            sell(driver, 10 + at, at * 60, user=partition, partition=partition)
    driver.flush()


def test_a_digest_covers_the_closed_windows_and_no_others() -> None:
    with Driver(shop()) as driver:
        feed_minutes(driver)
        before = driver.digest("takings")
        assert (before.from_ms, before.until_ms, before.windows, before.cells) == (0, 180_000, 3, 9)
        sell(driver, 1, 245)  # an open window changes
        driver.flush()
        assert driver.digest("takings") == before


def test_a_digest_changes_with_any_result_key_or_window() -> None:
    row = (0, "a", {"sum": 1, "n": 2})
    other: list[tuple[int, str, dict[str, Any]]] = [
        (60_000, "a", {"sum": 1, "n": 2}),
        (0, "b", {"sum": 1, "n": 2}),
        (0, "a", {"sum": 2, "n": 2}),
        (0, "a", {"sum": 1.0, "n": 2}),
        (0, "a", {"sum": None, "n": 2}),
        (0, "a", {"sum": 1}),
        (0, "a", {"sum": 1, "m": 2}),
    ]
    digests = {digest_rows([one], 0, 120_000).digest for one in [row, *other]}
    assert len(digests) == 1 + len(other)
    assert digest_rows([(0, "a", {"n": 2, "sum": 1})], 0, 1).digest == digest_rows([row], 0, 1).digest


def test_a_digest_takes_sums_beyond_64_bits() -> None:
    assert digest_rows([(0, "a", {"sum": 2**70})], 0, 1) != digest_rows([(0, "a", {"sum": 2**70 + 1})], 0, 1)


def test_a_digest_is_the_same_from_cells_and_from_a_read_model(tmp_path: Path) -> None:
    with Driver(shop()) as driver:
        feed_minutes(driver)
        model = open_model(driver.topology, tmp_path)
        follow(model, driver)
        rows = [(at, key, results) for (at, key), results in driver.rows("takings").items()]
        assert digest_rows(rows, 0, 180_000) == digest_model(model, "takings") == driver.digest("takings")
        open_too = digest_model(model, "takings", until_ms=300_000)
        assert (open_too.windows, open_too.closed) == (5, False)
        assert digest_model(model, "takings", from_ms=60_000).windows == 2
        model.close()


def test_a_digest_leaves_out_windows_that_retention_has_cut_into() -> None:
    with Driver(shop()) as driver, Driver(shop()) as late:
        for one in (driver, late):
            for partition in (0, 1):
                sell(one, 1, 30, partition=partition)
                sell(one, 2, 3_000, partition=partition)
        driver.flush()
        for one in (driver, late):
            sell(one, 4, 4_000, partition=0)  # drops the first window in one partition, not in the other
        driver.flush()
        sell(driver, 8, 4_001, partition=0)
        sell(late, 8, 4_001, partition=0)
        driver.flush()
        late.flush()
        assert driver.digest("takings") == late.digest("takings")
        assert driver.digest("takings").from_ms == 360_000


def test_an_empty_table_has_the_digest_of_nothing() -> None:
    with Driver(shop()) as driver:
        assert driver.digest("takings") == digest_rows([], 0, 0)


def test_a_lost_record_shows() -> None:
    stream = [one._replace(partition=i % 2) for i, one in enumerate(stream_of([Happening(0, 1, 5, 10, 0)] * 60))]
    lost = [one for i, one in enumerate(stream) if i != 3]
    assert of_shop(stream, LIVE).digests != of_shop(lost, LIVE).digests
