"""A bot that never stops, and a product that all look at: memory stays flat, and nobody else's answers change."""

import gc
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from behaving import PARTITIONS, Sent, behaviour, feed, recommendations, simulated

from streams.codecs import encode, user_key
from streams.events import OrderEvent, UserActivity
from streams.memory_log import MemoryLog
from streams.partitioners import key_hash
from streams.topics import ORDER_EVENTS, USER_ACTIVITY
from tables.accumulators import STATES
from topologies.driver import Driver

BOT = 4_242
HOT = "hot"
VIEWS = 100_000
START_MS = 1_735_689_600_000
# 25 views a second, an hour and more: blocks of the longest chain included
APART_MS = 40


def views(count: int, first: int = 0, products: int = 2_000, prefix: str = "p") -> Iterator[Sent]:
    """A bot's views of one product after the other, around the whole catalogue again and again."""
    key = user_key(BOT)
    for number in range(first, first + count):
        at = START_MS + number * APART_MS
        event = UserActivity(
            "product.viewed", BOT, f"bot-{number}", "bot", f"{prefix}{number % products}", "books", None, at
        )
        yield Sent(USER_ACTIVITY.name, key, encode(event), event, at)


def with_hot(stream: Any) -> Iterator[Sent]:
    """The stream where every look is followed by one at the hot product: it is in every session."""
    for sent in stream:
        yield sent
        event = sent.event
        if isinstance(event, UserActivity) and event.event_type == "product.viewed":
            hot = UserActivity(
                "product.viewed", event.user_id, f"hot-{event.event_id}", event.session_id, HOT, "books", None,
                event.occurred_at,
            )  # fmt: skip
            yield sent._replace(value=encode(hot), event=hot)


def woven(*streams: Any) -> list[Sent]:
    """Streams as one, by time; each keeps its order."""
    return sorted((sent for stream in streams for sent in stream), key=lambda sent: sent.at)


def published(stream: Any, *, users: bool = False) -> dict[bytes, bytes]:
    """What is published of products, or of users, at the end."""
    with Driver(behaviour()) as first:
        feed(first, stream)
        first.flush()
        with Driver(recommendations(), log=first.log) as second:
            second.flush()
            second.publish()
            topic = "user-recommendations" if users else "product-recommendations"
            return {r.key: r.value for r in second.records(topic) if r.key is not None and r.value is not None}


def close_sessions(driver: Driver) -> int:
    """Let another user come to the bot's partition much later, so that the session is over; returns when, in ms."""
    at = START_MS + VIEWS * APART_MS + 3_600_000
    number = key_hash(user_key(BOT), PARTITIONS)
    activity = UserActivity("checkout.started", 1, "last", occurred_at=at)
    order = OrderEvent(1, 1, 5, "last", occurred_at=at)
    driver.feed(USER_ACTIVITY.name, encode(activity), partition=number, timestamp_ms=at)
    driver.feed(ORDER_EVENTS.name, encode(order), partition=number, timestamp_ms=at)
    return at


def own_rss() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss) / 2**20


def bot_states(driver: Driver) -> dict[str, int]:
    """The largest state, in encoded bytes, that any table holds in memory or on disk for the bot."""
    sizes: dict[str, int] = {}
    for partition in driver.worker.engine.partitions.values():
        for fed in partition.feeds.values():
            for cache in fed.caches:
                for _, key, cell in cache.between(0, 2**52):
                    if key == str(BOT):
                        size = len(cache.table.row.encode(cell, 0))
                        sizes[cache.table.name] = max(size, sizes.get(cache.table.name, 0))
                        assert len(cell) > STATES
    return sizes


@pytest.mark.parametrize("products", [40, 5_000])
def test_a_bot_changes_no_neighbours_of_others_byte_for_byte(products: int) -> None:
    stream = simulated()
    bot = list(views(6_000, products=products, prefix=""))  # the shop's own products, and others
    plain, beside = published(stream), published(woven(stream, bot))
    assert len(plain) == 40
    assert beside == plain


def test_a_hot_product_changes_no_other_pair() -> None:
    stream = simulated()
    plain: dict[tuple[int, str], Any] = {}
    hot: dict[tuple[int, str], Any] = {}
    for into, source in ((plain, stream), (hot, list(with_hot(stream)))):
        with Driver(behaviour()) as first:
            feed(first, source)
            first.flush()
            with Driver(recommendations(), log=first.log) as second:
                second.flush()
                into |= second.rows("baskets_by_product")
    assert {key for _, key in hot} - {key for _, key in plain} == {HOT}
    for cell, row in plain.items():
        found = hot[cell]
        assert found["seen_with"]["counts"].pop(HOT, 0) == row["seen"]
        assert found == row


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_is_flat_through_a_bots_hundred_thousand_views(capsys: pytest.CaptureFixture[str]) -> None:
    log = MemoryLog()
    readings: list[tuple[int, float, int, dict[str, int]]] = []
    piece = VIEWS // 10
    with Driver(behaviour(), log=log) as first, Driver(recommendations(), log=log) as second:
        for start in range(0, VIEWS, piece):
            for sent in views(piece, start):
                first.feed(sent.topic, sent.value, sent.key, timestamp_ms=sent.at)
            first.flush()
            second.flush()
            sizes = bot_states(first) | bot_states(second)
            cells = sum(
                cache.cells()
                for driver in (first, second)
                for partition in driver.worker.engine.partitions.values()
                for fed in partition.feeds.values()
                for cache in fed.caches
            )
            for topic in log.topics():
                if topic != "product-baskets":
                    log.forget(topic)  # the log is the test's own memory
            readings.append((start + piece, own_rss(), cells, sizes))
        end = close_sessions(first)
        first.flush()
        second.flush()
        (session,) = first.values("user-sessions")
        assert (session["userId"], session["events"], session["truncated"]) == (str(BOT), VIEWS, True)
        assert session["end"] < end
        assert not second.records("product-baskets")
    with capsys.disabled():
        for count, rss, cells, sizes in readings:
            print(f"\n{count:>7,} views: {rss:.0f} MiB, {cells:,} cells in memory, largest states {sizes}", end="")
    assert max(max(sizes.values()) for *_, sizes in readings) < 20_000
    half, whole = readings[4], readings[-1]
    assert whole[1] - half[1] < 15
