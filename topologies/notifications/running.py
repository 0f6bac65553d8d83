"""Notifications as a process: wiring, for what comes and for what was put aside."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

from streams.consuming import Again, Handle, Meter, Reading, waited
from streams.errors import BrokerUnreachable
from streams.kafka_log import KafkaLog
from streams.log import TP, LogError, Record
from streams.taking import Taking
from streams.topics import ORDER_EVENTS, PAYMENT_NOTIFICATIONS, Topic, ensure_topics
from topologies.group_running import Work, run_group
from topologies.notifications.channels import Channel
from topologies.notifications.delivering import Delivering, Told
from topologies.notifications.notifying import GROUP, Notifying, Resending
from topologies.sales import own_topic
from topologies.settings import LOOPBACK, Settings

logger = logging.getLogger(__name__)

TOPICS: Final = (ORDER_EVENTS, PAYMENT_NOTIFICATIONS)
LOOK_S: Final = 0.2
# So many records are at stake when a process dies in the middle: they are told again.
AT_ONCE: Final = 200
Started = Callable[[str], None]


async def run_notify(
    channels: Sequence[Channel],
    settings: Settings,
    *,
    group: str = GROUP,
    tries: int = 6,
    host: str = LOOPBACK,
    port: int | None = None,
    started: Started = logger.info,
) -> Told:
    """Tell customers until SIGINT or SIGTERM; returns what was done. Raises MillraceError."""
    async with _delivering(channels, settings, group, tries) as (delivering, log, topics):
        taking = Taking(log, topics, Notifying(delivering, log, topics, settings.currency))

        def counts() -> Mapping[str, float]:
            return {**delivering.told.counts(), "notify_undecodable": taking.dead}

        work = Work(settings.prefix + group, topics, taking, Reading(max_records=AT_ONCE), counts)
        await run_group(work, settings, host=host, port=port, started=started)
        return delivering.told


async def run_again(
    channels: Sequence[Channel],
    settings: Settings,
    *,
    group: str = GROUP,
    tries: int = 6,
    host: str = LOOPBACK,
    port: int | None = None,
    started: Started = logger.info,
) -> tuple[Told, int]:
    """Send again what was put aside until now; returns what was done, and how many are for other channels.

    Interrupted anywhere it can be called again: it goes on where it was.
    """
    async with _delivering(channels, settings, group, tries) as (delivering, log, topics):
        aside = _aside(settings, group)
        handle = Resending(delivering, log, topics, settings.currency)
        ends = await log.end_offsets([TP(aside.name, number) for number in range(aside.partitions)])
        meter, stop = Meter(), asyncio.Event()
        work = Work(
            f"{settings.prefix}{group}-again", [aside], _up_to(ends, handle), Reading(max_records=AT_ONCE),
            delivering.told.counts,
        )  # fmt: skip
        ending = asyncio.ensure_future(_stop_when_done(meter, ends, stop))
        try:
            await run_group(work, settings, host=host, port=port, stop=stop, meter=meter, started=started)
        finally:
            ending.cancel()
        return delivering.told, handle.kept


def _up_to(ends: Mapping[TP, int], handle: Handle) -> Handle:
    """What is put aside meanwhile waits for the next time: else it would go round for ever."""

    async def bounded(tp: TP, records: Sequence[Record]) -> None:
        before = [record for record in records if record.offset < ends[tp]]
        if before:
            await handle(tp, before)
        if len(before) < len(records):
            raise Again(LOOK_S, at=ends[tp])

    return bounded


async def _stop_when_done(meter: Meter, ends: Mapping[TP, int], stop: asyncio.Event) -> None:
    """Set `stop` once this member has handled its partitions as far as they went at the start."""
    while not await waited(stop, LOOK_S):
        mine = meter.assigned
        if mine and all(meter.position.get(tp, -1) >= ends.get(tp, 0) for tp in mine):
            stop.set()


@contextlib.asynccontextmanager
async def _delivering(
    channels: Sequence[Channel], settings: Settings, group: str, tries: int
) -> AsyncIterator[tuple[Delivering, KafkaLog, list[Topic]]]:
    topics = [own_topic(topic, settings) for topic in TOPICS]
    aside = _aside(settings, group)
    every = [*topics, *(topic.dead_letters for topic in topics), aside]
    await asyncio.to_thread(ensure_topics, settings.cluster, every)
    log = KafkaLog(settings.cluster, client_id=group)
    try:
        await log.start()
    except LogError as error:
        raise BrokerUnreachable(settings.cluster.bootstrap) from error
    try:
        for channel in channels:
            await channel.open()
        yield Delivering(channels, log, aside.name, tries), log, topics
    finally:
        for channel in channels:
            await channel.close()
        await log.stop()


def _aside(settings: Settings, group: str) -> Topic:
    return Topic(settings.prefix + group, partitions=settings.partitions).dead_letters
