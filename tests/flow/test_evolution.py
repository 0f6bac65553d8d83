"""A table that changes under its state: what grows in place, what is refused, and with which words."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from shop import FINALS, HOUR_S, MINUTE, SALES, Sale, amounts, by_user, sell
from views_shop import follow, open_model

from streams.errors import MillraceError
from streams.intake import EventTime
from streams.log import TP, Entry, LogError
from tables import progress as progress_records
from tables.accumulators import UnknownFormat
from tables.aggregates import Aggregate, Count, Distinct, Max, Sum
from tables.layout import StateUnfit
from tables.table import Table
from tables.windows import Window
from topologies.driver import Driver, run
from topologies.topology import Topology

CHANGELOG = "shop-takings-changelog"
FORMER: dict[str, Aggregate[Any]] = {"amount": Sum(), "users": Distinct()}
GROWN: dict[str, Aggregate[Any]] = {**FORMER, "sales": Count(), "largest": Max()}
ALL = Window(0, MINUTE)


def longer(sale: Sale) -> list[tuple[Any, ...]]:
    """The former rows, with a sale counted and its amount."""
    return [(*row, 1, sale.amount) for row in by_user(sale)]


def topology(aggregates: Mapping[str, Aggregate[Any]] = FORMER, fold: Any = by_user) -> Topology:
    made = Topology("shop").source(SALES, time=EventTime(MINUTE, MINUTE))
    made.add(SALES, Table("takings", aggregates, fold, HOUR_S, FINALS))
    return made


def grown() -> Topology:
    return topology(GROWN, longer)


def become(driver: Driver, changed: Topology, *, wipe: bool = False) -> None:
    """Kill the worker and start it as another program."""
    driver.topology = changed
    driver.restart(wipe=wipe)


def rows(driver: Driver, window_s: int = 0) -> dict[str, Any]:
    return driver.rows("takings")[window_s * 1000, "all"]


@pytest.mark.parametrize("wipe", [False, True], ids=["state kept", "state lost"])
def test_appended_aggregates_begin_empty_and_the_former_ones_go_on(wipe: bool) -> None:
    with Driver(topology()) as driver:
        sell(driver, 5, 1, user=1)
        sell(driver, 7, 70, user=2)
        driver.flush()
        become(driver, grown(), wipe=wipe)
        sell(driver, 2, 71, user=3)
        driver.flush()
        assert rows(driver) == {"amount": 5, "users": 1, "sales": 0, "largest": None}
        assert rows(driver, 60) == {"amount": 9, "users": 2, "sales": 1, "largest": 2}


def test_what_was_not_flushed_is_counted_in_the_appended_ones_too() -> None:
    with Driver(topology()) as driver:
        sell(driver, 5, 1)
        driver.flush()
        sell(driver, 6, 2)
        driver.deliver()
        become(driver, grown())
        driver.flush()
        assert rows(driver) == {"amount": 11, "users": 1, "sales": 1, "largest": 6}


def test_the_progress_says_from_where_on_the_appended_ones_count() -> None:
    with Driver(topology()) as driver:
        for at in range(3):
            sell(driver, 1, at)
        driver.flush()
        become(driver, grown())
        found = progress_records.newest(driver.log.records(TP("shop-progress", 0)), 0)["sales"]
        assert found.since == {"takings": 0, "takings.sales": 3, "takings.largest": 3}
        assert [name for name, _ in found.layouts["takings"]] == list(GROWN)
        sell(driver, 1, 4)
        driver.flush()
        driver.restart()
        kept = progress_records.newest(driver.log.records(TP("shop-progress", 0)), 0)["sales"]
        assert (kept.since, kept.epoch) == (found.since, found.epoch)


def test_progress_from_before_layouts_were_written_is_judged_by_its_fingerprint() -> None:
    with Driver(topology()) as driver:
        sell(driver, 5, 1)
        driver.flush()
        without_layouts(driver)
        become(driver, grown(), wipe=True)
        sell(driver, 2, 2)
        driver.flush()
        assert rows(driver) == {"amount": 7, "users": 1, "sales": 1, "largest": 2}


def without_layouts(driver: Driver) -> None:
    """Write the newest progress again as a program from before layouts did."""
    for number in range(SALES.partitions):
        tp = TP("shop-progress", number)
        for record in driver.log.records(tp):
            assert record.value is not None
            old = msgspec.json.decode(record.value)
            del old["layouts"]
            driver.log.put(tp, Entry(record.key, msgspec.json.encode(old)))
    driver.log.compact("shop-progress")


@pytest.mark.parametrize("old_record", [False, True], ids=["layout written", "fingerprint only"])
@pytest.mark.parametrize(
    ("aggregates", "words"),
    [
        ({"amount": Sum()}, "users is gone|also keeps users|not written down"),
        ({"users": Distinct(), "amount": Sum()}, "the order was amount, users and is users, amount"),
        ({"money": Sum(), "users": Distinct()}, "amount is gone"),
        ({"amount": Max(), "users": Distinct()}, "amount was sum and is max"),
        ({"amount": Sum(), "users": Distinct(14)}, "users was distinct.*lg_k=12.* and is distinct.*lg_k=14"),
        ({"amount": Sum(), "sales": Count(), "users": Distinct()}, "sales is new, not at the end"),
    ],
)
def test_any_other_change_is_refused_naming_it_and_the_way_out(
    aggregates: dict[str, Aggregate[Any]], words: str, old_record: bool
) -> None:
    with Driver(topology()) as driver:
        sell(driver, 5, 1)
        driver.flush()
        if old_record:
            without_layouts(driver)
        with pytest.raises(StateUnfit, match=words if not old_record else "not written down") as refused:
            become(driver, topology(aggregates), wipe=True)
        line = str(refused.value)
        assert "\n" not in line
        assert "takings" in line
        if "newer program" not in line:
            assert "another name" in line
            assert "replay the group from earliest" in line
        become(driver, topology())
        assert amounts(driver) == {0: 5}


def test_an_old_program_is_refused_by_what_a_newer_one_wrote_before_it_applied_anything() -> None:
    with Driver(topology()) as driver:
        sell(driver, 5, 1)
        driver.flush()
        become(driver, grown())
        with pytest.raises(StateUnfit, match="newer program, which also keeps sales, largest"):
            become(driver, topology())
        become(driver, grown())
        sell(driver, 1, 2)
        driver.flush()
        assert rows(driver) == {"amount": 6, "users": 1, "sales": 1, "largest": 1}


def test_an_old_program_never_writes_over_a_longer_cell() -> None:
    with Driver(grown()) as driver:
        sell(driver, 5, 1)
        driver.flush()
        longer_cells = driver.log.records(TP(CHANGELOG, 0))
    with Driver(topology()) as driver:
        sell(driver, 5, 1)
        driver.worker.crash()
        for record in longer_cells:  # as if its progress had been lost
            driver.log.put(TP(CHANGELOG, 0), Entry(record.key, record.value))
        driver.worker.assign([0, 1], 1)
        sell(driver, 6, 2)
        with pytest.raises(UnknownFormat, match="newer") as refused:
            driver.flush()
        assert isinstance(refused.value, MillraceError)
        assert driver.log.records(TP(CHANGELOG, 0))[-1].value == longer_cells[-1].value


def test_a_zombie_of_the_former_program_takes_nothing_from_the_appended_ones() -> None:
    with Driver(topology()) as driver:
        sell(driver, 5, 1)
        driver.flush()
        zombie = driver.worker
        driver.topology = grown()
        driver.worker = driver.add_worker("w1")
        driver.worker.assign([0, 1], 1)
        sell(driver, 6, 2)
        driver.flush()
        sell(driver, 7, 3)
        zombie.deliver()
        with pytest.raises(UnknownFormat, match="newer"):
            zombie.flush()  # further than the new owner, with shorter cells, which are in the log by now
        driver.flush()
        assert rows(driver) == {"amount": 18, "users": 1, "sales": 2, "largest": 7}
        driver.log.compact(CHANGELOG)
        driver.restart(wipe=True)
        driver.flush()
        assert rows(driver) == {"amount": 18, "users": 1, "sales": 2, "largest": 7}
        zombie.crash()


AT = st.integers(0, 400)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    before=st.lists(AT, max_size=8),
    torn_before=st.none() | st.integers(0, 12),
    torn_begin=st.none() | st.integers(0, 3),
    after=st.lists(AT, min_size=1, max_size=8),
    torn_after=st.none() | st.integers(0, 12),
    wipe=st.booleans(),
)
def test_growing_is_exact_for_the_former_ones_wherever_a_crash_tears_it(
    before: list[int],
    torn_before: int | None,
    torn_begin: int | None,
    after: list[int],
    torn_after: int | None,
    wipe: bool,
) -> None:
    with Driver(topology()) as driver, Driver(topology()) as plain:
        feed(driver, before, torn_before)
        driver.topology = grown()
        driver.worker.crash(wipe=wipe)
        if torn_begin is not None:
            driver.log.fail_append_after(torn_begin)
        start(driver)
        feed(driver, after, torn_after)
        driver.restart(wipe=wipe)
        driver.flush()
        for number in range(SALES.partitions):
            for record in driver.log.records(TP("sales", number)):
                plain.log.put(TP("sales", number), Entry(record.key, record.value), record.timestamp)
        plain.flush()
        found = driver.rows("takings")
        assert {key: (row["amount"], row["users"]) for key, row in found.items()} == {
            key: (row["amount"], row["users"]) for key, row in plain.rows("takings").items()
        }
        assert all(row["sales"] <= row["amount"] for row in found.values())


def feed(driver: Driver, ats: Iterable[int], torn: int | None) -> None:
    """Sales of 1 at these seconds, applied, and flushed as far as the log lets it."""
    for at in ats:
        sell(driver, 1, at, user=at % 3, partition=at % 2)
    driver.deliver()
    if torn is not None:
        driver.log.fail_append_after(torn)
        driver.worker.flush()


def start(driver: Driver) -> None:
    """Come back; a log that fails at the start is asked again, as a worker does."""
    try:
        driver.worker.assign([0, 1], 1)
    except LogError:
        driver.worker.assign([0, 1], 1)


def test_finals_of_grown_tables_have_every_aggregate() -> None:
    with Driver(topology()) as driver:
        for partition in (0, 1):
            sell(driver, 5, 1, user=partition, partition=partition)
        driver.flush()
        become(driver, grown())
        for partition in (0, 1):
            sell(driver, 2, 2, user=partition, partition=partition)
            sell(driver, 1, 600, user=partition, partition=partition)
        driver.flush()
        final = driver.latest("sales-final")[("takings", 0, "all")]
        assert (final["amount"], final["users"], final["sales"], final["largest"]) == (14, 2, 2, 2)


def test_a_view_server_goes_on_with_its_copy_when_its_tables_have_grown(tmp_path: Path) -> None:
    with Driver(topology()) as driver:
        sell(driver, 5, 1)
        driver.flush()
        model = open_model(topology(), tmp_path)
        follow(model, driver)
        model.close()
        become(driver, grown())
        sell(driver, 6, 2)
        driver.flush()
        model = open_model(grown(), tmp_path)
        assert model.result("takings", ALL, "all") == {"amount": 5, "users": 1, "sales": 0, "largest": None}
        before = model.records
        follow(model, driver)
        assert model.records - before < len(driver.records(CHANGELOG)) + len(driver.records("shop-progress"))
        assert model.result("takings", ALL, "all") == {"amount": 11, "users": 1, "sales": 1, "largest": 6}
        model.close()


def test_a_view_server_of_the_former_program_answers_for_what_it_knows(tmp_path: Path) -> None:
    with Driver(topology()) as driver:
        model = open_model(topology(), tmp_path)
        sell(driver, 5, 1)
        driver.flush()
        follow(model, driver)
        become(driver, grown())
        sell(driver, 6, 2)
        driver.flush()
        follow(model, driver)
        assert model.result("takings", ALL, "all") == {"amount": 11, "users": 1}
        model.close()


def test_a_view_server_begins_anew_when_its_copy_is_of_other_aggregates(tmp_path: Path) -> None:
    other = topology({"largest": Max()}, lambda sale: [("all", sale.amount)])
    with Driver(topology()) as driver:
        sell(driver, 5, 1)
        driver.flush()
        model = open_model(topology(), tmp_path)
        follow(model, driver)
        model.close()
    with Driver(other) as driver:
        sell(driver, 9, 1)
        driver.flush()
        model = open_model(other, tmp_path)
        assert model.bounds("takings") is None
        assert set(model.positions().values()) == {0}
        follow(model, driver)
        assert model.result("takings", ALL, "all") == {"largest": 9}
        model.close()


def test_a_view_server_refuses_tables_that_are_written_with_other_aggregates(tmp_path: Path) -> None:
    with Driver(topology()) as driver:
        sell(driver, 5, 1)
        driver.flush()
        model = open_model(topology({"largest": Max()}, lambda sale: [("all", sale.amount)]), tmp_path)
        with pytest.raises(StateUnfit, match="largest is new"):
            follow(model, driver)
        model.close()


class DatedSale(Sale, frozen=True, rename="camel"):
    """A sale with a field more, which old records do not have."""

    shop: str = "main"


def test_a_field_with_a_default_is_added_to_an_event_in_place() -> None:
    def by_shop(sale: DatedSale) -> list[tuple[Any, ...]]:
        return [*by_user(sale), (f"shop {sale.shop}", sale.amount, sale.user_id)]

    topic = replace(SALES, value=DatedSale)
    changed = Topology("shop").source(topic, time=EventTime(MINUTE, MINUTE))
    changed.add(topic, Table("takings", FORMER, by_shop, HOUR_S, FINALS))
    with Driver(topology()) as driver:
        sell(driver, 5, 1)
        driver.flush()
        sell(driver, 6, 2)
        driver.deliver()
        become(driver, changed)
        driver.feed("sales", {"userId": 1, "amount": 7, "shop": "harbour"}, partition=0, timestamp_ms=3_000)
        driver.flush()
        assert amounts(driver) == {0: 18}
        assert amounts(driver, "shop main") == {0: 6}
        assert amounts(driver, "shop harbour") == {0: 7}
        assert run(driver.log.end_offsets([TP("sales.dead-letters", 0)])) == {TP("sales.dead-letters", 0): 0}


@pytest.mark.parametrize("wipe", [False, True], ids=["state kept", "state lost"])
def test_slices_of_another_length_are_refused_naming_both(wipe: bool) -> None:
    with Driver(topology()) as driver:
        sell(driver, 5, 1, user=1)
        driver.flush()
        wider = topology()
        source = wider.sources[SALES.name]
        tables = tuple(replace(table, slice_s=600) for table in source.tables)
        wider.sources[SALES.name] = replace(source, tables=tables)
        with pytest.raises(StateUnfit, match=r"slices of 60 s, this program has 600 s: set it back"):
            become(driver, wider, wipe=wipe)
