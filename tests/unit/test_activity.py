"""The folds of behaviour, by hand-made cases: activity, carts, purchases, interest and the funnel."""

import pytest

from agents import funnel, interest
from agents.activity import LEFT_OUT, MAX_PRODUCTS, by_user, cart_changes, purchases
from streams.events import OrderEvent, OrderLine, UserActivity

AT = 1_700_000_000_000
BOOK, ATLAS, LAMP = OrderLine(1, "books"), OrderLine("1", "books"), OrderLine("lamp", "home")


@pytest.mark.parametrize(
    ("event", "step"),
    [
        (UserActivity("product.viewed", 7, product_id=5), (AT, "viewed", "5")),
        (UserActivity("cart.added", "7", product_id="5"), (AT, "carted", "5")),
        (UserActivity("cart.removed", 7, product_id=5), (AT, "removed", "5")),
        (UserActivity("search.performed", 7, query=" Red  SHOES "), (AT, "searched", "red shoes")),
        (UserActivity("checkout.started", 7), (AT, "checkout", "")),
        (UserActivity("product.viewed", 7), None),
        (UserActivity("search.performed", 7, query="  "), None),
    ],
)
def test_every_activity_is_an_event_of_its_user(event: UserActivity, step: tuple[int, str, str] | None) -> None:
    assert by_user(event, AT) == [("7", AT, AT, 1, step)]


def test_a_cart_changes_by_additions_and_removals_alone() -> None:
    assert cart_changes(UserActivity("cart.added", 7, product_id=5), AT) == [("7", AT, AT, (AT, "+", "5"))]
    assert cart_changes(UserActivity("cart.removed", 7, product_id=5), AT) == [("7", AT, AT, (AT, "-", "5"))]
    assert cart_changes(UserActivity("product.viewed", 7, product_id=5), AT) == []
    assert cart_changes(UserActivity("cart.added", 7), AT) == []


def test_a_purchase_names_its_distinct_products_in_order() -> None:
    order = OrderEvent(9, 7, 300, items=(LAMP, BOOK, ATLAS))
    assert purchases("KRW")(order, AT) == [("7", (AT, "9", 300, "lamp", "1"))]
    many = OrderEvent(9, 7, 300, items=tuple(OrderLine(n) for n in range(200)))
    assert len(purchases("KRW")(many, AT)[0][1]) == 3 + MAX_PRODUCTS


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        ([f"{n}" for n in range(100)], 100),
        ([f"{n}" for n in range(101)], 99),
        ([f"{n:036}" for n in range(100)], 100),
        (["x" * 37, *[f"{n:036}" for n in range(99)]], 99),
        ([f"{n:256}" for n in range(100)], 15),
        ([chr(0x10000 + n) * 256 for n in range(100)], 3),
    ],
)
def test_a_purchase_whose_products_are_not_all_kept_says_so(ids: list[str], kept: int) -> None:
    ((_, (_, _, _, *products)),) = purchases("KRW")(OrderEvent(9, 7, 300, items=tuple(map(OrderLine, ids))), AT)
    assert products == (ids if kept == len(ids) else [*ids[:kept], LEFT_OUT])


def test_a_purchase_in_another_currency_is_an_order_without_money() -> None:
    assert purchases("KRW")(OrderEvent(9, 7, 300, currency="USD"), AT) == [("7", (AT, "9", 0))]
    assert purchases("USD")(OrderEvent(9, 7, 300, currency="USD"), AT) == [("7", (AT, "9", 300))]
    assert purchases("KRW")(OrderEvent(9, 7, 300, event_type="order.paid"), AT) == []


def test_interest_is_in_what_is_looked_at_and_searched_for() -> None:
    viewed = UserActivity("product.viewed", "7", "e", product_id=5, category="books")
    assert interest.products(viewed, AT) == [("5", 1, 7, (AT, "e", "books"))]
    assert interest.products(UserActivity("cart.added", 7, product_id=5), AT) == [("5", 1, 7, None)]
    assert interest.products(UserActivity("cart.removed", 7, product_id=5), AT) == []
    assert interest.searches(UserActivity("search.performed", 7, query="A  b"), AT) == [("a b", 1, 7)]
    assert interest.searches(UserActivity("search.performed", 7), AT) == []
    assert interest.searches(viewed, AT) == []


def test_queries_meet_whatever_their_case_and_blanks_and_are_cut() -> None:
    assert interest.normalised("STRASSE\t straße") == "strasse strasse"
    assert len(interest.normalised("x" * 1_000_000)) == 100
    assert interest.normalised("a" * 99 + " b") == "a" * 99


def test_the_funnel_counts_a_step_in_total_and_by_category() -> None:
    viewed = UserActivity("product.viewed", "7", category="books")
    assert funnel.activity(viewed) == [(key, 1, 7, 0, None, 0, None) for key in (funnel.TOTAL, "books")]
    carted = UserActivity("cart.added", "ann")
    assert funnel.activity(carted) == [(key, 0, None, 1, "ann", 0, None) for key in (funnel.TOTAL, "unknown")]
    assert funnel.activity(UserActivity("checkout.started", 7)) == [(funnel.TOTAL, 0, None, 0, None, 1, 7)]
    assert funnel.activity(UserActivity("search.performed", 7, query="x")) == []
    placed = OrderEvent(1, "7", 5, items=(BOOK, ATLAS, LAMP))
    assert funnel.orders(placed) == [(key, 1, 7, 0, None) for key in (funnel.TOTAL, "books", "home")]
    paid = OrderEvent(1, 7, 5, event_type="order.paid")
    assert funnel.orders(paid) == [(key, 0, None, 1, 7) for key in (funnel.TOTAL, "unknown")]
    assert funnel.orders(OrderEvent(1, 7, 5, event_type="order.refunded")) == []


def test_conversion_is_by_users_and_passes_over_what_was_not_told() -> None:
    told = {
        "viewed": 100,
        "viewers": 40,
        "carted": 30,
        "carters": 20,
        "ordered": 9,
        "buyers": 8,
        "paid": 8,
        "payers": 6,
    }
    steps = {step["step"]: step for step in funnel.funnel(told)}
    assert [(step["events"], step["users"]) for step in steps.values()] == [(100, 40), (30, 20), (0, 0), (9, 8), (8, 6)]
    assert steps["carted"]["from_previous"] == 0.5
    assert steps["checkouts"]["from_previous"] is None
    assert (steps["ordered"]["from_previous"], steps["ordered"]["from_first"]) == (0.4, 0.2)
    assert steps["paid"]["from_previous"] == 0.75
    assert [step["users"] for step in funnel.funnel({})] == [0] * 5
