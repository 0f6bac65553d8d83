"""The last step of an order's payment: it is paid, or cancelled with everything given back.

    record of payment-notifications -> how do order and payment stand? -> pay | cancel (one transaction, with its event)

Records only say which order to look at: what is done follows from the payment in the database, and a step is taken
once, so records may come again, late, or from a stranger. An order that its customer cancelled meanwhile stays so; its
payment is given back by the payment worker, who reads `order.cancelled`.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from streams.consuming import Again, Backoff
from streams.errors import MillraceError, in_one_line
from streams.log import TP
from streams.taking import Taken
from topologies.orders.database import Database
from topologies.orders.schema import FIRST_ORDER, OrderStatus, PaymentStatus, orders, payments
from topologies.orders.transitions import Transitions

logger = logging.getLogger(__name__)

GROUP: Final = "order-saga-group"
UNPAID: Final = "the payment failed"
# A transaction holds the users of its orders until it is committed: long enough to pay, not to be waited for.
TOGETHER: Final = 25
LARGEST: Final = 2**63


@dataclass
class Figures:
    """What the saga has done, for metrics and tests."""

    paid: int = 0
    cancelled: int = 0


@dataclass(frozen=True)
class Waiting:
    """An order that waits for its payment, and where that is."""

    user_id: int
    order_id: int
    payment: PaymentStatus
    reason: str | None


@dataclass
class Saga:
    """Handles events of payments."""

    database: Database
    transitions: Transitions
    tell: Callable[[str], None] = logger.info
    away: Backoff = field(default_factory=lambda: Backoff(0.5, 10.0))
    figures: Figures = field(default_factory=Figures)
    _in_vain: dict[TP, int] = field(default_factory=dict)

    async def __call__(self, tp: TP, taken: Sequence[Taken]) -> None:
        """Take the steps that these payments allow. Raises Again while the database does not answer."""
        named = {one.event.order_id for one in taken}
        order_ids = sorted(filter(may_be_ours, named))
        try:
            for start in range(0, len(order_ids), TOGETHER):
                await self._steps(order_ids[start : start + TOGETHER])
        except (MillraceError, SQLAlchemyError) as error:
            tries = self._in_vain[tp] = self._in_vain.get(tp, 0) + 1
            if tries == 1:
                self.tell(f"saga: {len(named)} of {tp.topic}[{tp.partition}] wait: {in_one_line(error)[:300]}")
            raise Again(self.away.after(tries)) from error
        self._in_vain.pop(tp, None)

    async def _steps(self, order_ids: Sequence[int]) -> None:
        """Pay together, in the order of users, as all lock them; cancel one by one, as that locks products, too."""
        waiting = await self.database.read(lambda connection: _waiting(connection, order_ids))
        paid = [one.order_id for one in waiting if one.payment is PaymentStatus.COMPLETED]
        over = [one for one in waiting if one.payment not in (PaymentStatus.COMPLETED, PaymentStatus.REQUESTED)]
        if paid:
            self.figures.paid += await self.database.write(lambda connection: self._pay(connection, paid))
        for one in over:
            self.figures.cancelled += await self._cancel(one)

    async def _pay(self, connection: AsyncConnection, order_ids: Sequence[int]) -> int:
        return sum([await self.transitions.pay(connection, order_id) is not None for order_id in order_ids])

    async def _cancel(self, one: Waiting) -> bool:
        reason = f"{UNPAID}: {one.reason}" if one.reason else UNPAID
        done = await self.database.write(
            lambda connection: self.transitions.cancel(connection, one.order_id, reason[:250])
        )
        return done is not None


def may_be_ours(order_id: object) -> bool:
    """Whether an event's order may be one that was taken here, and not one of the simulator's or of somebody's hand."""
    return isinstance(order_id, int) and FIRST_ORDER <= order_id < LARGEST


async def _waiting(connection: AsyncConnection, order_ids: Sequence[int]) -> list[Waiting]:
    """The orders that are still placed, with their payments, by user and order."""
    wanted = (
        select(orders.c.user_id, orders.c.id, payments.c.status, payments.c.reason)
        .join_from(orders, payments, payments.c.order_id == orders.c.id)
        .where(orders.c.id.in_(order_ids), orders.c.status == OrderStatus.PLACED)
        .order_by(orders.c.user_id, orders.c.id)
    )
    return [
        Waiting(user, order, PaymentStatus(status), why)
        for user, order, status, why in await connection.execute(wanted)
    ]
