"""Rules by hand: what falls due is decided when both sources have closed it, once, and whatever dies in between."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from ruled import BUYS, GAP, GAP_S, LASTS, NOTED, RETENTION_S, SECOND, VISITS, PlainLoop, decide_last, emitted, ruled

from streams.log import TP
from streams.topics import Topic
from tables.deciding import RuleFailed
from tables.rules import EVER, Candidate, Rule
from topologies.driver import Driver
from topologies.topology import Topology

START = 10_200  # where a slice of visits begins
ALERTS = Topic("alerts", partitions=2, cleanup="compact")


def visit(driver: Driver, at_s: float, user: str = "a", partition: int = 0) -> None:
    happen(driver, "visits", at_s, user, partition)


def buy(driver: Driver, at_s: float, user: str = "a", partition: int = 0) -> None:
    happen(driver, "buys", at_s, user, partition)


def happen(driver: Driver, topic: str, at_s: float, user: str, partition: int) -> None:
    number = len(driver.records(topic))
    event = {"user": user, "id": number, "occurredAt": round(at_s * SECOND)}
    driver.feed(topic, event, partition=partition, timestamp_ms=round(at_s * SECOND))


def both(driver: Driver, at_s: float, partition: int = 0) -> None:
    """Bring both sources' watermarks there."""
    visit(driver, at_s, "clock", partition)
    buy(driver, at_s, "clock", partition)


def lasts(driver: Driver, topic: Topic = LASTS) -> list[tuple[str, int]]:
    """Who was last seen when (s), as emitted, those of the clock left out."""
    keys = [msgspec.json.decode(record.key or b"") for record in driver.records(topic.name)]
    return [(user, at // SECOND) for user, at, _ in keys if user != "clock"]


def with_rule(decide: Any, **options: Any) -> Topology:
    """Visits and buys with one rule of a test's own."""
    topology = ruled()
    topology.rules[:] = [Rule("own", ALERTS, "visits", decide, **{"due_ms": GAP, **options})]
    return topology


def test_a_decision_is_taken_when_both_sources_have_closed_what_it_needs_and_not_before() -> None:
    with Driver(ruled()) as driver:
        visit(driver, START)
        buy(driver, START + GAP_S + 30)  # slices of 20 s and a grace of 10 s: closed up to START + GAP_S + 20
        driver.flush()
        visit(driver, START + GAP_S + 59, "clock")  # slices and a grace of 60 s
        driver.flush()
        assert lasts(driver) == []
        visit(driver, START + GAP_S + 60, "clock")
        driver.flush()
        assert lasts(driver) == lasts(driver, NOTED) == [("a", START)]


def test_a_source_without_any_event_holds_decisions_up_in_its_partition_alone() -> None:
    with Driver(ruled()) as driver:
        for partition in (0, 1):
            visit(driver, START, "a", partition)
            visit(driver, START + 5_000, "clock", partition)
        buy(driver, START + 5_000, "clock", 1)
        driver.flush()
        assert [record.key for record in driver.log.records(TP("lasts", 0))] == []
        assert lasts(driver) == [("a", START)]
        buy(driver, START + 5_000, "clock", 0)
        driver.flush()
        assert lasts(driver) == [("a", START)] * 2


@pytest.mark.parametrize("entries", range(14))
@pytest.mark.parametrize("after", ["try again", "restart", "restart from nothing"])
def test_a_flush_torn_anywhere_loses_no_decision_and_repeats_it_with_the_same_bytes(entries: int, after: str) -> None:
    with Driver(ruled()) as driver:
        for user in ("a", "b"):
            visit(driver, START, user)
        driver.flush()
        both(driver, START + GAP_S + 130)
        visit(driver, START + GAP_S + 131, "a")
        driver.deliver()
        driver.log.fail_append_after(entries)
        driver.worker.flush()
        if after != "try again":
            driver.restart(wipe=after.endswith("nothing"))
        driver.flush()
        for topic in (LASTS, NOTED):
            assert set(lasts(driver, topic)) == {("a", START), ("b", START)}
            assert len(emitted(driver, topic)) == 2


def test_what_one_source_closes_later_is_decided_from_where_both_were_durable() -> None:
    with Driver(ruled()) as driver:
        visit(driver, START)
        visit(driver, START + 2_000, "clock")
        driver.flush()
        for at_s in (START, START + GAP_S - 60, START + GAP_S + 30):
            driver.restart()  # only the feed of buys has progress to write
            buy(driver, at_s, "clock")
            driver.flush()
        driver.restart()
        buy(driver, START + GAP_S + 50, "clock")
        driver.flush()
        assert lasts(driver) == lasts(driver, NOTED) == [("a", START)]


def test_a_late_event_moves_no_decision() -> None:
    with Driver(ruled()) as driver:
        visit(driver, START)
        both(driver, START + GAP_S + 130)
        visit(driver, START + 1)
        buy(driver, START + 1)
        driver.flush()
        assert lasts(driver) == [("a", START)]
        assert [value["buys"] for value in driver.values("lasts")] == [[]]
        assert len(driver.records("visits.late")) == len(driver.records("buys.late")) == 1


def test_decisions_come_in_the_order_of_slices_and_keys_to_their_partition() -> None:
    with Driver(ruled()) as driver:
        for at_s, user in ((START + 1, "c"), (START + 2, "b"), (START + 400, "a")):
            visit(driver, at_s, user, 1)
        both(driver, START + 5_000, 1)
        driver.flush()
        assert [r.key for r in driver.log.records(TP("lasts", 0))] == []
        assert lasts(driver) == [("b", START + 2), ("c", START + 1), ("a", START + 400)]


def test_a_slice_is_kept_until_every_rule_that_looks_at_it_has_decided() -> None:
    with Driver(ruled()) as driver:
        visit(driver, START)
        buy(driver, START - 10)
        for at_s in (START + 10_000, START + 10_001, START + 10_002):
            visit(driver, at_s, "clock")  # far beyond the retention of visits; buys stand still
            driver.flush()
        assert (START * SECOND, "a") in driver.rows("visits")
        driver.restart(wipe=True)
        for at_s in (START + 10_000, START + 10_001, START + 10_002):
            buy(driver, at_s, "clock")
            driver.flush()
        assert lasts(driver) == lasts(driver, NOTED) == [("a", START)]
        assert [len(value["buys"]) for value in driver.values("lasts")] == [1]
        assert (START * SECOND, "a") not in driver.rows("visits")


def test_what_a_zombie_had_applied_further_falls_due_at_its_new_owner() -> None:
    with Driver(ruled()) as driver:
        both(driver, START - 200)
        driver.flush()
        zombie, owner = driver.worker, driver.add_worker("w1")
        owner.assign([0, 1], 1)
        driver.worker = owner
        visit(driver, START)
        zombie.deliver()
        zombie.flush()  # ahead of its successor, which finds it in the changelog and takes it over
        driver.advance(61)
        owner.flush()
        owner.flush()
        driver.flush()
        both(driver, START + GAP_S + 130)
        driver.flush()
        assert lasts(driver) == lasts(driver, NOTED) == [("a", START)]
        zombie.deliver()
        zombie.flush()
        zombie.crash()
        assert set(lasts(driver)) == {("a", START)}
        assert len([key for _, key, _ in emitted(driver) if b"clock" not in key]) == 1


def test_a_second_group_over_the_same_log_decides_the_same() -> None:
    with Driver(ruled(), batch=1) as driver:
        plain = PlainLoop()
        for i in range(60):
            clock = START + 160 * i
            plain.feed(driver, ("visits", "buys", "visits")[i % 3], 0, "ab"[i % 2], clock - 60 * (i % 4 == 3), clock)
            driver.flush()
        found = emitted(driver)
        assert found == plain.emissions() != set()
        again = replace(ruled(), name="again")
        others = [replace(rule, topic=replace(rule.topic, name=f"again-{rule.topic.name}")) for rule in again.rules]
        again.rules[:] = others
        with Driver(again, batch=17, log=driver.log) as second:
            second.flush()
            assert emitted(second, others[0].topic) == emitted(second, others[1].topic) == found


def test_a_decision_sees_no_slice_from_until_on_and_none_further_back_than_it_may_look() -> None:
    seen: dict[tuple[int, int, int], set[int]] = {}

    def decide(c: Candidate) -> Iterator[tuple[bytes, bytes]]:
        starts = range(c.window - 5 * GAP, c.window + 5 * GAP, GAP)
        seen[c.window, c.since, c.until] = {start for start in starts if c.look("visits", start) is not None}
        yield from ()

    with Driver(with_rule(decide, looks_at=("buys",), back_ms=GAP)) as driver:
        for i in range(8):
            visit(driver, START + i * GAP_S)
        buy(driver, START + 1_000)
        driver.flush()
    assert seen
    for (window, since, until), starts in seen.items():
        assert since < until
        assert window < until
        assert all(window - GAP <= start < until for start in starts)
        assert since < window + GAP + GAP


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda c: 1 / 0, "ZeroDivisionError"),
        (lambda c: c.look("nothing", 0), "KeyError: 'nothing'"),
        (lambda c: c.look("visits", 1), "no slice of visits begins at 1"),
        (lambda c: [("text", b"")], "bytes"),
        (lambda c: [(b"", b"x" * 1_000_001)], "limit"),
    ],
)
def test_a_rule_that_fails_stops_the_flush_with_one_line_and_loses_nothing(wrong: Any, told: str) -> None:
    failing = [True]

    def decide(c: Candidate) -> Any:
        return wrong(c) if failing else decide_last(c)

    with Driver(with_rule(decide, looks_at=("buys",), back_ms=GAP)) as driver:
        visit(driver, START)
        both(driver, START + GAP_S + 130)
        driver.deliver()
        with pytest.raises(RuleFailed, match=told) as failed:
            driver.worker.flush()
        assert "rule own failed on 'a'" in str(failed.value)
        assert "\n" not in str(failed.value)
        assert driver.rows("visits") == {}
        failing.clear()
        driver.worker.flush()
        assert lasts(driver, ALERTS) == [("a", START)]


def test_a_rule_of_unknown_tables_or_a_name_that_is_taken_is_refused() -> None:
    topology = with_rule(decide_last, looks_at=("nothing",))
    with pytest.raises(ValueError, match="no table nothing"):
        _ = topology.group
    topology = ruled()
    topology.rule(topology.rules[0])
    with pytest.raises(ValueError, match="unique"):
        _ = topology.group


def test_a_rule_whose_tables_are_not_kept_long_enough_is_refused() -> None:
    _ = with_rule(decide_last, back_ms=GAP).group
    for options in ({"back_ms": GAP + 1}, {"due_ms": GAP + 1, "back_ms": GAP}, {"due_ms": RETENTION_S * SECOND}):
        with pytest.raises(ValueError, match="must be kept for"):
            _ = with_rule(decide_last, **options).group
    with pytest.raises(ValueError, match="negative"):
        with_rule(decide_last, back_ms=-1)
    with pytest.raises(ValueError, match="at least 1"):
        with_rule(decide_last, due_ms=0)  # an event at a slice's end would never be decided on


def test_a_rules_topic_belongs_to_the_topologys() -> None:
    assert {LASTS, NOTED, VISITS, BUYS} <= set(ruled().topics())


def decide_seen(c: Candidate) -> list[tuple[bytes, bytes | None]]:
    """The first visit of a slice is told at once; in the end it is final, and others that were told are taken back."""
    moments = [(at, n) for at, n in c.states[0][1] if c.early or at < c.until]
    first = moments[0] if moments else (0, 0)
    records: list[tuple[bytes, bytes | None]] = []
    for at, number in moments:
        if c.since < at + 1 <= c.until:
            text = b"early" if c.early else b"final"
            if (at, number) == first:
                records.append((b"%s %d" % (c.key.encode(), at // SECOND), text))
            elif not c.early:
                records.append((b"%s %d" % (c.key.encode(), at // SECOND), None))
    return records


def told(driver: Driver) -> list[tuple[bytes | None, bytes | None]]:
    return [(r.key, r.value) for r in driver.records("alerts") if r.key is not None and not r.key.startswith(b"clock")]


def test_an_early_opinion_goes_out_with_the_change_and_the_final_decision_replaces_it() -> None:
    with Driver(with_rule(decide_seen, due_ms=1, early=True)) as driver:
        visit(driver, START + 30)
        driver.flush()
        assert told(driver) == [(b"a 10230", b"early")]
        visit(driver, START + 20)  # out of order: this one was the first
        driver.flush()
        assert told(driver)[1:] == [(b"a 10220", b"early")]
        both(driver, START + 500)
        driver.flush()
        assert told(driver)[2:] == [(b"a 10220", b"final"), (b"a 10230", None)]


def test_a_final_decision_repairs_what_a_crash_took_of_the_early_ones() -> None:
    with Driver(with_rule(decide_seen, due_ms=1, early=True)) as driver:
        visit(driver, START + 30)
        driver.deliver()
        driver.log.fail_append_after(1)  # the cell is written, its early opinion is not
        driver.worker.flush()
        driver.restart()
        driver.flush()
        both(driver, START + 500)
        driver.flush()
        assert told(driver)[-1] == (b"a 10230", b"final")


def test_ever_is_later_than_any_event_time() -> None:
    assert EVER > 2**53
