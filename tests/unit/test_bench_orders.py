"""What `millrace bench orders` says of its figures."""

from dataclasses import asdict

import psutil
import pytest

from bench.commands.orders import COLUMNS, row
from bench.order_api import Found, limit

MACHINE = psutil.cpu_count() or 1


@pytest.mark.parametrize(
    ("api", "database", "customers", "named"),
    [
        (0.95, 0.1, 0.1, "the API's one core"),
        (0.5, MACHINE - 0.7, 0.2, "the machine's cores, which all share"),
        (0.2, 0.1, 0.1, "waiting: for the disk at each commit, and for each other's rows"),
    ],
)
def test_the_limit_is_who_has_nothing_left(api: float, database: float, customers: float, named: str) -> None:
    assert limit({"api": api, "database": database, "customers": customers}) == named


def test_a_row_has_a_cell_for_each_column() -> None:
    found = Found("sqlite", True, 100, 1234.4, 5.0, 9.0, 0.9, 0.0, 0.1, "the API's one core")
    assert row(found) == ("sqlite", "yes", 1234, "5.0", "9.0", "0.90", "0.00", "0.10", "the API's one core")
    assert len(row(found)) == len(COLUMNS)
    assert set(asdict(found)) >= {"orders_per_s", "p50_ms", "p99_ms", "limit"}
