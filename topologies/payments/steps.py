"""What has to happen with an order's payment, and how that is written down, for several orders in a transaction.

    order      payment     needed
    placed     none        CHARGE, after it is written down as requested
    placed     requested   CHARGE: whoever asked before may have died
    cancelled  none        nothing: written down as void, and never asked for
    cancelled  requested   GIVE_BACK: whether it was taken is not known
    cancelled  completed   GIVE_BACK (refunded orders likewise)
    any        failed, refunded, void, and what is completed as it should be: nothing

Every transaction locks its users first, in the order of their ids, then reads: what it decides is still so when it
commits. A payment moves by compare-and-set, with its events in the outbox of the same transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from streams.events import NAME_CHARS, PaymentNotification, PaymentType
from topologies.orders.outbox import Post, now_ms, post
from topologies.orders.schema import OrderStatus, PaymentStatus, orders, payments, users

HELD: Final = (OrderStatus.PLACED, OrderStatus.PAID)


class Need(Enum):
    """What has to be asked of the gateway."""

    NOTHING = auto()
    CHARGE = auto()
    GIVE_BACK = auto()


@dataclass(frozen=True)
class Standing:
    """An order and its payment, as of a transaction."""

    order_id: int
    user_id: int
    order: OrderStatus
    amount: int
    currency: str
    created_at_ms: int
    payment: PaymentStatus | None

    @property
    def need(self) -> Need:
        """What has to be asked of the gateway now."""
        wanted = self.order in HELD
        if self.payment is PaymentStatus.REQUESTED:
            return Need.CHARGE if wanted else Need.GIVE_BACK
        if self.payment is PaymentStatus.COMPLETED and not wanted:
            return Need.GIVE_BACK
        return Need.NOTHING

    @property
    def key(self) -> str:
        """What the gateway knows the payment by."""
        return f"order-{self.order_id}"


@dataclass(frozen=True)
class Outcome:
    """What the gateway has answered about a payment that stood so; `taken` says that it was charged at any time."""

    standing: Standing
    payment: PaymentStatus
    attempts: int
    taken: bool
    gateway_id: str | None = None
    reason: str | None = None

    def types(self) -> list[PaymentType]:
        """The events that tell of it: what is given back was taken, and whoever adds them up has to know of both."""
        told: list[PaymentType] = []
        if self.taken and self.standing.payment is PaymentStatus.REQUESTED:
            told.append("payment.completed")
        if self.payment is PaymentStatus.REFUNDED:
            told.append("payment.refunded")
        if self.payment is PaymentStatus.FAILED:
            told.append("payment.failed")
        return told


async def begin(connection: AsyncConnection, order_ids: Sequence[int]) -> dict[int, Standing]:
    """How these orders stand, with payments written down as requested or void where there was none.

    Orders that the database does not know are left out.
    """
    found = await _locked(connection, order_ids)
    fresh = [replace(one, payment=_first(one.order)) for one in found.values() if one.payment is None]
    at_ms = now_ms()
    if fresh:
        rows = [{"order_id": one.order_id, "status": one.payment, "amount": one.amount} for one in fresh]
        await connection.execute(insert(payments), [{**row, "attempts": 0, "updated_at_ms": at_ms} for row in rows])
    return found | {one.order_id: one for one in fresh}


def _first(order: OrderStatus) -> PaymentStatus:
    return PaymentStatus.REQUESTED if order in HELD else PaymentStatus.VOID


async def settle(connection: AsyncConnection, outcomes: Sequence[Outcome], topic: str) -> dict[int, Standing]:
    """Write down what the gateway answered, with its events; returns how the orders stand now.

    An outcome of a payment that somebody else has moved meanwhile changes nothing.
    """
    found = await _locked(connection, [one.standing.order_id for one in outcomes])
    at_ms, told = now_ms(), list[Post]()
    for one in sorted(outcomes, key=lambda one: (one.standing.user_id, one.standing.order_id)):
        before = one.standing
        moved = await connection.execute(
            update(payments)
            .where(payments.c.order_id == before.order_id, payments.c.status == before.payment)
            .values(
                status=one.payment,
                attempts=payments.c.attempts + one.attempts,
                gateway_id=one.gateway_id or payments.c.gateway_id,
                reason=one.reason[:NAME_CHARS] if one.reason else None,
                updated_at_ms=at_ms,
            )
        )
        if moved.rowcount == 1:
            told += [Post(topic, _event(before, kind, at_ms), at_ms) for kind in one.types()]
            found[before.order_id] = replace(found[before.order_id], payment=one.payment)
    await post(connection, told)
    return found


def _event(standing: Standing, kind: PaymentType, at_ms: int) -> PaymentNotification:
    return PaymentNotification(
        event_type=kind,
        order_id=standing.order_id,
        user_id=standing.user_id,
        amount=standing.amount,
        event_id=f"payment-{standing.order_id}-{kind.partition('.')[2]}",
        occurred_at=at_ms,
    )


async def _locked(connection: AsyncConnection, order_ids: Sequence[int]) -> dict[int, Standing]:
    """How orders stand, with their users locked until the end of the transaction."""
    owners = select(orders.c.user_id).where(orders.c.id.in_(order_ids)).distinct()
    user_ids = sorted((await connection.execute(owners)).scalars())
    # one by one: which rows an ORDER BY locks first is the planner's business
    for user_id in user_ids:
        await connection.execute(select(users.c.id).where(users.c.id == user_id).with_for_update())
    of, status = orders.c, payments.c.status
    wanted = (
        select(of.id, of.user_id, of.status, of.amount, of.currency, of.created_at_ms, status)
        .select_from(orders.outerjoin(payments, payments.c.order_id == of.id))
        .where(of.id.in_(order_ids))
    )
    found = {}
    for order_id, user_id, order, amount, currency, at_ms, payment in await connection.execute(wanted):
        known = PaymentStatus(payment) if payment is not None else None
        found[order_id] = Standing(order_id, user_id, OrderStatus(order), amount, currency, at_ms, known)
    return found
