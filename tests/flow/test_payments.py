"""What payments promise: each order is paid once or costs nothing, whatever dies, times out, or comes again."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from paying import CALM, ORDERS, PAYMENTS, Till, assert_at_rest, assert_conserved, paid_for, taken, till
from relaying import Died, Mortal

from streams.consuming import Again
from streams.events import OrderEvent
from topologies.orders.schema import OrderStatus, PaymentStatus
from topologies.payments.gateway import Charge, Charged, Declined, NoAnswer, Returned
from topologies.payments.local_gateway import LocalGateway, Manners, holdings
from topologies.payments.steps import Need, Standing

ROUGH = Manners(latency_s=0.0005, declines=0.2, timeouts=0.3, duplicates=0.3, timeout_s=0.001)
DECLINING = Manners(latency_s=0.0, declines=1.0, timeouts=0.0, duplicates=0.0)


class Away(LocalGateway):
    """Answers nothing, and may have done what it was asked."""

    does = False

    async def charge(self, charge: Charge) -> Charged | Declined:
        if self.does:
            await super().charge(charge)
        raise NoAnswer("away")

    async def give_back(self, key: str) -> Returned:
        raise NoAnswer("away")


@pytest.mark.parametrize(
    ("order", "payment", "need"),
    [
        ("placed", "requested", Need.CHARGE),
        ("cancelled", "requested", Need.GIVE_BACK),
        ("cancelled", "completed", Need.GIVE_BACK),
        ("refunded", "completed", Need.GIVE_BACK),
        ("placed", "completed", Need.NOTHING),
        ("paid", "completed", Need.NOTHING),
        ("placed", "failed", Need.NOTHING),
        ("cancelled", "failed", Need.NOTHING),
        ("cancelled", "refunded", Need.NOTHING),
        ("cancelled", "void", Need.NOTHING),
    ],
)
def test_what_is_asked_of_the_gateway_follows_from_order_and_payment(order: str, payment: str, need: Need) -> None:
    assert Standing(1, 1, OrderStatus(order), 1, "KRW", 0, PaymentStatus(payment)).need is need


async def test_an_order_is_paid_once_however_often_its_event_comes(tmp_path: Path) -> None:
    async with till(tmp_path) as shop:
        order = await shop.place(1_001, p1=2, p2=1)
        worker, saga = shop.worker(shop.gateway()), shop.saga()
        for _ in range(3):
            await worker(ORDERS, taken(order.event(), order.event()))
            await saga(PAYMENTS, paid_for(order.orderId))
        books = await shop.books()
    assert books.orders[order.orderId]["status"] == OrderStatus.PAID
    assert books.payments[order.orderId]["attempts"] == 1
    assert_at_rest(books)


async def test_an_order_whose_payment_is_declined_costs_nothing(tmp_path: Path) -> None:
    async with till(tmp_path) as shop:
        order = await shop.place(1_001, p1=2)
        await shop.worker(shop.gateway(DECLINING))(ORDERS, taken(order.event()))
        await shop.saga()(PAYMENTS, paid_for(order.orderId))
        books = await shop.books()
    assert books.orders[order.orderId]["status"] == OrderStatus.CANCELLED
    assert "payment failed" in books.orders[order.orderId]["reason"]
    assert_at_rest(books)


async def test_a_payment_of_an_order_that_is_cancelled_before_is_never_asked_for(tmp_path: Path) -> None:
    async with till(tmp_path) as shop:
        order = await shop.place(1_001, p1=2)
        await shop.cancel(order)
        worker = shop.worker(shop.gateway())
        await worker(ORDERS, taken(order.event()))
        books = await shop.books()
    assert worker.figures.requests == 0
    assert books.payments[order.orderId]["status"] == PaymentStatus.VOID
    assert_at_rest(books)


@pytest.mark.parametrize("settled", [False, True])
async def test_a_payment_of_an_order_that_is_cancelled_meanwhile_is_given_back(tmp_path: Path, settled: bool) -> None:
    async with till(tmp_path) as shop:
        order = await shop.place(1_001, p1=2)
        gateway = shop.gateway()

        class Meanwhile(LocalGateway):
            async def charge(self, charge: Charge) -> Charged | Declined:
                answer = await gateway.charge(charge)
                await shop.cancel(order)
                return answer

        asked = gateway if settled else Meanwhile(gateway.path, CALM)
        shop.opened.append(asked)
        await shop.worker(asked)(ORDERS, taken(order.event()))
        cancelled = await shop.cancel(order) if settled else order
        assert cancelled is not None
        await shop.saga()(PAYMENTS, paid_for(order.orderId))
        await shop.worker(gateway)(ORDERS, taken(cancelled.event()))
        books = await shop.books()
    assert books.payments[order.orderId]["status"] == PaymentStatus.REFUNDED
    assert_at_rest(books)


async def test_a_paid_order_that_is_refunded_has_its_payment_given_back_once(tmp_path: Path) -> None:
    async with till(tmp_path) as shop:
        order = await shop.place(1_001, p1=2)
        worker, saga = shop.worker(shop.gateway()), shop.saga()
        await worker(ORDERS, taken(order.event()))
        await saga(PAYMENTS, paid_for(order.orderId))
        refunded = await shop.refund(order)
        assert refunded is not None
        for _ in range(2):
            await worker(ORDERS, taken(order.event(), refunded.event()))
            await saga(PAYMENTS, paid_for(order.orderId))
        books = await shop.books()
    assert books.orders[order.orderId]["status"] == OrderStatus.REFUNDED
    assert books.movements == {f"order-{order.orderId}": 2}
    assert_at_rest(books)


async def test_a_worker_that_dies_between_the_gateway_and_its_commit_is_followed_by_one_that_pays_no_more(
    tmp_path: Path,
) -> None:
    async with till(tmp_path) as shop:
        order = await shop.place(1_001, p1=2)
        mortal = Mortal(shop.database)

        class Last(LocalGateway):
            async def charge(self, charge: Charge) -> Charged | Declined:
                answer = await super().charge(charge)
                mortal.dead = True
                return answer

        shop.opened.append(last := Last(tmp_path / "gateway.db", CALM))
        with pytest.raises(Died):
            await shop.worker(last, mortal)(ORDERS, taken(order.event()))
        assert (await shop.books()).payments[order.orderId]["status"] == PaymentStatus.REQUESTED
        assert holdings(tmp_path / "gateway.db")[f"order-{order.orderId}"].amount == order.amount
        await shop.worker(shop.gateway())(ORDERS, taken(order.event()))
        await shop.saga()(PAYMENTS, paid_for(order.orderId))
        books = await shop.books()
    assert books.orders[order.orderId]["status"] == OrderStatus.PAID
    assert_at_rest(books)


@pytest.mark.parametrize("does", [False, True])
async def test_not_knowing_is_no_answer_and_the_order_waits(tmp_path: Path, does: bool) -> None:
    async with till(tmp_path) as shop:
        order = await shop.place(1_001, p1=2)
        shop.opened.append(away := Away(tmp_path / "gateway.db", CALM))
        away.does = does
        with pytest.raises(Again):
            await shop.worker(away)(ORDERS, taken(order.event()))
        assert (await shop.books()).orders[order.orderId]["status"] == OrderStatus.PLACED
        await shop.worker(shop.gateway())(ORDERS, taken(order.event()))
        await shop.saga()(PAYMENTS, paid_for(order.orderId))
        books = await shop.books()
    assert books.orders[order.orderId]["status"] == OrderStatus.PAID
    assert_at_rest(books)


@pytest.mark.parametrize("does", [False, True])
async def test_an_order_that_nobody_answers_for_is_called_off_before_anything_is_given_back(
    tmp_path: Path, does: bool
) -> None:
    async with till(tmp_path) as shop:
        order = await shop.place(1_001, p1=2)
        shop.opened.append(away := Away(tmp_path / "gateway.db", CALM))
        away.does = does
        with pytest.raises(Again):
            await shop.worker(away, patience_s=0)(ORDERS, taken(order.event()))
        books = await shop.books()
        assert books.orders[order.orderId]["status"] == OrderStatus.CANCELLED
        assert books.payments[order.orderId]["status"] == PaymentStatus.REQUESTED
        assert_conserved(books)
        await shop.worker(shop.gateway())(ORDERS, taken(order.event()))
        await shop.saga()(PAYMENTS, paid_for(order.orderId))
        books = await shop.books()
    assert books.payments[order.orderId]["status"] == (PaymentStatus.REFUNDED if does else PaymentStatus.FAILED)
    assert_at_rest(books)


async def test_an_answer_that_comes_after_another_worker_has_moved_on_changes_nothing(tmp_path: Path) -> None:
    async with till(tmp_path) as shop:
        order = await shop.place(1_001, p1=2)
        asked, go_on = asyncio.Event(), asyncio.Event()

        class Slow(LocalGateway):
            async def charge(self, charge: Charge) -> Charged | Declined:
                asked.set()
                await go_on.wait()
                return await super().charge(charge)

        shop.opened.append(slow := Slow(tmp_path / "gateway.db", CALM))
        paused = asyncio.create_task(shop.worker(slow)(ORDERS, taken(order.event())))
        await asked.wait()
        worker, saga = shop.worker(shop.gateway()), shop.saga()
        await worker(ORDERS, taken(order.event()))
        await saga(PAYMENTS, paid_for(order.orderId))
        refunded = await shop.refund(order)
        assert refunded is not None
        await worker(ORDERS, taken(refunded.event()))
        go_on.set()
        await paused
        books = await shop.books()
    assert books.payments[order.orderId]["status"] == PaymentStatus.REFUNDED
    assert_at_rest(books)


async def test_what_strangers_say_of_payments_and_orders_changes_nothing(tmp_path: Path) -> None:
    async with till(tmp_path) as shop:
        order = await shop.place(1_001, p1=2)
        before = await shop.books()
        worker = shop.worker(shop.gateway())
        await shop.saga()(PAYMENTS, paid_for(order.orderId, order.orderId + 1, 7))
        await worker(ORDERS, taken(*(OrderEvent(n, 1, 1, event_id=str(n)) for n in (7, "x", order.orderId + 1))))
        assert await shop.books() == before
    assert worker.figures.requests == 0


@pytest.mark.parametrize("seed", range(3))
async def test_every_order_ends_paid_once_or_costs_nothing_whatever_dies_and_times_out(
    tmp_path: Path, seed: int
) -> None:
    """Workers and sagas, two of each at once, are killed anywhere; customers cancel and refund meanwhile."""
    chance = random.Random(seed)
    async with till(tmp_path) as shop:
        placed = [await shop.place(chance.choice((1_001, 1_002, 123)), p1=1, p3=2) for _ in range(25)]
        for round_ in range(15):
            mortals = [Mortal(shop.database) for _ in range(4)]
            at_work = [asyncio.create_task(one) for one in _work(shop, mortals, placed, chance, 100 * seed + round_)]
            await asyncio.sleep(chance.choice((0.002, 0.01, 0.05)))
            await (shop.cancel if chance.random() < 0.5 else shop.refund)(chance.choice(placed))
            for mortal in mortals:
                mortal.dead = True
            for task in at_work:
                task.cancel()
            await asyncio.gather(*at_work, return_exceptions=True)
            await asyncio.gather(*(asked for mortal in mortals for asked in mortal.asked), return_exceptions=True)
            assert_conserved(await shop.books())
        events = [order.event() for order in placed]
        for _ in range(2):
            await shop.worker(shop.gateway(Manners(0.0, ROUGH.declines, 0.0, 0.0)))(ORDERS, taken(*events))
            await shop.saga()(PAYMENTS, paid_for(*(order.orderId for order in placed)))
        books = await shop.books()
    assert_at_rest(books)
    assert {order["status"] for order in books.orders.values()} >= {OrderStatus.PAID, OrderStatus.CANCELLED}


def _work(shop: Till, mortals: list[Mortal], placed: list[Any], chance: random.Random, seed: int) -> list[Any]:
    some = chance.sample(placed, 12)
    gateways = [shop.gateway(ROUGH, seed), shop.gateway(ROUGH, seed + 50)]
    patience_s = chance.choice((0.0, 60.0))
    workers = [
        shop.worker(gateway, mortal, patience_s=patience_s, tries=2)
        for gateway, mortal in zip(gateways, mortals[:2], strict=True)
    ]
    sagas = [shop.saga(mortal) for mortal in mortals[2:]]
    work = [worker(ORDERS, taken(*(order.event() for order in some))) for worker in workers]
    return work + [saga(PAYMENTS, paid_for(*(order.orderId for order in placed))) for saga in sagas]


async def test_a_gateway_takes_the_money_of_a_key_once_and_gives_it_back_once(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    gateway, other = LocalGateway(path, CALM), LocalGateway(path, CALM)
    charge = Charge("order-1", 500, "KRW")
    assert {await one.charge(charge) for one in (gateway, other, gateway)} == {Charged("local-order-1")}
    assert isinstance(await gateway.charge(Charge("order-1", 600, "KRW")), Declined)
    assert [await gateway.give_back("order-1") for _ in range(2)] == [Returned(500)] * 2
    assert isinstance(await other.charge(charge), Declined)
    assert await gateway.give_back("order-2") == Returned(0)
    assert isinstance(await gateway.charge(Charge("order-2", 1, "KRW")), Declined)
    assert {key: (one.amount, one.movements) for key, one in holdings(path).items()} == {"order-1": (0, 2)}
    await gateway.close()
    await other.close()


async def test_the_local_gateway_declines_the_same_keys_each_time_and_loses_answers_before_and_after(
    tmp_path: Path,
) -> None:
    manners = Manners(latency_s=0.0, declines=0.3, timeouts=0.5, duplicates=0.0, timeout_s=0.0)
    gateway = LocalGateway(tmp_path / "gateway.db", manners, random.Random(2))
    answers: dict[int, Any] = {}
    for number in range(200):
        try:
            answers[number] = await gateway.charge(Charge(f"order-{number}", 1, "KRW"))
        except NoAnswer:
            answers[number] = None
    held = holdings(gateway.path)
    declined = {n for n in answers if manners.declined(f"order-{n}") is not None}
    assert 40 < len(declined) < 80
    assert {n for n, answer in answers.items() if isinstance(answer, Declined)} <= declined
    lost = {n for n, answer in answers.items() if answer is None} - declined
    assert 0 < len([n for n in lost if f"order-{n}" in held]) < len(lost)
    await gateway.close()
