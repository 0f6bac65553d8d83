"""Counted again from the log, every cell is what the table holds, whatever came late, twice or broken, and whatever
died meanwhile; what was tampered with differs; and what the log does not tell any more gets no verdict."""

from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from behaving import behaviour, done, recommendations, simulated, troubled
from hypothesis import HealthCheck, given, note, settings
from recounting import CannotRecount, MemoryReader, mismatches, wanted
from shop import HOUR_S, MINUTE, SALES, SECOND, Sale, sell
from views_shop import follow, open_model, sales

from streams.dead_letters import replay_headers, told
from streams.intake import EventTime
from streams.log import TP, Entry
from tables.accumulators import encode_key
from tables.aggregates import Distinct, Max, Quantiles, Sum, Tally
from tables.read_model import ReadModel
from tables.recount import recount
from tables.table import Table
from tables.windows import Window
from topologies.driver import Driver
from topologies.topology import Topology

AHEAD_S = 20
UNLUCKY = 13


def by_user(sale: Sale) -> list[tuple[Any, ...]]:
    """One row for all, one for the user; 13 is what no fold takes, below 0 what no aggregate takes."""
    if sale.amount == UNLUCKY:
        raise ZeroDivisionError("unlucky")
    values = (sale.amount, sale.user_id, sale.amount, [f"{sale.amount % 5}"])
    return [("all", *values), (f"user {sale.user_id}", *values)]


def by_hand(sale: Sale, at: int) -> list[tuple[Any, ...]]:
    """The newest time, in slices of five minutes."""
    return [("all", at)] if sale.amount % 2 else []


def shop() -> Topology:
    """Two tables of one source, of slices of one minute and of five."""
    topology = Topology("shop").source(SALES, time=EventTime(MINUTE, MINUTE, max_ahead_ms=AHEAD_S * SECOND))
    row = {"amount": Sum(), "users": Distinct(), "spread": Quantiles(), "endings": Tally(1)}
    topology.add(SALES, Table("takings", row, by_user, HOUR_S * 24))
    topology.add(SALES, Table("odd", {"newest": Max()}, by_hand, HOUR_S * 24, slice_s=300, timed=True))
    return topology


def check(driver: Driver, directory: Path, *, first: int = 0) -> tuple[int, int]:
    """Every slice of every table agrees; returns how many were counted, and how many could not be."""
    model = open_model(driver.topology, directory)
    try:
        follow(model, driver)
        return _check(model, MemoryReader(driver.log, first))
    finally:
        model.close()


def _check(model: ReadModel, reader: MemoryReader) -> tuple[int, int]:
    counted = unknown = 0
    for table in model.tables:
        stored = model.bounds(table)
        for start in range(stored.start_ms, stored.end_ms, model.slice_ms(table)) if stored else ():
            try:
                assert mismatches(model, reader, table, start) == {}
                counted += 1
            except CannotRecount:
                unknown += 1
    return counted, unknown


ACTIONS = st.one_of(
    st.tuples(
        st.just("sell"),
        st.integers(0, 1),
        st.sampled_from([0, 1, 4, 7, UNLUCKY, -3, 30, 31, 55]),
        st.sampled_from([0, 0, 0, 3, 50, 130, 400, -15, -30]),
        st.sampled_from([0, 1, 10, 30, 70, 300, 1200]),
    ),
    st.tuples(st.just("again"), st.integers(0, 40)),
    st.tuples(st.just("broken"), st.integers(0, 1)),
    st.tuples(st.just("replay"), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("deliver"), st.integers(1, 9)),
    st.tuples(st.just("flush")),
    st.tuples(st.just("tear"), st.integers(0, 12)),
    st.tuples(st.just("crash"), st.booleans()),
)


class Play:
    """What Hypothesis asks for, on a driver."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.clock_s, self.numbers = driver, 10_000, 0
        self.sent: list[tuple[TP, Entry]] = []

    def __call__(self, name: str, *arguments: Any) -> None:
        getattr(self, name)(*arguments)

    def put(self, tp: TP, value: bytes) -> None:
        self.sent.append((tp, Entry(None, value)))
        self.driver.log.put(*self.sent[-1], self.clock_s * SECOND)

    def sell(self, partition: int, amount: int, behind_s: int, ahead_s: int) -> None:
        self.clock_s += ahead_s
        self.numbers += 1
        at = (self.clock_s - behind_s) * SECOND
        self.put(TP("sales", partition), msgspec.json.encode(Sale(self.numbers % 3, amount, f"e{self.numbers}", at)))

    def again(self, back: int) -> None:
        if self.sent:
            self.put(*self.sent[-1 - back % len(self.sent)][:1], self.sent[-1 - back % len(self.sent)][1].value or b"")

    def broken(self, partition: int) -> None:
        self.put(TP("sales", partition), b'{"userId":')

    def replay(self, number: int, mended: bool) -> None:
        letters = self.driver.records("sales.dead-letters")
        if not letters:
            return
        letter = letters[number % len(letters)]
        said = told(letter.headers)
        assert said is not None
        value = msgspec.json.encode(Sale(1, 100, f"m{number}", self.clock_s * SECOND)) if mended else letter.value
        self.driver.log.put(said.tp, Entry(letter.key, value, replay_headers(letter.headers, said)), said.at_ms)

    def deliver(self, batch: int) -> None:
        self.driver.worker.deliver(batch)

    def flush(self) -> None:
        self.driver.worker.flush()

    def tear(self, entries: int) -> None:
        self.driver.log.fail_append_after(entries)

    def crash(self, wipe: bool) -> None:
        self.driver.restart(wipe=wipe)


@given(actions=st.lists(ACTIONS, min_size=20, max_size=60))
@pytest.mark.timeout(300)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_recount_is_what_the_tables_hold(actions: list[tuple[Any, ...]], tmp_path_factory: Any) -> None:
    with Driver(shop()) as driver:
        play = Play(driver)
        note(str(actions))
        for name, *arguments in actions:
            play(name, *arguments)
        driver.log.heal()
        driver.flush()
        directory = tmp_path_factory.mktemp("model")
        _, unknown = check(driver, directory / "whole")
        assert unknown == 0
        check(driver, directory / "part", first=len(driver.log.records(TP("sales", 0))) // 2)


def steady(driver: Driver, minutes: int) -> None:
    """A sale each 5 s in partition 0, some of them late and some twice."""
    for i in range(minutes * 12):
        sell(driver, i % 11, i * 5, i % 4, event_id=f"e{i}")
        if i % 10 == 9:
            sell(driver, 1, i * 5 - 300, event_id=f"late{i}")
            sell(driver, (i - 3) % 11, (i - 3) * 5, (i - 3) % 4, event_id=f"e{i - 3}")
    driver.flush()


def counted_alone(driver: Driver, model: ReadModel, start_s: int, **options: Any) -> Any:
    reader = MemoryReader(driver.log, options.pop("first", 0))
    window = Window(start_s * SECOND, start_s * SECOND + MINUTE)
    return recount(reader, wanted(model, ["takings"], window, 0), **options), reader


def test_only_as_much_is_read_as_can_matter(tmp_path: Path) -> None:
    with Driver(shop()) as driver:
        steady(driver, 60)
        model = open_model(driver.topology, tmp_path)
        follow(model, driver)
        again, reader = counted_alone(driver, model, 40 * 60)
        assert again.begin.before_ms is not None
        assert again.begin.offset > 0
        assert reader.read_records < 200
        assert mismatches(model, reader, "takings", 40 * MINUTE) == {}
        model.close()


def test_after_a_quiet_stretch_a_recount_begins_before_it(tmp_path: Path) -> None:
    with Driver(shop()) as driver:
        steady(driver, 60)
        for i in range(30):
            sell(driver, 5, 5 * 3600 + i * 10, event_id=f"after{i}")
        sell(driver, 5, 5 * 3600 - 10, event_id="e719")
        driver.flush()
        model = open_model(driver.topology, tmp_path)
        follow(model, driver)
        again, reader = counted_alone(driver, model, 5 * 3600)
        assert again.begin.offset < len(driver.log.records(TP("sales", 0))) - 31
        assert mismatches(model, reader, "takings", 5 * 3600 * SECOND) == {}
        model.close()


def test_a_topic_that_does_not_reach_back_gives_no_verdict(tmp_path: Path) -> None:
    with Driver(shop()) as driver:
        steady(driver, 30)
        model = open_model(driver.topology, tmp_path)
        follow(model, driver)
        half = len(driver.log.records(TP("sales", 0))) // 2
        with pytest.raises(CannotRecount, match=f"begins at {half} now"):
            counted_alone(driver, model, 17 * 60, first=half)
        again, _ = counted_alone(driver, model, 27 * 60, first=half)
        assert again.cells["takings"]
        model.close()


def test_a_limit_gives_no_verdict_either(tmp_path: Path) -> None:
    with Driver(shop()) as driver:
        steady(driver, 30)
        model = open_model(driver.topology, tmp_path)
        follow(model, driver)
        with pytest.raises(CannotRecount, match="more than 50 records"):
            counted_alone(driver, model, 17 * 60, limit=50)
        model.close()


def test_samples_are_the_first_events_of_the_key(tmp_path: Path) -> None:
    with Driver(shop()) as driver:
        steady(driver, 30)
        model = open_model(driver.topology, tmp_path)
        follow(model, driver)
        again, _ = counted_alone(driver, model, 20 * 60, key="user 2", keep=2)
        assert [(s.event.user_id, s.at_ms) for s in again.samples] == [(2, 1_210_000), (2, 1_230_000)]
        model.close()


TAMPERED = ["amount", "users", "spread", "events", "first", "gone", "added"]


@pytest.mark.parametrize("what", TAMPERED)
def test_a_cell_that_was_tampered_with_is_found(what: str, tmp_path: Path) -> None:
    with Driver(shop()) as driver:
        steady(driver, 60)
        model = open_model(driver.topology, tmp_path)
        follow(model, driver)
        _tamper(model, what)
        bad = {
            (start, *place): names
            for start in range(0, 60 * MINUTE, MINUTE)
            for place, names in mismatches(model, MemoryReader(driver.log), "takings", start).items()
        }
        named = {"gone": ["cell"], "added": ["cell"]}.get(what, [what])
        assert bad == {(40 * MINUTE, "user 77" if what == "added" else "user 2", 0): named}
        model.close()


def _tamper(model: ReadModel, what: str) -> None:
    row, start = model.tables["takings"].row, 40 * MINUTE
    cell = model.partials("takings", start, "user 2")[0]
    place = encode_key(start, "user 77" if what == "added" else "user 2") + b"\x00\x00"
    change = model.store.change()
    if what == "gone":
        change.delete_all("takings", [place])
    else:
        at = {"first": 1, "events": 2, "amount": 4, "users": 5, "spread": 6, "added": None}[what]
        if what == "users":
            cell[5].update("somebody")
        elif what == "spread":
            cell[6] = {index + 1: count for index, count in cell[6].items()}
        elif at is not None:
            cell[at] += 1
        change.put_all("takings", [(place, row.encode(cell, 0))])
    change.write()


@pytest.mark.parametrize("topology", [behaviour, recommendations, partial(sales, partitions=2)])
def test_every_table_of_ours_is_what_its_log_says_after_trouble(topology: Any, tmp_path: Path) -> None:
    made = topology()
    with Driver(made) as driver:
        if made.name == "recommendations-group":  # its sessions come from the behaviour topology
            with done(behaviour(), simulated()[:1_500]) as first:
                records = [record for p in range(2) for record in first.log.records(TP("user-sessions", p))]
            for record in records:
                driver.feed("user-sessions", record.value, record.key, timestamp_ms=record.timestamp)
        troubled(driver, [sent for sent in simulated()[:1_500] if sent.topic in made.sources], seed=3)
        model = open_model(driver.topology, tmp_path)
        try:
            follow(model, driver)
            for table in model.tables:
                counted = _some_slices(model, MemoryReader(driver.log), table, 12)
                assert counted > 0, table
        finally:
            model.close()


def _some_slices(model: ReadModel, reader: MemoryReader, table: str, most: int) -> int:
    stored = model.bounds(table)
    assert stored is not None
    starts = range(stored.start_ms, stored.end_ms, model.slice_ms(table))
    chosen = starts[:: max(1, len(starts) // most)]
    for start in chosen:
        assert mismatches(model, reader, table, start) == {}, table
    return len(chosen)
