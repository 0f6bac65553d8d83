"""Orders hold to their laws on every database: SQLite always, MariaDB and PostgreSQL where they are asked for."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ordering import (
    OTHER,
    PIECES,
    POINTS,
    PRICE,
    USER,
    USERS,
    Bookkeeping,
    all_of,
    bookkeeping,
    fresh_database,
    sqlite_url,
)
from sqlalchemy import URL, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from streams.codecs import user_key
from topologies.orders.database import Busy, Database
from topologies.orders.order import event_id
from topologies.orders.placing import Placed, Placing
from topologies.orders.refusals import KeyReused, NotEnoughPoints, OutOfStock, UnknownProduct, UnknownUser
from topologies.orders.schema import FIRST_ORDER, OrderStatus, orders, outbox, products
from topologies.views.problems import Problem

SERVERS = [pytest.param(name, marks=pytest.mark.databases) for name in ("mariadb", "postgresql")]


@pytest.fixture(params=["sqlite", *SERVERS])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    return await fresh_database(request.getfixturevalue(f"{request.param}_server"))


@pytest.fixture
async def shop(url: URL) -> AsyncIterator[Bookkeeping]:
    async with bookkeeping(url) as shop:
        yield shop


async def test_an_order_takes_stock_and_points_and_tells_of_it(shop: Bookkeeping) -> None:
    placed = await shop.place({2: 1, 1: 3})
    amount = 3 * PRICE[1] + PRICE[2]
    assert placed.is_new
    assert placed.order.amount == placed.order.pointsUsed == amount
    assert placed.order.orderId >= FIRST_ORDER
    assert [(item.productId, item.quantity, item.price) for item in placed.order.items] == [
        (1, 3, PRICE[1]),
        (2, 1, PRICE[2]),
    ]
    assert (await shop.left(1), await shop.left(2)) == (PIECES - 3, PIECES - 1)
    assert await shop.points() == POINTS - amount
    (event,) = await shop.events()
    assert (event.event_type, event.order_id, event.user_id, event.amount) == (
        "order.placed",
        placed.order.orderId,
        USER,
        amount,
    )
    assert event.event_id == event_id(placed.order.orderId, OrderStatus.PLACED)
    assert event.region == placed.order.region == "seoul"
    assert event.occurred_at == placed.order.createdAtMs
    assert sum(line.price * line.quantity for line in event.items) == amount
    assert [line.category for line in event.items] == ["stationery", "stationery"]
    await shop.assert_conserved()


@pytest.mark.parametrize(
    ("user", "quantities", "problem"),
    [
        (9, {1: 1}, UnknownUser),
        (USER, {1: 1, 99: 1}, UnknownProduct),
        (USER, {1: 1, 2: PIECES + 1}, NotEnoughPoints),
        (USER, {1: 29}, NotEnoughPoints),
        (USER, {1: 10**15}, NotEnoughPoints),
    ],
)
async def test_what_is_refused_leaves_no_trace(
    shop: Bookkeeping, user: int, quantities: dict[int, int], problem: type[Problem]
) -> None:
    before = await shop.everything()
    with pytest.raises(problem):
        await shop.place(quantities, user, "a key")
    assert await shop.everything() == before


async def test_what_is_out_of_stock_says_what_is_left_and_takes_nothing(shop: Bookkeeping) -> None:
    async def sell_out(connection: AsyncConnection) -> None:
        await connection.execute(update(products).where(products.c.id == 2).values(stock=1))

    await shop.database.write(sell_out)
    before = await shop.everything()
    with pytest.raises(OutOfStock) as refused:
        await shop.place({1: 1, 2: 2})
    assert refused.value.body["available"] == 1
    assert await shop.everything() == before


async def test_what_fails_before_the_commit_leaves_no_trace(shop: Bookkeeping) -> None:
    before = await shop.everything()

    async def broken(connection: AsyncConnection) -> None:
        await shop.counter.place(connection, Placing(USER, {1: 1}))
        raise RuntimeError("the process would have died here")

    with pytest.raises(RuntimeError):
        await shop.database.write(broken)
    assert await shop.everything() == before


async def test_the_same_key_is_the_same_order_however_often_and_at_once(shop: Bookkeeping) -> None:
    placed: list[Placed] = await all_of(*(shop.place({1: 1}, key="k") for _ in range(8)))
    again = await shop.place({1: 1}, key="k")
    assert {one.order.orderId for one in [*placed, again]} == {again.order.orderId}
    assert [one.is_new for one in placed].count(True) == 1
    assert again.order == placed[0].order
    assert await shop.left(1) == PIECES - 1
    await shop.assert_conserved()


async def test_a_key_is_one_users_and_of_one_body(shop: Bookkeeping) -> None:
    mine = await shop.place({1: 1}, key="k")
    theirs = await shop.place({1: 1}, OTHER, key="k")
    others = [await shop.place({1: 1}, key=key) for key in ("K", "k.", "kk")]
    assert len({one.order.orderId for one in [mine, theirs, *others]}) == 5
    with pytest.raises(KeyReused):
        await shop.place({1: 2}, key="k")
    await shop.assert_conserved()


async def test_a_repeat_shows_the_order_as_it_is_now(shop: Bookkeeping) -> None:
    placed = await shop.place({1: 1}, key="k")
    await shop.cancel(placed.order.orderId)
    again = await shop.place({1: 1}, key="k")
    assert again.order.status == OrderStatus.CANCELLED
    assert await shop.left(1) == PIECES


async def test_nothing_is_sold_twice_however_many_want_it(url: URL) -> None:
    async with bookkeeping(url, pieces=7) as shop:
        users = [USER, *range(OTHER, OTHER + USERS)]
        found = await all_of(*(shop.place({1: 1}, random.choice(users)) for _ in range(40)))
        assert sum(isinstance(one, Placed) for one in found) == 7
        assert sum(isinstance(one, OutOfStock) for one in found) == 33
        assert await shop.left(1) == 0
        await shop.assert_conserved(pieces=7)


async def test_points_are_spent_once_however_many_orders_come_at_once(shop: Bookkeeping) -> None:
    found = await all_of(*(shop.place({3: 1}) for _ in range(20)))
    assert sum(isinstance(one, Placed) for one in found) == POINTS // PRICE[3]
    assert sum(isinstance(one, NotEnoughPoints) for one in found) == 20 - POINTS // PRICE[3]
    await shop.assert_conserved()


async def test_orders_of_the_same_products_do_not_block_each_other_for_good(shop: Bookkeeping) -> None:
    chance = random.Random(8)
    wanted = [dict.fromkeys(chance.sample(range(1, 6), 3), 1) for _ in range(40)]
    users = [USER, *range(OTHER, OTHER + USERS)]
    found = await all_of(*(shop.place(one, users[n % len(users)]) for n, one in enumerate(wanted)))
    assert [one for one in found if not isinstance(one, Placed | NotEnoughPoints)] == []
    await shop.assert_conserved()


async def test_outbox_ids_of_a_user_ascend_with_what_happened(shop: Bookkeeping) -> None:
    users = [USER, OTHER]
    placed = await all_of(*(shop.place({1: 1}, users[n % 2]) for n in range(12)))
    await all_of(*(shop.cancel(one.order.orderId) for one in placed))

    async def rows(connection: AsyncConnection) -> list[tuple[bytes, int]]:
        found = await connection.execute(select(outbox.c.record_key, outbox.c.created_at_ms).order_by(outbox.c.id))
        return [tuple(row) for row in found]

    told = await shop.database.read(rows)
    for user in users:
        times = [at for key, at in told if key == user_key(user)]
        assert len(times) == 12
        assert times == sorted(times)


async def test_an_order_moves_on_once_and_gives_back_once(shop: Bookkeeping) -> None:
    first = (await shop.place({1: 2})).order.orderId
    assert await shop.refund(first) is None
    paid = await shop.pay(first)
    assert paid is not None
    assert (paid.status, paid.holds) == (OrderStatus.PAID, True)
    assert await shop.pay(first) is None
    assert await shop.cancel(first) is None
    refunded = await shop.refund(first)
    assert refunded is not None
    assert (refunded.status, refunded.reason, refunded.holds) == (OrderStatus.REFUNDED, "a test", False)
    assert await shop.refund(first) is None
    assert (await shop.left(1), await shop.points()) == (PIECES, POINTS)
    assert [event.event_type for event in await shop.events()] == ["order.placed", "order.paid", "order.refunded"]
    assert all(event.amount == 2 * PRICE[1] and len(event.items) == 1 for event in await shop.events())
    await shop.assert_conserved()


async def test_of_a_payment_and_a_cancellation_one_comes_first(shop: Bookkeeping) -> None:
    for _ in range(5):
        order = (await shop.place({1: 1})).order.orderId
        steps = await all_of(shop.pay(order), shop.cancel(order), shop.cancel(order), shop.pay(order))
        assert sum(one is not None for one in steps) == 1
    await shop.assert_conserved()


async def test_an_order_that_is_none_moves_nowhere(shop: Bookkeeping) -> None:
    before = await shop.everything()
    assert [await shop.pay(5), await shop.cancel(5), await shop.refund(5)] == [None, None, None]
    assert await shop.everything() == before


@pytest.mark.parametrize("seed", range(3))
async def test_books_balance_whatever_happens_in_whatever_order(shop: Bookkeeping, seed: int) -> None:
    chance, ids = random.Random(seed), list[int]()

    async def something() -> Any:
        user = chance.choice([USER, *range(OTHER, OTHER + USERS)])
        if not ids or chance.random() < 0.5:
            quantities = {chance.randint(1, 5): chance.randint(1, 9) for _ in range(chance.randint(1, 3))}
            placed = await shop.place(quantities, user, chance.choice([None, None, "a", "b"]))
            ids.append(placed.order.orderId)
            return placed
        return await chance.choice([shop.pay, shop.cancel, shop.refund])(chance.choice(ids))

    for _ in range(6):
        found = await all_of(*(something() for _ in range(12)))
        assert [one for one in found if isinstance(one, Exception) and not isinstance(one, Problem)] == []
    await shop.assert_conserved()


async def test_who_waits_too_long_for_a_user_is_told_that_it_is_busy(url: URL) -> None:
    async with bookkeeping(url) as shop, Database.open(url, wait_s=0.5) as impatient:
        held, release = asyncio.Event(), asyncio.Event()

        async def hold(connection: AsyncConnection) -> None:
            await shop.counter.place(connection, Placing(USER, {1: 1}))
            held.set()
            await release.wait()

        holding = asyncio.create_task(shop.database.write(hold))
        await held.wait()
        with pytest.raises(Busy):
            await impatient.write(lambda connection: shop.counter.place(connection, Placing(USER, {1: 1})))
        release.set()
        await holding
        assert len(await shop.events()) == 1
        await shop.assert_conserved()


async def test_readers_do_not_wait_for_who_writes(shop: Bookkeeping) -> None:
    async def write(connection: AsyncConnection) -> None:
        await shop.counter.place(connection, Placing(USER, {1: 1}))
        assert await shop.points() == POINTS  # by another connection, beside this one

    await shop.database.write(write)
    assert await shop.points() == POINTS - PRICE[1]


async def test_order_ids_begin_beyond_all_others_and_are_never_used_again(shop: Bookkeeping) -> None:
    first = (await shop.place({1: 1})).order.orderId
    assert first >= FIRST_ORDER

    async def undone(connection: AsyncConnection) -> None:
        await shop.counter.place(connection, Placing(USER, {1: 1}))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await shop.database.write(undone)
    assert (await shop.place({1: 1})).order.orderId > first

    async def count(connection: AsyncConnection) -> list[int]:
        return list((await connection.execute(select(orders.c.id))).scalars())

    assert len(await shop.database.read(count)) == 2
