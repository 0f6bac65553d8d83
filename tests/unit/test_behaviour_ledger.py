"""The behaviour ledger's rules, by hand."""

from itertools import islice

from streams.events import Event, OrderEvent, OrderLine, UserActivity
from streams.simulator.behaviour import BehaviourRules
from streams.simulator.behaviour_ledger import BehaviourLedger
from streams.simulator.emission import emitted
from streams.simulator.settings import ShopSettings

MINUTE = 60_000
HOUR = 60 * MINUTE


def book(*events: Event, rules: BehaviourRules | None = None) -> BehaviourLedger:
    ledger = BehaviourLedger(1, rules)
    for event in events:
        ledger.record(b"any", event)
    return ledger


def viewed(at: int, product: int = 1, user: int = 7, **more: str) -> UserActivity:
    return UserActivity("product.viewed", user, product_id=product, occurred_at=at, **more)


def placed(at: int, number: int = 1, amount: int = 10, user: int = 7, lines: tuple[OrderLine, ...] = ()) -> OrderEvent:
    return OrderEvent(number, user, amount, occurred_at=at, items=lines)


def carted(at: int, product: int = 1, user: int = 7) -> UserActivity:
    return UserActivity("cart.added", user, product_id=product, occurred_at=at)


def test_a_pause_of_the_gap_parts_sessions_and_less_does_not() -> None:
    sessions = book(viewed(0), viewed(30 * MINUTE - 1, 2), viewed(60 * MINUTE - 1, 3)).sessions(all_over=True)
    assert [(s.start, s.end, s.viewed) for s in sessions] == [
        (0, 30 * MINUTE - 1, ("1", "2")),
        (60 * MINUTE - 1, 60 * MINUTE - 1, ("3",)),
    ]


def test_a_session_is_due_once_both_topics_have_passed_its_gap_and_grace() -> None:
    ledger = book(viewed(0), viewed(31 * MINUTE, user=8))
    assert ledger.sessions() == []
    ledger.record(b"any", placed(31 * MINUTE - 1, user=8))
    assert ledger.sessions() == []
    ledger.record(b"any", placed(31 * MINUTE, user=8))
    (session,) = ledger.sessions()
    assert session.user_id == "7"


def test_late_events_and_duplicates_are_told_by_topic() -> None:
    ledger = book(viewed(HOUR), viewed(0), placed(0))
    assert [ledger.sources[topic][0].late for topic in (UserActivity, OrderEvent)] == [1, 0]
    twice = OrderEvent(1, 7, 10, "e", occurred_at=5)
    assert book(twice, twice).sources[OrderEvent][0].duplicates == 1


def test_what_was_bought_belongs_to_the_session_before() -> None:
    lamp, sofa = OrderLine("lamp"), OrderLine("sofa")
    ledger = book(viewed(MINUTE), placed(0, 1), placed(2 * MINUTE, 2, lines=(lamp, sofa)), placed(31 * MINUTE, 3))
    (session,) = ledger.sessions(all_over=True)
    assert (session.orders, session.bought) == (("2",), ("lamp", "sofa"))


def test_a_cart_is_abandoned_after_the_timeout_unless_ordered() -> None:
    (cart,) = book(carted(0), carted(59 * MINUTE, 2)).carts(all_over=True)
    assert (cart.since, cart.last_change, cart.abandoned_at, cart.items) == (0, 59 * MINUTE, 119 * MINUTE, ("1", "2"))
    assert book(carted(0), placed(HOUR - 1)).carts(all_over=True) == []
    assert len(book(carted(0), placed(HOUR)).carts(all_over=True)) == 1
    first, second = book(carted(0), carted(HOUR, 2)).carts(all_over=True)
    assert (first.items, second.items) == (("1",), ("2",))


def test_a_run_over_the_limit_is_one_alert() -> None:
    rules = BehaviourRules(max_orders=2, max_amount=None)
    alerts = book(*[placed(n * MINUTE, n) for n in range(1, 6)], rules=rules).alerts(all_over=True)
    assert [(a.order_id, a.orders, a.reason) for a in alerts] == [("3", 3, "orders")]
    again = [placed(n * MINUTE, n) for n in (1, 2, 3, 64, 65, 66)]
    assert [a.order_id for a in book(*again, rules=rules).alerts(all_over=True)] == ["3", "66"]


def test_the_funnel_counts_events_and_users() -> None:
    ledger = book(viewed(0, category="books"), viewed(1, category="books"), placed(2), viewed(HOUR, category="books"))
    cell = ledger.funnel()[0, "books"]
    assert (cell.events["viewed"], cell.users["viewed"]) == (2, {"7"})
    assert ledger.funnel()[0, None].events == {"viewed": 2, "ordered": 1}


def test_a_bots_session_is_no_basket() -> None:
    ledger = book(*[viewed(n, n) for n in range(51)], viewed(0, 1, user=8), viewed(1, 2, user=8))
    assert ledger.seen(all_over=True).pairs == {("1", "2"): 1}


def test_a_product_of_a_longer_id_is_in_no_basket() -> None:
    long, longest = "가" * 161, "가" * 160
    lines = tuple(map(OrderLine, ("a", longest, long)))
    ledger = book(placed(0, lines=lines), *[UserActivity("product.viewed", 7, product_id=p) for p in ("a", long)])
    assert (ledger.bought().products, ledger.bought().pairs) == ({"a": 1, longest: 1}, {("a", longest): 1})
    assert (ledger.seen(all_over=True).products, ledger.seen(all_over=True).pairs) == ({"a": 1}, {})


def test_pairs_are_counted_once_a_basket() -> None:
    lines = (OrderLine("b"), OrderLine("a"), OrderLine("b"))
    together = book(placed(0, 1, lines=lines), placed(1, 2, lines=lines)).bought()
    assert (together.products, together.pairs) == ({"a": 2, "b": 2}, {("a", "b"): 2})


def test_a_simulated_shop_has_some_of_everything() -> None:
    shop = BehaviourLedger(4)
    settings = ShopSettings(events_per_s=2, users=2_000, products=200, pairs=20)
    for _, key, _, event in islice(emitted(settings), 25_000):
        shop.record(key, event)
    assert len(shop.sessions()) > 300
    assert len(shop.carts()) > 30
    assert sum(source.late for sources in shop.sources.values() for source in sources) > 0
    assert sum(shop.seen().pairs.values()) > sum(shop.bought().pairs.values()) > 100
    assert {doings.partition for doings in shop.users.values()} == set(range(4))
