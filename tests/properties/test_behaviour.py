"""Decisions on cells come to what the definitions give, whenever they are taken and whatever is known ahead of time."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.activity import by_user, cart_changes, purchases
from agents.alerts import DUE_MS, Velocity, decide_velocity
from agents.candidate import EARLY_FROM, Decide
from agents.carts import decide_abandoned
from agents.sessions import Listed, OrdersKept, decide_session
from streams.codecs import encode
from streams.events import AbandonedCart, OrderAlert, OrderEvent, OrderLine, UserActivity, UserSession
from streams.simulator.behaviour import BehaviourRules, alerts_of, carts_of, sessions_of
from streams.simulator.behaviour_ledger import BehaviourLedger
from streams.simulator.emission import emitted
from streams.simulator.settings import ShopSettings
from tables.aggregates import Aggregate, Max, Min, Moments, Sum, Trail

# small numbers, so that a few dozen events meet every edge: blocks, gaps, caps and slices of three widths
RULES = BehaviourRules(
    gap_ms=10,
    session_block=3,
    session_things=7,
    session_bought=2,
    session_orders=3,
    trail_cap=3,
    timeout_ms=12,
    cart_block=3,
    cart_items=4,
    changes_cap=3,
    velocity_ms=8,
    max_orders=2,
    max_amount=20,
    orders_cap=4,
)
ORDERS = OrdersKept("orders_by_user", RULES.velocity_ms, RULES.orders_cap)
USER = "7"
END = 160


@dataclass
class Kept:
    """A table of one user: what it is fed with, and its cells by slice."""

    name: str
    slice_ms: int
    aggregates: list[Aggregate[Any]]
    fold: Callable[[Any, int], Iterable[tuple[Any, ...]]]
    rows: dict[int, list[Any]]

    def feed(self, event: Any, at: int) -> None:
        for _, *values in self.fold(event, at):
            window = at - at % self.slice_ms
            states = self.rows.setdefault(window, [one.initial() for one in self.aggregates])
            self.rows[window] = [
                one.add(state, value) for one, state, value in zip(self.aggregates, states, values, strict=True)
            ]


@dataclass(frozen=True)
class Cell:
    window: int
    key: str
    states: Sequence[Any]
    since: int
    until: int
    look: Callable[[str, int], Sequence[Any] | None]


def tables(rules: BehaviourRules) -> dict[str, Kept]:
    activity: list[Aggregate[Any]] = [Min(), Max(), Sum(), Trail(rules.trail_cap)]
    made = [
        Kept("activity_by_user", rules.gap_ms, activity, by_user, {}),
        Kept("cart_changes_by_user", rules.timeout_ms, [Min(), Max(), Moments(rules.changes_cap)], cart_changes, {}),
        Kept("orders_by_user", rules.velocity_ms, [Moments(rules.orders_cap)], purchases("KRW"), {}),
    ]
    return {table.name: table for table in made}


def filled(rules: BehaviourRules, acts: Iterable[UserActivity], orders: Iterable[OrderEvent]) -> dict[str, Kept]:
    made = tables(rules)
    for act in acts:
        made["activity_by_user"].feed(act, time_of(act))
        made["cart_changes_by_user"].feed(act, time_of(act))
    for order in orders:
        made["orders_by_user"].feed(order, time_of(order))
    return made


def time_of(event: UserActivity | OrderEvent) -> int:
    assert isinstance(event.occurred_at, int)
    return event.occurred_at


def decided(
    decide: Decide, kept: dict[str, Kept], trigger: str, since: int, until: int, reach: int, user: str = USER
) -> dict[bytes, Any]:
    """What the rule emits on every cell of its table; it may look no further than `reach` ms back or ahead."""
    found: dict[bytes, Any] = {}
    for window, states in kept[trigger].rows.items():

        def look(name: str, start: int, window: int = window) -> Sequence[Any] | None:
            table = kept[name]
            assert start % table.slice_ms == 0
            assert window - reach <= start <= window + reach
            return table.rows.get(start)

        for key, value in decide(Cell(window, user, states, since, until, look)):
            assert key not in found
            found[key] = value
    return found


moments = st.integers(0, END - 1)
products = st.sampled_from([1, 2, "1", "x"])
acts = st.one_of(
    st.builds(
        lambda kind, at, product: UserActivity(kind, USER, product_id=product, occurred_at=at),
        st.sampled_from(["product.viewed", "cart.added", "cart.added", "cart.removed"]),
        moments,
        products | st.none(),
    ),
    st.builds(
        lambda at, query: UserActivity("search.performed", USER, query=query, occurred_at=at),
        moments,
        st.sampled_from(["Red  shoes", "red shoes", " ", None]),
    ),
    st.builds(lambda at: UserActivity("checkout.started", USER, occurred_at=at), moments),
)
orders = st.builds(
    lambda at, number, amount, kind, currency, lines: OrderEvent(
        number, USER, amount, None, kind, currency, occurred_at=at, items=tuple(OrderLine(line) for line in lines)
    ),
    moments,
    st.integers(1, 5),
    st.integers(0, 25),
    st.sampled_from(["order.placed", "order.placed", "order.placed", "order.paid"]),
    st.sampled_from([None, "KRW", "USD"]),
    st.lists(products, max_size=3),
)
crowded = st.lists(moments, unique=True, min_size=20, max_size=60).map(
    lambda times: [UserActivity("cart.added", USER, product_id=at % 9, occurred_at=at) for at in times]
)
everything = st.tuples(
    st.lists(acts, max_size=25) | crowded, st.lists(orders, max_size=10) | st.lists(orders, max_size=40)
)
# many orders in few slices, cut in the midst of them
hasty = st.lists(st.integers(0, 20), min_size=5, max_size=20).map(
    lambda times: [OrderEvent(n, USER, 6, occurred_at=at) for n, at in enumerate(times)]
)
hasty_untils = st.lists(st.integers(1, 24), min_size=1, max_size=4).map(sorted)
untils = st.lists(st.integers(0, END + 40), max_size=6).map(sorted)
MARKS = {"cart.added": "+", "cart.removed": "-"}


def steps_of(events: Iterable[UserActivity]) -> list[tuple[int, str, str]]:
    steps = []
    for event in events:
        ((_, at, _, _, step),) = by_user(event, time_of(event))
        steps.append(step or (at, "", ""))
    return steps


def changes_of(events: Iterable[UserActivity]) -> list[tuple[int, str, str]]:
    return [
        (time_of(event), MARKS[event.event_type], str(event.product_id))
        for event in events
        if event.event_type in MARKS and event.product_id is not None
    ]


def purchases_of(events: Iterable[OrderEvent]) -> set[tuple[Any, ...]]:
    fold = purchases("KRW")
    return {moment for event in events for _, moment in fold(event, time_of(event))}


def stepwise(
    decide: Decide, trigger: str, given: Any, cuts: list[int], seed: int, reach: int
) -> tuple[dict[bytes, Any], int]:
    """The union of the decisions at each of the cuts, with all events before it and any of the others, in any order."""
    chance = Random(seed)
    union: dict[bytes, Any] = {}
    since = 0
    for until in cuts:
        known = [[e for e in events if time_of(e) < until or chance.random() < 0.5] for events in given]
        for events in known:
            chance.shuffle(events)
        found = decided(decide, filled(RULES, *known), trigger, since, until, reach)
        assert union.keys().isdisjoint(found)
        union |= found
        since = until
    return union, since


@settings(max_examples=200)
@given(everything, untils, st.integers(0, 999))
def test_sessions_are_those_of_the_definition_whenever_decided(given: Any, cuts: list[int], seed: int) -> None:
    decide = decide_session(10, orders=ORDERS, max_slices=3, listed=Listed(7, 2, 3))
    found, until = stepwise(decide, "activity_by_user", given, cuts, seed, reach=6 * 10 + 8)
    expected = sessions_of(USER, steps_of(given[0]), purchases_of(given[1]), RULES)
    assert found == {
        msgspec.json.encode([USER, session.start]): encode(session) for session in expected if session.end + 10 <= until
    }


@settings(max_examples=200)
@given(everything, untils, st.integers(0, 999))
def test_carts_are_those_of_the_definition_whenever_decided(given: Any, cuts: list[int], seed: int) -> None:
    decide = decide_abandoned(12, orders=ORDERS, max_slices=3, max_items=4)
    found, until = stepwise(decide, "cart_changes_by_user", given, cuts, seed, reach=6 * 12 + 8)
    expected = carts_of(USER, changes_of(given[0]), purchases_of(given[1]), RULES)
    assert found == {
        msgspec.json.encode([USER, cart.since]): encode(cart) for cart in expected if cart.abandoned_at <= until
    }


@settings(max_examples=150)
@given(everything, untils, st.integers(0, 999), st.booleans())
def test_alerts_are_those_of_the_definition_whenever_decided(
    given: Any, cuts: list[int], seed: int, early: bool
) -> None:
    decide = decide_velocity(Velocity(8, 2, 20), early=early)
    found, until = stepwise(decide, "orders_by_user", given, cuts, seed, reach=2 * 8)
    expected = alerts_of(USER, purchases_of(given[1]), RULES)
    alerts = {key: value for key, value in found.items() if value is not None}
    assert early or alerts == found
    assert alerts == {
        msgspec.json.encode([USER, alert.occurred_at, alert.order_id]): encode(alert)
        for alert in expected
        if alert.occurred_at + DUE_MS <= until
    }


@settings(max_examples=150)
@given(hasty, hasty_untils, st.integers(0, 999))
def test_an_alert_is_never_decided_before_its_time(given: list[OrderEvent], cuts: list[int], seed: int) -> None:
    found, until = stepwise(decide_velocity(Velocity(8, 2, 20)), "orders_by_user", ([], given), cuts, seed, reach=2 * 8)
    expected = [alert for alert in alerts_of(USER, purchases_of(given), RULES) if alert.occurred_at < until]
    assert sorted(found.values()) == sorted(map(encode, expected))


@settings(max_examples=100)
@given(st.lists(orders, max_size=30), untils, st.integers(0, 999))
def test_early_alerts_are_settled_by_the_final_decision(given: list[OrderEvent], cuts: list[int], seed: int) -> None:
    """An upsert topic that early and final decisions write to ends with the final alerts alone."""
    rules = replace(RULES, orders_cap=1000)
    decide = decide_velocity(Velocity(8, 2, 20), early=True)
    chance = Random(seed)
    topic: dict[bytes, Any] = {}
    since = 0
    known: list[OrderEvent] = []
    for until in [*cuts, END + 8]:
        coming = [e for e in given if e not in known and (time_of(e) < until or chance.random() < 0.5)]
        chance.shuffle(coming)
        known += coming
        kept = filled(rules, [], known)
        topic |= decided(decide, kept, "orders_by_user", until, EARLY_FROM, 16)
        topic |= decided(decide, kept, "orders_by_user", since, until, 16)
        since = until
    told = [msgspec.json.decode(value, type=OrderAlert) for value in topic.values() if value is not None]
    assert sorted(told, key=lambda alert: alert.event_id) == sorted(
        alerts_of(USER, purchases_of(given), rules), key=lambda alert: alert.event_id
    )
    assert all(alert.final for alert in told)


def test_an_early_alert_says_that_it_is_not_final() -> None:
    kept = filled(RULES, [], [OrderEvent(n, USER, 1, occurred_at=n) for n in (1, 2, 3)])
    decide = decide_velocity(Velocity(8, 2), early=True)
    (value,) = decided(decide, kept, "orders_by_user", 0, EARLY_FROM, 16).values()
    alert = msgspec.json.decode(value, type=OrderAlert)
    assert (alert.order_id, alert.orders, alert.reason, alert.final) == ("3", 3, "orders", False)


@pytest.mark.parametrize(("rule", "kind"), [(decide_session(10), UserSession), (decide_abandoned(12), AbandonedCart)])
def test_values_are_what_their_topic_declares(rule: Decide, kind: type) -> None:
    kept = filled(
        BehaviourRules(gap_ms=10, timeout_ms=12), [UserActivity("cart.added", USER, product_id=1, occurred_at=5)], []
    )
    trigger = "activity_by_user" if kind is UserSession else "cart_changes_by_user"
    (value,) = decided(rule, kept, trigger, 0, 100, 10**8).values()
    assert msgspec.json.decode(value, type=kind)


def test_a_simulated_shop_comes_to_what_its_ledger_says() -> None:
    rules = BehaviourRules(max_orders=1, max_amount=500_000)
    ledger = BehaviourLedger(4, rules)
    sent: defaultdict[str, tuple[list[UserActivity], list[OrderEvent]]] = defaultdict(lambda: ([], []))
    shop = ShopSettings(events_per_s=2, users=1_000, products=200, pairs=20, late_sessions=0, duplicates=0)
    for _, key, _, event in islice(emitted(shop), 15_000):
        ledger.record(key, event)
        if isinstance(event, UserActivity):
            sent[str(event.user_id)][0].append(event)
        elif isinstance(event, OrderEvent):
            sent[str(event.user_id)][1].append(event)
    ways: list[tuple[Decide, str, type, Sequence[Any]]] = [
        (decide_session(rules.gap_ms), "activity_by_user", UserSession, ledger.sessions(all_over=True)),
        (decide_abandoned(rules.timeout_ms), "cart_changes_by_user", AbandonedCart, ledger.carts(all_over=True)),
        (
            decide_velocity(Velocity(rules.velocity_ms, rules.max_orders, rules.max_amount)),
            "orders_by_user",
            OrderAlert,
            ledger.alerts(all_over=True),
        ),
    ]
    for decide, trigger, kind, expected in ways:
        found: list[Any] = []
        for user, (acts, bought) in sorted(sent.items()):
            for _, value in sorted(
                decided(decide, filled(rules, acts, bought), trigger, 0, 2**50, 10**9, user).items()
            ):
                found.append(msgspec.json.decode(value, type=kind))
        assert len(expected) > 20
        assert sorted(found, key=repr) == sorted(expected, key=repr)
