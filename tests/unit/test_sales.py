"""The sales folds, by hand-made cases."""

import pytest

from agents.sales import customer_id, sales_folds
from streams.events import OrderEvent, OrderLine

folds = sales_folds("KRW")
BOOK = OrderLine(1, "books", 2, 100)
ATLAS = OrderLine(2, "books", 1, 1000)
LAMP = OrderLine("lamp", "home", 3, 10)


def test_a_placed_order_adds_its_amount_to_the_total_and_its_region() -> None:
    order = OrderEvent(1, 7, 3230, region="seoul", items=(BOOK, LAMP))
    assert folds.total(order) == [("total", 3230, 0, 0, 1, 5, 7, 3230)]
    assert folds.region(order) == [("seoul", 3230, 0, 0, 1, 5, 7, 3230)]


def test_categories_and_products_take_their_own_lines() -> None:
    order = OrderEvent(1, 7, 3230, currency="KRW", items=(BOOK, LAMP))
    assert folds.category(order) == [("books", 200, 0, 0, 1, 2, 7, 200), ("home", 30, 0, 0, 1, 3, 7, 30)]
    assert folds.product(order) == [("1", 200, 0, 0, 1, 2), ("lamp", 30, 0, 0, 1, 3)]


def test_a_category_or_product_is_one_row_of_an_order() -> None:
    order = OrderEvent(1, 7, 1300, items=(BOOK, ATLAS, LAMP, BOOK))
    assert folds.category(order) == [("books", 1400, 0, 0, 1, 5, 7, 1400), ("home", 30, 0, 0, 1, 3, 7, 30)]
    assert folds.product(order) == [
        ("1", 400, 0, 0, 1, 4),
        ("2", 1000, 0, 0, 1, 1),
        ("lamp", 30, 0, 0, 1, 3),
    ]
    assert folds.category(OrderEvent(1, 7, 1200, items=(BOOK, ATLAS))) == [("books", 1200, 0, 0, 1, 3, 7, 1200)]


def test_product_ids_meet_by_their_text() -> None:
    order = OrderEvent(1, 7, 200, items=(BOOK, OrderLine("1", "books", 1, 100)))
    assert folds.product(order) == [("1", 300, 0, 0, 1, 3)]


def test_the_short_form_is_all_unknown() -> None:
    order = OrderEvent(1, 123, 50_000)
    assert folds.total(order) == [("total", 50_000, 0, 0, 1, 0, 123, 50_000)]
    assert folds.region(order) == [("unknown", 50_000, 0, 0, 1, 0, 123, 50_000)]
    assert folds.category(order) == [("unknown", 50_000, 0, 0, 1, 0, 123, 50_000)]
    assert folds.product(order) == [("unknown", 50_000, 0, 0, 1, 0)]


@pytest.mark.parametrize(("kind", "place"), [("order.cancelled", 2), ("order.refunded", 3)])
def test_what_is_taken_back_is_only_money(kind: str, place: int) -> None:
    order = OrderEvent(1, 7, 3230, event_type=kind, items=(BOOK, LAMP))  # type: ignore[arg-type]

    def money(key: str, amount: int) -> tuple[object, ...]:
        return (key, *(amount if i == place else 0 for i in range(1, 6)))

    assert folds.total(order) == [(*money("total", 3230), None, None)]
    assert folds.region(order) == [(*money("unknown", 3230), None, None)]
    assert folds.category(order) == [(*money("books", 200), None, None), (*money("home", 30), None, None)]
    assert folds.product(order) == [money("1", 200), money("lamp", 30)]
    short = OrderEvent(1, 7, 99, event_type=kind)  # type: ignore[arg-type]
    assert folds.category(short) == [(*money("unknown", 99), None, None)]
    assert folds.product(short) == [money("unknown", 99)]


def test_a_payment_of_an_order_changes_nothing() -> None:
    for items in ((), (BOOK,), (BOOK, LAMP)):
        order = OrderEvent(1, 7, 3230, event_type="order.paid", items=items)
        for fold in (folds.total, folds.region, folds.category, folds.product):
            assert fold(order) == []


def test_another_currency_is_kept_apart() -> None:
    order = OrderEvent(1, 7, 230, currency="USD", region="seoul", items=(BOOK, LAMP))
    assert folds.total(order) == [("total\x1fUSD", 230, 0, 0, 1, 5, 7, 230)]
    assert folds.region(order) == [("seoul\x1fUSD", 230, 0, 0, 1, 5, 7, 230)]
    assert [row[0] for row in folds.category(order)] == ["books\x1fUSD", "home\x1fUSD"]
    assert folds.category(order)[0][1:] == (200, 0, 0, 1, 2, 7, 200)
    assert [row[0] for row in folds.product(order)] == ["1\x1fUSD", "lamp\x1fUSD"]
    assert sales_folds("USD").total(order) == [("total", 230, 0, 0, 1, 5, 7, 230)]


def test_a_customer_is_one_whether_written_as_number_or_text() -> None:
    assert folds.total(OrderEvent(1, "7", 1))[0][6] == folds.total(OrderEvent(1, 7, 1))[0][6] == 7
    assert folds.category(OrderEvent(1, "7", 1, items=(BOOK,)))[0][6] == 7
    assert folds.region(OrderEvent(1, "ann", 1))[0][6] == "ann"


@pytest.mark.parametrize("text", ["", "07", "-1", "+1", " 1", "1_000", "\u0661", "9" * 40])
def test_text_that_is_not_how_a_number_is_written_stays_text(text: str) -> None:
    assert customer_id(text) == text
