"""The recommendations topology over the log of behaviour's: counts and neighbours are those of a batch computation."""

from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Literal

import msgspec
import pytest
from behaving import Sent, behaviour, booked, counted, done, recommendations, simulated, troubled

from agents.baskets import by_product, is_counted
from agents.neighbours import DAY_MS
from streams.codecs import encode
from streams.events import Neighbourhood, OrderEvent, ProductBasket, ProductNeighbours, UserActivity
from streams.log import TP, Entry
from streams.memory_log import MemoryLog
from streams.simulator.behaviour_ledger import Together
from tables.accumulators import STATES, encode_key
from tables.forwarding import writable
from topologies.chaos.recommendations import Days, settle
from topologies.driver import Driver

START_MS = 1_767_225_600_000
TABLES = ("interest_by_product", "interest_by_search", "recent_by_user", "bought_by_user", "baskets_by_product")


@pytest.fixture(scope="module")
def shop_log() -> Iterator[MemoryLog]:
    """The shop's log, with the sessions that behaviour has found in it; only to be copied."""
    with done(behaviour(), simulated()) as driver:
        yield driver.log


@pytest.fixture
def log(shop_log: MemoryLog) -> MemoryLog:
    """A copy of one's own."""
    own = MemoryLog()
    for topic, partitions in shop_log.topics().items():
        for number in partitions:
            for record in shop_log.records(TP(topic, number)):
                own.put(TP(topic, number), Entry(record.key, record.value, record.headers), record.timestamp)
    return own


def same(found: Together, expected: Together) -> None:
    assert found.products == expected.products
    assert found.pairs == expected.pairs


def test_pair_counts_are_those_of_a_batch_computation(log: MemoryLog) -> None:
    ledger = booked(simulated())
    with done(recommendations(), [], log) as driver:
        same(counted(driver, "seen"), ledger.seen())
        same(counted(driver, "bought"), ledger.bought())
        assert len(ledger.seen().pairs) > 200
        assert len(ledger.bought().pairs) > 10


@pytest.mark.parametrize("workers", [1, 2])
def test_pair_counts_survive_crashes_torn_flushes_and_moves(workers: int, log: MemoryLog) -> None:
    ledger = booked(simulated())
    with Driver(recommendations(), log=log) as driver:
        troubled(driver, [], seed=workers, workers=workers)
        same(counted(driver, "seen"), ledger.seen())
        same(counted(driver, "bought"), ledger.bought())


def test_pair_counts_survive_trouble_in_both_groups_at_once() -> None:
    stream = simulated()[:1_500]
    ledger = booked(stream)
    with Driver(behaviour()) as first, Driver(recommendations(), log=first.log) as second:
        for start in range(0, len(stream), 250):
            troubled(first, stream[start : start + 250], seed=start, pieces=5)
            troubled(second, [], seed=start + 1)
        same(counted(second, "seen"), ledger.seen())
        same(counted(second, "bought"), ledger.bought())


def renamed(product: int | str | None) -> int | str | None:
    """Every third product has an id that is too long to be counted, every third the longest that is."""
    if product is None:
        return None
    return [product, f"{product:가>160}", f"{product:가>170}"][int(product) % 3]


def with_long_ids(stream: Sequence[Sent]) -> list[Sent]:
    found = []
    for sent in stream:
        event = sent.event
        if isinstance(event, OrderEvent):
            lines = [msgspec.structs.replace(line, product_id=renamed(line.product_id)) for line in event.items]
            event = msgspec.structs.replace(event, items=tuple(lines))
        elif isinstance(event, UserActivity):
            event = msgspec.structs.replace(event, product_id=renamed(event.product_id))
        found.append(sent._replace(event=event, value=encode(event)))
    return found


def test_pair_counts_of_products_with_long_ids_are_those_of_a_batch_computation() -> None:
    stream = with_long_ids(simulated()[:1_500])
    ledger = booked(stream)
    with done(behaviour(), stream) as first, Driver(recommendations(), log=first.log) as second:
        troubled(second, [], seed=6, workers=2)
        same(counted(second, "seen"), ledger.seen())
        same(counted(second, "bought"), ledger.bought())
    counts = {len(product) for product in ledger.seen().products}
    assert 160 in counts
    assert max(counts) == 160


@pytest.mark.parametrize(
    ("letter", "chars"),
    [("x", 256), ("я", 240), ("я", 256), ("가", 160), ("가", 256), ("\U00010000", 120), ("\U00010000", 256)],
)
def test_no_cell_of_a_products_baskets_is_too_large_to_be_written(letter: str, chars: int) -> None:
    (table,) = (table for table in recommendations().group.tables if table.name == "baskets_by_product")
    cell, aggregates = table.row.new_cell(), list(table.row.aggregates.values())
    kinds: tuple[Literal["seen", "bought"], ...] = ("seen", "bought")
    for first in range(0, 1_000, 49):
        others = [f"{letter * (chars - 4)}{n:04}" for n in range(first, min(first + 49, 1_000))]
        for kind in kinds:
            ((_, *values),) = by_product(ProductBasket("b", kind, ("own", *others), ("own",), START_MS))
            for place, aggregate in enumerate(aggregates, STATES):
                cell[place] = aggregate.add(cell[place], values[place - STATES])
    for counts, _ in cell[-2:]:
        counts.update(dict.fromkeys(counts, 2**32 - 1))
    key, value = encode_key(START_MS, "\U00010000" * 120), table.row.encode(cell, 0)
    assert writable(key, value).value == value
    assert [len(counts) for counts, _ in cell[-2:]] == [1_000 if is_counted(letter * chars) else 0] * 2


def test_published_neighbours_are_those_of_a_batch_computation(log: MemoryLog) -> None:
    seen, bought = booked(simulated()).seen(), booked(simulated()).bought()
    with done(recommendations(), [], log) as driver:
        driver.publish()
        published = {row["productId"]: row for row in driver.latest("product-recommendations").values()}
    assert published.keys() == seen.products.keys() | bought.products.keys()
    for product, row in published.items():
        for kind, together in (("seen", seen), ("bought", bought)):
            rows = [(one["productId"], one["score"], one["together"]) for one in row[kind]["neighbours"]]
            assert rows == cosines(together, product)[:50]


@pytest.mark.parametrize("half_life", [0.1, 1.5, 7.0])
@pytest.mark.parametrize("first_ms", [0, 946_684_800_000, 1_767_225_600_000, 2_871_763_200_000])
def test_decayed_neighbours_are_a_function_of_the_table_in_any_year(half_life: float, first_ms: int) -> None:
    topology = recommendations(half_life_days=half_life)
    with Driver(topology) as driver, Driver(topology, log=driver.log) as at_once:
        old = ProductNeighbours("p1", Neighbourhood(1, 2.0**100), Neighbourhood(1, 2.0**100), 0)
        driver.log.put(TP("product-recommendations", 0), Entry(b"product-p1", encode(old)))
        for day in range(4):
            for n in range(12):
                lines = [{"productId": f"p{product}"} for product in {n % 5, n % 7, day}]
                order = {"orderId": 12 * day + n, "userId": n, "amount": 5, "items": lines}
                driver.feed("order-events", order, f"user-{n}", timestamp_ms=first_ms + day * DAY_MS)
            driver.flush()
            driver.publish()
        live, written = driver.latest("product-recommendations"), len(driver.records("product-recommendations"))
        driver.restart(wipe=True)
        driver.flush()
        driver.publish()
        assert len(driver.records("product-recommendations")) == written
        at_once.flush()
        days: Days = {}
        for (start, product), row in at_once.rows("baskets_by_product").items():
            tallies = [(row[name]["counts"], row[name]["error"]) for name in ("seen_with", "bought_with")]
            days.setdefault(product, []).append((start, row["seen"], row["bought"], *tallies))
    expected = {f"product-{product}": one for product, one in settle(days, half_life).items()}
    assert {key: msgspec.convert(one, ProductNeighbours) for key, one in live.items()} == expected
    assert all(neighbour.score > 0 for one in expected.values() for neighbour in one.bought.neighbours)


def cosines(together: Together, product: str) -> list[tuple[str, float, int]]:
    """All neighbours of a product, nearest first."""
    n = together.products
    pairs = {(a if b == product else b): c for (a, b), c in together.pairs.items() if product in (a, b)}
    scored = [(other, count / sqrt(n[product] * n[other]), count) for other, count in pairs.items()]
    return sorted(scored, key=lambda one: (-one[1], one[0]))


def test_a_replay_of_every_table_equals_the_live_run(log: MemoryLog) -> None:
    with Driver(recommendations(), log=log) as live, done(behaviour(), simulated()) as first:
        troubled(live, [], seed=4, workers=2)
        with done(recommendations(), [], first.log) as replay:
            for name in TABLES:
                assert live.digest(name) == replay.digest(name)
            same(counted(live, "seen"), counted(replay, "seen"))


def test_user_recommendations_name_no_bought_product_and_give_reasons(log: MemoryLog) -> None:
    with done(recommendations(), [], log) as driver:
        driver.publish()
        rows = driver.latest("user-recommendations").values()
        bought = {key: row for (_, key), row in driver.rows("bought_by_user").items()}
    assert len(rows) > 30
    for row in rows:
        had = {product for order in bought.get(row["userId"], {"orders": {"moments": []}})["orders"]["moments"]
               for product in order[3:]}  # fmt: skip
        assert row["recommendations"]
        for one in row["recommendations"]:
            assert one["productId"] not in had
            assert one["reason"].startswith(f"{one['action']} {one['because']}, often ")


def bought(driver: Driver, user: int, products: list[str], at_ms: int) -> None:
    items = [{"productId": product} for product in products]
    order = {"orderId": f"{user}-{at_ms}", "userId": user, "amount": 5, "occurredAt": at_ms, "items": items}
    driver.feed("order-events", order, f"user-{user}", timestamp_ms=at_ms)


def recommended(driver: Driver, user: int) -> list[str]:
    found = driver.latest("user-recommendations")[f"user-{user}"]
    return [one["productId"] for one in found["recommendations"]]


@pytest.mark.parametrize("wipe", [False, True])
def test_what_a_user_without_activity_bought_before_a_crash_is_recommended_no_longer(wipe: bool) -> None:
    with Driver(recommendations()) as driver:
        for user in range(10, 20):
            bought(driver, user, ["A", "B"], START_MS)
        driver.flush()
        driver.publish()
        bought(driver, 9, ["A"], START_MS + 1)
        driver.flush()
        driver.publish()
        assert recommended(driver, 9) == ["B"]
        bought(driver, 9, ["B"], START_MS + DAY_MS)
        driver.flush()
        driver.restart(wipe=wipe)
        driver.publish()
        assert recommended(driver, 9) == []
