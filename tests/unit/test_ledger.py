"""The ledger's rules, by hand, and that its tables agree with each other and with the folds."""

import json
from itertools import islice
from pathlib import Path

import pytest

from agents.sales import sales_folds
from streams.events import OrderEvent, OrderLine
from streams.simulator.emission import emitted
from streams.simulator.ledger import Cell, Ledger, ledger_of
from streams.simulator.settings import ShopSettings

KEY = b"user-1"
MINUTE = 60_000


def placed(amount: int, at: int, event_id: str | None = None, user: int | str = 1) -> OrderEvent:
    return OrderEvent(1, user, amount, event_id, occurred_at=at)


def one(*events: OrderEvent) -> Ledger:
    return ledger_of([(KEY, event) for event in events], partitions=1)


@pytest.fixture(scope="module")
def shop() -> Ledger:
    orders = islice(emitted(ShopSettings(topics=("order-events",))), 40_000)
    return ledger_of((key, event) for _, key, _, event in orders if isinstance(event, OrderEvent))


def test_a_slice_is_half_open() -> None:
    book = one(placed(1, 2 * MINUTE - 1), placed(2, 2 * MINUTE))
    assert {start: cell.placed for (start, _), cell in book.cells("total").items()} == {
        MINUTE: 1,
        2 * MINUTE: 2,
    }


def test_an_event_is_late_once_its_slice_and_grace_are_behind_the_watermark() -> None:
    assert one(placed(1, 3 * MINUTE - 1), placed(2, MINUTE)).sources[0].late == 0
    book = one(placed(1, 3 * MINUTE), placed(2, 2 * MINUTE - 1), placed(4, MINUTE), placed(8, 2 * MINUTE))
    assert (book.sources[0].late, book.sources[0].counted) == (2, 2)
    assert book.window("total", "total").placed == 9


def test_a_duplicate_moves_nothing_and_is_forgotten_in_time() -> None:
    book = one(placed(1, 10 * MINUTE, "a"), placed(1, 12 * MINUTE, "a"))
    assert (book.sources[0].duplicates, book.sources[0].watermark) == (1, 10 * MINUTE)
    edge = one(placed(1, 10 * MINUTE, "a"), placed(2, 15 * MINUTE, "b"), placed(1, 15 * MINUTE, "a"))
    assert edge.sources[0].duplicates == 1
    over = one(placed(1, 10 * MINUTE, "a"), placed(2, 15 * MINUTE + 1, "b"), placed(1, 15 * MINUTE, "a"))
    assert over.sources[0].duplicates == 0


def test_partitions_keep_time_apart() -> None:
    keys = [b"user-%d" % user for user in range(20)]
    book = Ledger(4)
    for key in keys:
        book.record(key, placed(1, 10 * MINUTE))
    book.record(keys[0], placed(1, MINUTE))
    assert sum(source.late for source in book.sources) == 1
    assert sorted(source.counted > 0 for source in book.sources) == [True] * 4


def test_customers_are_counted_once_and_by_their_text() -> None:
    book = one(placed(1, MINUTE), placed(2, MINUTE, user="1"), placed(3, MINUTE, user=2))
    cell = book.window("total", "total")
    assert (cell.orders, cell.customers, cell.order_values) == (3, {"1", "2"}, [1, 2, 3])


def test_lines_are_summed_for_each_category_and_product() -> None:
    lines = (OrderLine(1, "books", 2, 10), OrderLine("1", "home", 1, 5), OrderLine(2, "books", 1, 7))
    book = one(OrderEvent(1, 1, 99, occurred_at=MINUTE, items=lines))
    assert book.cells("category") == {
        (MINUTE, "books"): Cell(27, 0, 0, 1, 3, {"1"}, [27]),
        (MINUTE, "home"): Cell(5, 0, 0, 1, 1, {"1"}, [5]),
    }
    assert book.cells("product")[MINUTE, "1"] == Cell(25, 0, 0, 1, 3, {"1"}, [25])
    assert book.window("total", "total").placed == 99


def test_an_event_without_lines_is_unknown() -> None:
    book = one(OrderEvent(1, 1, 99, event_type="order.refunded", currency="USD", occurred_at=MINUTE))
    assert book.keys("category") == book.keys("product") == ["unknown\x1fUSD"]
    assert book.window("product", "unknown\x1fUSD").refunded == 99


def test_products_and_categories_sum_to_the_same(shop: Ledger) -> None:
    for currency in ("", "\x1fUSD"):

        def money(by: str, field: str, currency: str = currency) -> int:
            cells = shop.cells(by).items()
            mine = [cell for (_, key), cell in cells if ("\x1f" in key) == bool(currency)]
            return sum(getattr(cell, field) for cell in mine)

        for field in ("placed", "cancelled", "refunded", "units"):
            assert money("product", field) == money("category", field) > 0
            assert money("total", field) == money("region", field) > 0
        shipping = money("total", "placed") - money("category", "placed")
        assert shipping % 3_000 == 0
        assert (shipping == 0) == bool(currency)
        assert money("total", "orders") == money("region", "orders") <= money("category", "orders")


def test_the_faults_of_the_shop_are_found(shop: Ledger) -> None:
    assert all(source.late > 0 and source.duplicates > 0 for source in shop.sources)
    assert sum(s.late + s.duplicates + s.counted for s in shop.sources) == 40_000


def test_the_answers_are_written_as_json(shop: Ledger, tmp_path: Path) -> None:
    shop.write(tmp_path / "ledger.json")
    answers = json.loads((tmp_path / "ledger.json").read_bytes())
    start, cells = next(iter(answers["by"]["total"].items()))
    cell = shop.cells("total")[int(start), "total"]
    assert cells["total"]["net"] == cell.placed - cell.cancelled - cell.refunded
    assert cells["total"]["customers"] == len(cell.customers)
    assert cells["total"]["order_values"] == sorted(cell.order_values)
    assert answers["late"] == [source.late for source in shop.sources]


def test_the_folds_give_the_ledgers_cells(shop: Ledger) -> None:
    folds = sales_folds("KRW")
    for *_, event in islice(emitted(ShopSettings(topics=("order-events",), without_lines=0.5)), 3_000):
        assert isinstance(event, OrderEvent)
        book = one(event)
        for by in ("total", "category", "region"):
            rows = {row[0]: row[1:] for row in getattr(folds, by)(event)}
            assert rows.keys() == set(book.keys(by))
            for key, row in rows.items():
                cell = book.window(by, key)
                assert row[:5] == (cell.placed, cell.cancelled, cell.refunded, cell.orders, cell.units)
                assert row[6] == (cell.order_values[0] if cell.order_values else None)
