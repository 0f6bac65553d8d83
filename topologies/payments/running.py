"""Payments as a process: the payment worker and the saga, which are two groups, on one database."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Final

from sqlalchemy import URL

from streams.consuming import Meter, Reading, consume
from streams.errors import MillraceError
from streams.kafka_log import KafkaLog
from streams.log import LogError
from streams.taking import Taking
from streams.topics import ORDER_EVENTS, PAYMENT_NOTIFICATIONS, ensure_topics
from topologies.group_running import Work, run_group
from topologies.names import claim_member
from topologies.orders import saga
from topologies.orders.database import Database
from topologies.orders.migrating import check
from topologies.orders.saga import Saga
from topologies.orders.transitions import Transitions
from topologies.payments import worker
from topologies.payments.gateway import Gateway
from topologies.payments.worker import PaymentWorker
from topologies.sales import own_topic
from topologies.settings import LOOPBACK, Settings

logger = logging.getLogger(__name__)

# A batch is done when its slowest payment is.
RECORDS: Final = 200


async def run_payments(
    settings: Settings,
    url: URL,
    gateway: Gateway,
    *,
    at_once: int = worker.AT_ONCE,
    host: str = LOOPBACK,
    port: int | None = None,
    started: Callable[[str], None] = logger.info,
) -> None:
    """Work until SIGINT or SIGTERM; `started` is told the url of the pages. Raises MillraceError."""
    orders, payments = own_topic(ORDER_EVENTS, settings), own_topic(PAYMENT_NOTIFICATIONS, settings)
    async with AsyncExitStack() as opened:
        opened.push_async_callback(gateway.close)
        database = await opened.enter_async_context(Database.open(url))
        await check(database)
        topics = [orders, payments, orders.dead_letters, payments.dead_letters]
        await asyncio.to_thread(ensure_topics, settings.cluster, topics)
        log = KafkaLog(settings.cluster)
        try:
            await log.start()
        except LogError as error:
            raise MillraceError(f"{error}; see `millrace doctor`") from error
        opened.push_async_callback(log.stop)
        transitions = Transitions(orders.name)
        paying = PaymentWorker(database, gateway, payments.name, transitions, at_once=at_once, tell=_tell)
        ending = Saga(database, transitions, tell=_tell)
        starting, taking = Taking(log, [orders], paying), Taking(log, [payments], ending)
        group, meter = settings.prefix + saga.GROUP, Meter()

        def counted() -> Mapping[str, float]:
            dead = {"payments_undecodable": starting.dead, "saga_undecodable": taking.dead}
            return {**counts(paying, ending), **dead}

        work = Work(
            settings.prefix + worker.GROUP,
            [orders],
            starting,
            Reading(max_records=RECORDS),
            counted,
            {group: meter},
        )
        stop = asyncio.Event()
        steps = Reading(
            max_records=RECORDS,
            instance=claim_member(settings.state_dir, group, settings.name),
            session_s=settings.session_s,
        )
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(
                    consume(
                        settings.cluster, group, [payments], taking, stop=stop, reading=steps, meter=meter, tell=_tell
                    )
                )
                both.create_task(run_group(work, settings, host=host, port=port, stop=stop, started=started))
        except BaseExceptionGroup as errors:
            ours = errors.subgroup(MillraceError)
            raise errors if ours is None else _first(ours) from errors


def counts(paying: PaymentWorker, ending: Saga) -> Mapping[str, float]:
    """What both have done, as counters."""
    settled = {f"payments_{status}": count for status, count in paying.figures.settled.items()}
    return {
        **settled,
        "gateway_requests": paying.figures.requests,
        "gateway_unanswered": paying.figures.unanswered,
        "saga_paid": ending.figures.paid,
        "saga_cancelled": ending.figures.cancelled,
    }


def _first(errors: BaseExceptionGroup[MillraceError]) -> MillraceError:
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, MillraceError)
    return found


def _tell(line: str) -> None:
    logger.warning("%s", line)
