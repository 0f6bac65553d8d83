"""Any interleaving of two sources, batches, flushes, crashes and zombies: a rule emits what the plain loop says.

Not in the end only: every record that was ever emitted is one of those, with the same bytes.
"""

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from ruled import LASTS, NOTED, PlainLoop, emitted, ruled

from streams.log import TP
from topologies.driver import Driver, Worker

PARTITIONS = st.integers(0, 1)
TOPICS = st.sampled_from(["visits", "buys"])
AHEAD = st.sampled_from([0, 5, 60, 200, 299, 300, 301, 700, 4_000])
BEHIND = st.sampled_from([0, 0, 0, 1, 30, 90, 150])
USERS = st.sampled_from(["a", "b"])
CHANGELOGS = ("ruled-visits-changelog", "ruled-buys-changelog", "ruled-progress", LASTS.name)
CHECKED = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


class Schedule(RuleBasedStateMachine):
    """One owner, at most one zombie, and everything that can happen to them."""

    @initialize()
    def open(self) -> None:
        self.driver = Driver(ruled())
        self.plain = PlainLoop()
        self.owner: Worker = self.driver.worker
        self.zombie: Worker | None = None
        self.generation = 0
        self.clock_s = {"visits": 10_000, "buys": 10_000}

    @rule(topic=TOPICS, partition=PARTITIONS, user=USERS, ahead=AHEAD, behind=BEHIND)
    def feed(self, topic: str, partition: int, user: str, ahead: int, behind: int) -> None:
        """One event; each topic has its own clock, so one outruns the other."""
        self.clock_s[topic] += ahead
        clock = self.clock_s[topic]
        self.plain.feed(self.driver, topic, partition, user, clock - behind, clock)

    @rule(user=USERS, ahead=AHEAD)
    def feed_both(self, user: str, ahead: int) -> None:
        """Both topics come to the same time in both partitions."""
        clock = max(self.clock_s.values()) + ahead
        for topic in self.clock_s:
            self.clock_s[topic] = clock
            for partition in (0, 1):
                self.plain.feed(self.driver, topic, partition, user, clock, clock)

    @rule(batch=st.integers(1, 7))
    def deliver(self, batch: int) -> None:
        self.owner.deliver(batch)

    @rule(topic=TOPICS, partition=PARTITIONS, count=st.integers(1, 4))
    def deliver_some(self, topic: str, partition: int, count: int) -> None:
        tp = TP(topic, partition)
        records = self.driver.log.records(tp, self.owner.next[tp])[:count]
        if records:
            self.owner.deliver_records(tp, records)

    @rule()
    def flush(self) -> None:
        self.owner.flush()

    @rule(entries=st.integers(0, 15))
    def tear(self, entries: int) -> None:
        self.driver.log.fail_append_after(entries)

    @rule(wipe=st.booleans())
    def crash(self, wipe: bool) -> None:
        self.owner.crash(wipe=wipe)
        self.generation += 1
        self.owner.assign([0, 1], self.generation)

    @rule()
    def lose_the_partitions(self) -> None:
        """Another worker takes over while the owner lives on without knowing."""
        if self.zombie is not None:
            self.zombie.crash()
        self.generation += 1
        self.zombie = self.owner
        self.owner = self.driver.add_worker(f"w{self.generation}")
        self.owner.assign([0, 1], self.generation)

    @precondition(lambda self: self.zombie is not None)
    @rule(batch=st.integers(1, 7), flush=st.booleans())
    def zombie_goes_on(self, batch: int, flush: bool) -> None:
        assert self.zombie is not None
        self.zombie.deliver(batch)
        if flush:
            self.zombie.flush()

    @rule()
    def compact(self) -> None:
        for topic in CHANGELOGS:
            if topic != LASTS.name:
                self.driver.log.compact(topic)

    @rule()
    def idle_for_a_minute(self) -> None:
        self.driver.advance(61)

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        try:
            self.driver.worker = self.owner
            self.driver.advance(61)
            self.driver.flush()
            self._agree()
            self.owner.crash(wipe=True)
            self.owner.assign([0, 1], self.generation + 1)
            self.feed_both("a", 5_000)
            self.driver.flush()
            self._agree()
        finally:
            if self.zombie is not None:
                self.zombie.crash()
            self.driver.close()

    def _agree(self) -> None:
        expected = self.plain.emissions()
        assert emitted(self.driver, LASTS) == expected
        assert emitted(self.driver, NOTED) == expected


TestSchedule = Schedule.TestCase
TestSchedule.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)

EVENTS = st.lists(st.tuples(TOPICS, USERS, AHEAD, BEHIND), min_size=1, max_size=60)


@CHECKED
@given(events=EVENTS, batch=st.integers(1, 60), every=st.integers(1, 9), outrun=st.booleans())
def test_batches_and_flush_points_do_not_show_in_what_a_rule_emits(
    events: list[tuple[str, str, int, int]], batch: int, every: int, outrun: bool
) -> None:
    with Driver(ruled()) as driver:
        plain, clock = PlainLoop(), 10_000
        for topic, user, ahead, behind in events:
            clock += ahead
            plain.feed(driver, topic, 0, user, clock - behind, clock)
        tps = [TP("visits", 0), TP("buys", 0)]
        for turn in range(10_000):
            ready = [tp for tp in tps if driver.log.records(tp, driver.worker.next[tp])]
            if not ready:
                break
            tp = ready[0] if outrun else ready[turn % len(ready)]
            driver.worker.deliver_records(tp, driver.log.records(tp, driver.worker.next[tp])[:batch])
            if turn % every == 0:
                driver.worker.flush()
        driver.flush()
        assert emitted(driver, LASTS) == emitted(driver, NOTED) == plain.emissions()
