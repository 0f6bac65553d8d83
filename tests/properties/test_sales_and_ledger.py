"""Whatever an order event holds, the folds and the ledger's own loop come to the same."""

from collections import defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agents.sales import sales_folds
from streams.events import OrderEvent, OrderLine
from streams.simulator.ledger import BY, Cell, ledger_of

names = st.sampled_from(["books", "home", "", "unknown", "1"])
ids = st.sampled_from([1, 2, "1", "x", "unknown", -1, "01"])
minor = st.integers(0, 2**53 - 1)
lines = st.builds(OrderLine, ids, names, st.integers(1, 1_000_000), minor)
orders = st.builds(
    OrderEvent,
    ids,
    ids,
    minor,
    st.none(),
    st.sampled_from(["order.placed", "order.paid", "order.cancelled", "order.refunded"]),
    st.sampled_from([None, "KRW", "USD", ""]),
    names,
    st.just(60_000),
    st.lists(lines, max_size=5).map(tuple),
)


def add(cell: Cell, row: tuple[Any, ...]) -> None:
    placed, cancelled, refunded, made, units = row[1:6]
    cell.placed += placed
    cell.cancelled += cancelled
    cell.refunded += refunded
    cell.orders += made
    cell.units += units
    customer, value = row[6:] if len(row) == 8 else (None, None)
    if customer is not None:
        cell.customers.add(str(customer))
    if value is not None:
        cell.order_values.append(value)


@given(st.lists(orders, max_size=12))
def test_folds_and_ledger_agree(events: list[OrderEvent]) -> None:
    folds = sales_folds("KRW")
    book = ledger_of([(b"user-1", event) for event in events], partitions=1)
    for by in BY:
        cells: dict[tuple[int, str], Cell] = defaultdict(Cell)
        for event in events:
            rows = getattr(folds, by)(event)
            assert len({row[0] for row in rows}) == len(rows)
            for row in rows:
                add(cells[60_000, row[0]], row)
        expected = dict(book.cells(by))
        if by == "product":
            for cell in expected.values():
                cell.customers, cell.order_values = set(), []
        assert dict(cells) == expected
