"""The simulated shop: decided by its seed, shaped like a shop, with the faults it was given and no others."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, permutations

import pytest

from streams.codecs import decoder, encode, user_key
from streams.errors import MillraceError
from streams.events import Event, OrderEvent, PaymentNotification, UserActivity
from streams.partitioners import key_hash
from streams.simulator.emission import Emitted, daily_curve, emitted, slices
from streams.simulator.settings import ShopSettings
from streams.simulator.shop import open_shop

HOUR_MS = 3_600_000


def sent(count: int, settings: ShopSettings | None = None) -> list[Emitted]:
    return list(islice(emitted(settings or ShopSettings()), count))


@pytest.fixture(scope="module")
def day() -> list[Emitted]:
    return sent(60_000)


def at_ms(event: Event) -> int:
    assert isinstance(event.occurred_at, int)
    return event.occurred_at


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert sent(3_000) == sent(3_000)
    assert [e[2] for e in sent(500)] != [e[2] for e in sent(500, ShopSettings(seed=2))]


def test_how_finely_time_is_sliced_changes_nothing() -> None:
    settings = ShopSettings(events_per_s=500)

    def by(slice_ms: int) -> list[Emitted]:
        count = 4_000 // slice_ms
        return [event for _, events in islice(slices(settings, slice_ms), count) for event in events]

    assert by(1) == by(20) == by(500) == by(4_000)


def test_the_bytes_are_the_events_encoding_and_the_key_is_the_users(day: list[Emitted]) -> None:
    decoders: dict[str, Callable[[bytes], Event]] = {
        "order-events": decoder(OrderEvent),
        "user-activity": decoder(UserActivity),
        "payment-notifications": decoder(PaymentNotification),
    }
    for topic, key, value, event in day[:5_000]:
        assert value == encode(event)
        assert decoders[topic](value) == event
        assert key == user_key(event.user_id)


def test_a_topic_can_be_asked_for_alone() -> None:
    orders = sent(5_000, ShopSettings(topics=("order-events",)))
    assert {topic for topic, *_ in orders} == {"order-events"}
    lines = [len(e.items) for *_, e in orders if isinstance(e, OrderEvent) and e.event_type == "order.placed"]
    assert set(lines) == {1, 2, 3}


def test_event_time_advances_by_the_modelled_rate() -> None:
    for settings in (ShopSettings(), ShopSettings(events_per_s=50, topics=("order-events",))):
        events = sent(20_000, settings)
        seconds = (max(at_ms(event) for *_, event in events) - settings.start_ms) / 1000
        assert 20_000 / seconds == pytest.approx(settings.events_per_s, rel=0.15)


def test_visits_follow_the_day() -> None:
    settings = ShopSettings(events_per_s=0.5, daily_swing=0.7)
    hours = Counter((at_ms(e) // HOUR_MS) % 24 for *_, e in sent(40_000, settings))
    assert hours[20] > 3 * hours[8]
    assert daily_curve(settings, 20 * HOUR_MS) == pytest.approx(1.7, rel=0.01)
    flat = Counter((at_ms(e) // HOUR_MS) % 24 for *_, e in sent(40_000, replace(settings, daily_swing=0)))
    assert flat[20] < 1.2 * flat[8]


def test_the_mix_is_a_shops(day: list[Emitted]) -> None:
    kinds = Counter(event.event_type for *_, event in day)
    views, carts, orders = kinds["product.viewed"], kinds["cart.added"], kinds["order.placed"]
    assert views > carts > kinds["checkout.started"] > orders > kinds["order.refunded"] > 0
    assert 0.04 < orders / views < 0.15
    assert 0.85 < kinds["order.paid"] / orders < 1
    assert 0.03 < kinds["order.cancelled"] / orders < 0.09
    assert 0.015 < kinds["order.refunded"] / orders < 0.09
    assert set(kinds) == {
        *("product.viewed", "cart.added", "cart.removed", "search.performed", "checkout.started"),
        *("order.placed", "order.paid", "order.cancelled", "order.refunded"),
        *("payment.completed", "payment.failed", "payment.refunded"),
    }


def test_popularity_is_skewed_and_spread_over_twelve_categories(day: list[Emitted]) -> None:
    views = Counter(e.product_id for *_, e in day if e.event_type == "product.viewed")
    assert len({e.category for *_, e in day if e.event_type == "product.viewed"}) == 12
    top = sum(count for _, count in views.most_common(100))
    assert top > 0.35 * views.total()
    assert len(views) > 900


def test_planted_pairs_are_bought_together_and_can_be_found() -> None:
    settings = ShopSettings(topics=("order-events",))
    pairs = open_shop(settings).pairs
    alone: Counter[int] = Counter()
    together: Counter[tuple[int, int]] = Counter()
    for *_, event in sent(60_000, settings):
        if isinstance(event, OrderEvent) and event.event_type == "order.placed":
            products = {int(line.product_id) for line in event.items}
            alone.update(products)
            together.update(permutations(products, 2))
    assert len(pairs) == 150
    assert len({product for pair in pairs for product in pair}) == 300
    neighbours: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for (a, b), count in together.items():
        neighbours[a].append((count / (alone[a] * alone[b]) ** 0.5, b))
    found = sum(b in [product for _, product in sorted(neighbours[a])[-10:]] for a, b in pairs)
    assert found / len(pairs) > 0.95


def test_what_is_taken_back_was_placed_and_is_not_more() -> None:
    settings = ShopSettings(topics=("order-events",), out_of_order=0, duplicates=0, late_sessions=0)
    placed: dict[int | str, OrderEvent] = {}
    parts = whole = without_lines = 0
    for *_, event in sent(60_000, settings):
        assert isinstance(event, OrderEvent)
        if event.event_type == "order.placed":
            placed[event.order_id] = event
            lines = sum(line.price * line.quantity for line in event.items)
            shipping = 3_000 if event.currency == "KRW" and lines < 50_000 else 0
            assert event.amount == lines + shipping
            continue
        order = placed[event.order_id]
        assert 0 <= event.amount <= order.amount
        if event.event_type in ("order.cancelled", "order.refunded"):
            parts += event.amount < order.amount
            whole += event.amount == order.amount
            without_lines += not event.items
    assert min(parts, whole, without_lines) > 50


def test_events_come_at_most_five_seconds_out_of_order_unless_late_or_sent_again() -> None:
    watermark: dict[int, int] = defaultdict(int)
    behind = Counter[str]()
    ids: set[str | None] = set()
    for _, key, _, event in sent(60_000):
        partition = key_hash(key, 4)
        gap = watermark[partition] - at_ms(event)
        watermark[partition] = max(watermark[partition], at_ms(event))
        if event.event_id in ids:
            behind["again"] += 1
            assert gap <= 15_000
        elif gap > 5_000:
            behind["late"] += 1
            assert 120_000 < gap <= 606_000
        elif gap > 0:
            behind["out of order"] += 1
        ids.add(event.event_id)
    assert 0.001 < behind["again"] / 60_000 < 0.004
    assert 0.001 < behind["late"] / 60_000 < 0.006
    assert 0.04 < behind["out of order"] / 60_000


def test_a_shop_without_faults_sends_everything_once_and_in_order() -> None:
    events = sent(20_000, ShopSettings(out_of_order=0, late_sessions=0, duplicates=0))
    times = [at_ms(event) for *_, event in events]
    assert times == sorted(times)
    assert len({event.event_id for *_, event in events}) == 20_000


def test_a_copy_is_the_same_to_the_byte(day: list[Emitted]) -> None:
    first: dict[str | None, bytes] = {}
    copies = 0
    for _, _, value, event in day:
        copies += event.event_id in first
        assert first.setdefault(event.event_id, value) == value
    assert copies > 50


def test_a_shop_that_opens_again_uses_new_ids() -> None:
    settings = ShopSettings()
    again = replace(settings, start_ms=settings.start_ms + 60_000)
    first = {event.event_id for *_, event in sent(5_000, settings)}
    assert first.isdisjoint(event.event_id for *_, event in sent(5_000, again))


def test_a_large_catalogue_opens() -> None:
    shop = open_shop(ShopSettings(products=50_000))
    assert len(shop.products) == 50_000
    assert all(product.price > 0 for product in shop.products)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("duplicates", 1.5),
        ("out_of_order", -0.1),
        ("late_sessions", float("nan")),
        ("topics", ("orders",)),
        ("topics", ()),
        ("events_per_s", 0),
        ("events_per_s", float("nan")),
        ("products", 1),
        ("users", 0),
        ("pairs", 501),
        ("zipf", -1),
        ("start_ms", 0),
    ],
)
def test_impossible_settings_are_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(MillraceError, match=setting.replace("users", "user")):
        replace(ShopSettings(), **{setting: value})  # type: ignore[arg-type]  # wrong on purpose
