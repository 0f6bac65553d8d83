"""The payment worker: brings the payments of the orders that records name to where they belong, whatever died before.

    record of order-events -> begin (transaction) -> gateway -> settle (transaction, with outbox rows) -> until at rest

A record is handled when the payment of its order is at rest, then its offset may be committed. Orders of a batch go to
the gateway side by side, their transactions are made together; what is asked of one order is one thing at a time.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from streams.consuming import Again, Backoff
from streams.errors import MillraceError, in_one_line
from streams.events import OrderEvent
from streams.log import TP
from streams.taking import Taken
from topologies.orders.database import Database
from topologies.orders.outbox import now_ms
from topologies.orders.saga import may_be_ours
from topologies.orders.schema import PaymentStatus
from topologies.orders.transitions import Transitions
from topologies.payments.gateway import Charge, Charged, Declined, Gateway, NoAnswer
from topologies.payments.steps import Need, Outcome, Standing, begin, settle
from topologies.payments.together import Together

T = TypeVar("T")

logger = logging.getLogger(__name__)

GROUP: Final = "order-payment-group"
# After order.paid there is nothing to do: it was the payment that paid it.
CONCERN: Final = frozenset({"order.placed", "order.cancelled", "order.refunded"})
SILENT: Final = "the payment gateway did not answer"
CALLED_OFF: Final = "the order was called off"
AT_ONCE: Final = 32
TRIES: Final = 5
PATIENCE_S: Final = 60.0


@dataclass
class Figures:
    """What a worker has done, for metrics and tests: settled payments by status, and requests to the gateway."""

    settled: dict[PaymentStatus, int] = field(default_factory=lambda: defaultdict(int))
    requests: int = 0
    unanswered: int = 0


@dataclass
class PaymentWorker:
    """Handles events of orders. `topic` is where what the gateway answers is told, through the outbox.

    A request is made `tries` times with `backoff` between, then again later. An order that is older than `patience_s`
    and still not answered for is called off: that is committed before anything is given back, so a payment that another
    worker completes meanwhile is given back, too.
    """

    database: Database
    gateway: Gateway
    topic: str
    transitions: Transitions
    tries: int = TRIES
    patience_s: float = PATIENCE_S
    at_once: int = AT_ONCE
    backoff: Backoff = field(default_factory=lambda: Backoff(0.1, 5.0))
    away: Backoff = field(default_factory=lambda: Backoff(0.5, 10.0))
    tell: Callable[[str], None] = logger.info
    figures: Figures = field(default_factory=Figures)

    def __post_init__(self) -> None:
        """Make what gathers transactions."""
        self._begin = Together(self._begun)
        self._settle = Together(self._settled)
        self._slots = asyncio.Semaphore(self.at_once)
        self._in_vain: dict[TP, int] = {}

    async def __call__(self, tp: TP, taken: Sequence[Taken]) -> None:
        """Bring the payments of these orders to rest. Raises Again while gateway or database do not answer."""
        order_ids = dict.fromkeys(one.event.order_id for one in taken if concerns(one.event))
        results = await asyncio.gather(*map(self._to_rest, order_ids), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        for error in errors:
            if not isinstance(error, NoAnswer | MillraceError | SQLAlchemyError):
                raise error
        if errors:
            tries = self._in_vain[tp] = self._in_vain.get(tp, 0) + 1
            if tries == 1:
                said = in_one_line(errors[0])[:300]
                self.tell(f"payments: {len(errors)} of {tp.topic}[{tp.partition}] wait: {said}")
            raise Again(self.away.after(tries))
        self._in_vain.pop(tp, None)

    async def _to_rest(self, order_id: int) -> None:
        async with self._slots:
            standing = await self._begin.ask(order_id)
            while standing is not None and standing.need is not Need.NOTHING:
                if standing.need is Need.CHARGE:
                    standing = await self._charge(standing)
                else:
                    standing = await self._give_back(standing)

    async def _charge(self, standing: Standing) -> Standing | None:
        charge = Charge(standing.key, standing.amount, standing.currency)
        try:
            answer, attempts = await self._answer(lambda: self.gateway.charge(charge))
        except NoAnswer:
            if now_ms() < standing.created_at_ms + 1000 * self.patience_s:
                raise
            await self.database.write(lambda connection: self.transitions.cancel(connection, standing.order_id, SILENT))
            return await self._begin.ask(standing.order_id)
        return await self._settle.ask(_charged(standing, answer, attempts))

    async def _give_back(self, standing: Standing) -> Standing:
        returned, attempts = await self._answer(lambda: self.gateway.give_back(standing.key))
        taken = returned.amount > 0 or standing.payment is PaymentStatus.COMPLETED
        status = PaymentStatus.REFUNDED if taken else PaymentStatus.FAILED
        return await self._settle.ask(Outcome(standing, status, attempts, taken, reason=CALLED_OFF))

    async def _answer(self, request: Callable[[], Awaitable[T]]) -> tuple[T, int]:
        """What the gateway answers, and at which try. Raises NoAnswer when it does not."""
        attempt = 0
        while True:
            attempt += 1
            self.figures.requests += 1
            try:
                return await request(), attempt
            except NoAnswer:
                self.figures.unanswered += 1
                if attempt == self.tries:
                    raise
                await asyncio.sleep(self.backoff.after(attempt))

    async def _begun(self, order_ids: Sequence[int]) -> list[Standing | None]:
        found = await self.database.write(lambda connection: begin(connection, order_ids))
        return [found.get(order_id) for order_id in order_ids]

    async def _settled(self, outcomes: Sequence[Outcome]) -> list[Standing]:
        found = await self.database.write(lambda connection: settle(connection, outcomes, self.topic))
        for one in outcomes:
            self.figures.settled[one.payment] += 1
        return [found[one.standing.order_id] for one in outcomes]


def concerns(event: OrderEvent) -> bool:
    """Whether an event may be of an order that we took, and of a step that its payment has to follow."""
    return event.event_type in CONCERN and may_be_ours(event.order_id)


def _charged(standing: Standing, answer: Charged | Declined, attempts: int) -> Outcome:
    if isinstance(answer, Charged):
        return Outcome(standing, PaymentStatus.COMPLETED, attempts, taken=True, gateway_id=answer.gateway_id)
    return Outcome(standing, PaymentStatus.FAILED, attempts, taken=False, reason=answer.reason)
