"""Any interleaving of batches, flushes, crashes, zombies, seeks and compaction ends with a plain loop's totals.

Hypothesis plays the schedule; what it found is kept as named tests in `test_exactness.py`.
"""

from collections import Counter, defaultdict

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from shop import HOUR_S, MINUTE, SALES, SECOND, shop

from streams.log import TP
from topologies.driver import Driver, Worker

CHANGELOG = "shop-takings-changelog"
PARTITIONS = st.integers(0, 1)
GONE = -1  # no cell says so: amounts are never negative


class PlainLoop:
    """The rules in the plainest words: one record after the other, everything remembered."""

    def __init__(self) -> None:
        self.watermark: dict[int, int] = defaultdict(lambda: -1)
        self.seen: dict[tuple[int, str], int] = {}
        self.parts: dict[int, Counter[tuple[int, str]]] = {0: Counter(), 1: Counter()}
        self.late = 0

    def take(self, partition: int, user: int, amount: int, at: int, event_id: str) -> None:
        """One record of a partition's log."""
        watermark = self.watermark[partition]
        known = self.seen.get((partition, event_id))
        self.seen[partition, event_id] = at if known is None else max(at, known)
        if known is not None and known >= watermark - round(SALES.dedupe_s * SECOND):
            return
        window = at // MINUTE * MINUTE
        if window + 2 * MINUTE <= watermark:
            self.late += 1
            return
        self.watermark[partition] = max(watermark, at)
        self.parts[partition][window, "all"] += amount
        self.parts[partition][window, f"user {user}"] += amount

    @property
    def totals(self) -> dict[tuple[int, str], set[int]]:
        """What each cell may say: its total; and where retention is over in some partition, that of any of its parts.

        Retention drops a partition's part on its own: the other's clock may stand still.
        """
        kept_from = (max(self.watermark.values(), default=0) - HOUR_S * SECOND) // MINUTE * MINUTE
        found: dict[tuple[int, str], set[int]] = {}
        for cell in self.parts[0].keys() | self.parts[1].keys():
            parts = [part[cell] for part in self.parts.values() if cell in part]
            found[cell] = {sum(parts)} if cell[0] >= kept_from else {sum(parts), *parts, GONE}
        return found


class Schedule(RuleBasedStateMachine):
    """One owner, at most one zombie, and everything that can happen to them."""

    @initialize()
    def open(self) -> None:
        """Start with one worker."""
        self.driver = Driver(shop())
        self.plain = PlainLoop()
        self.owner: Worker = self.driver.worker
        self.zombie: Worker | None = None
        self.generation = 0
        self.workers = 0
        self.clock_s = 1_000

    @rule(
        partition=PARTITIONS,
        user=st.integers(0, 2),
        amount=st.integers(0, 100),
        behind_s=st.sampled_from([0, 0, 0, 3, 50, 130, 400]),
        ahead_s=st.sampled_from([0, 1, 10, 70, 300]),
        event_id=st.integers(0, 40),
    )
    def feed(self, partition: int, user: int, amount: int, behind_s: int, ahead_s: int, event_id: int) -> None:
        """One record, in order or not, perhaps late, perhaps with an id that was there before."""
        self.clock_s += ahead_s
        at = max(0, self.clock_s - behind_s) * SECOND
        sale = {"userId": user, "amount": amount, "occurredAt": at, "eventId": f"{event_id}"}
        self.driver.feed("sales", sale, partition=partition, timestamp_ms=self.clock_s * SECOND)
        self.plain.take(partition, user, amount, at, f"{event_id}")

    @rule(batch=st.integers(1, 7))
    def deliver(self, batch: int) -> None:
        """The owner applies what there is."""
        self.owner.deliver(batch)

    @rule(partition=PARTITIONS, count=st.integers(1, 4))
    def deliver_some(self, partition: int, count: int) -> None:
        """The owner applies a few records of one partition."""
        tp = TP("sales", partition)
        records = self.driver.log.records(tp, self.owner.next[tp])[:count]
        if records:
            self.owner.deliver_records(tp, records)

    @rule()
    def flush(self) -> None:
        """The owner flushes."""
        self.owner.flush()

    @rule(entries=st.integers(0, 12))
    def tear(self, entries: int) -> None:
        """The next append gets only so far."""
        self.driver.log.fail_append_after(entries)

    @rule(wipe=st.booleans())
    def crash(self, wipe: bool) -> None:
        """The owner dies and comes back."""
        self.owner.crash(wipe=wipe)
        self.generation += 1
        self.owner.assign([0, 1], self.generation)

    @rule()
    def lose_the_partitions(self) -> None:
        """Another worker takes over while the owner lives on without knowing."""
        if self.zombie is not None:
            self.zombie.crash()
        self.workers += 1
        self.generation += 1
        self.zombie = self.owner
        self.owner = self.driver.add_worker(f"w{self.workers}")
        self.owner.assign([0, 1], self.generation)

    @precondition(lambda self: self.zombie is not None)
    @rule(batch=st.integers(1, 7))
    def zombie_applies(self, batch: int) -> None:
        """The zombie still has records to apply."""
        assert self.zombie is not None
        self.zombie.deliver(batch)

    @precondition(lambda self: self.zombie is not None)
    @rule()
    def zombie_flushes(self) -> None:
        """The zombie's flush lands after the new owner's."""
        assert self.zombie is not None
        self.zombie.flush()

    @rule(partition=PARTITIONS, offset=st.integers(0, 30))
    def seek(self, partition: int, offset: int) -> None:
        """Delivery goes back inside the living process."""
        tp = TP("sales", partition)
        self.owner.next[tp] = min(offset, self.owner.next[tp])

    @rule()
    def compact(self) -> None:
        """Kafka keeps the last record of each key."""
        for topic in (CHANGELOG, "shop-progress"):
            self.driver.log.compact(topic)

    @rule()
    def idle_for_a_minute(self) -> None:
        """Time for the owner to look at the ends of its changelogs."""
        self.driver.advance(61)

    def teardown(self) -> None:
        """Let the owner finish, then restore from nothing: both must say what the plain loop says."""
        if not hasattr(self, "driver"):
            return
        try:
            self.driver.worker = self.owner
            self.driver.advance(61)
            self.driver.flush()
            self._agree()
            self.driver.log.compact(CHANGELOG)
            self.owner.crash(wipe=True)
            self.owner.assign([0, 1], self.generation + 1)
            self.driver.flush()
            self._agree()
        finally:
            if self.zombie is not None:
                self.zombie.crash()
            self.driver.close()

    def _agree(self) -> None:
        rows = {cell: row["amount"] for cell, row in self.driver.rows("takings").items()}
        expected = self.plain.totals
        assert rows.keys() <= expected.keys()
        wrong = {cell: may for cell, may in expected.items() if rows.get(cell, GONE) not in may}
        assert {cell: rows.get(cell, GONE) for cell in wrong} == wrong
        ids = {dict(record.headers)["id"] for record in self.driver.records("sales.late")}
        assert len(ids) == self.plain.late


TestSchedule = Schedule.TestCase
TestSchedule.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
