"""What `deploy/SIZING.md` reckons follows from what it says was measured, by the same arithmetic as the command."""

import re

import pytest
from own import ROOT

from bench.sizing import needs

TEXT = (ROOT / "deploy" / "SIZING.md").read_text()


def table(heading: str) -> list[list[str]]:
    """The rows of the table whose first column has that heading, without it."""
    found = re.search(rf"^\| {re.escape(heading)} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert found is not None, heading
    return [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in found[1].splitlines()]


def number(text: str) -> float:
    return float(text.replace(",", ""))


COSTS = {row[0]: number(row[1]) for row in table("topology")}
WIRE_BYTES = next(number(row[1]) for row in table("one event of the shop") if row[0].endswith("reckoned with"))


@pytest.mark.parametrize("row", table("events a second"), ids=lambda row: f"{row[0]} {row[1]}")
def test_each_row_of_the_table_is_what_the_figures_above_it_make(row: list[str]) -> None:
    rate, topology, workers, partitions, brokers, disk_tb = row
    found = needs(number(rate), COSTS[topology], WIRE_BYTES)
    told = [number(cell) for cell in (workers, partitions, brokers, disk_tb)]
    assert told == [found.workers, found.partitions, found.brokers, round(found.disk_tb)]


def test_ten_times_the_events_take_ten_times_the_workers() -> None:
    one, ten = needs(1e6, 9.0, 80.0), needs(1e7, 9.0, 80.0)
    assert ten.workers == pytest.approx(10 * one.workers, abs=10)
    assert ten.disk_tb == pytest.approx(10 * one.disk_tb, rel=0.01)


def test_a_small_shop_still_has_three_brokers_and_a_partition_to_spare() -> None:
    found = needs(10, 10.0, 100.0)
    assert (found.workers, found.partitions, found.brokers) == (1, 2, 3)
