"""The archive as a process: wiring, and the end of one that is to archive only what is there."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Final

from streams.admin.connection import Admin
from streams.admin.topics import partitions_of
from streams.consuming import Reading, waited
from streams.errors import MillraceError
from streams.kafka_log import KafkaLog
from streams.log import TP, Log, LogError
from streams.topics import ORDER_EVENTS, PAYMENT_NOTIFICATIONS, USER_ACTIVITY, Topic, ensure_topics, topic_ids
from topologies.archive.archiving import GROUP, Archive
from topologies.archive.files import Files
from topologies.group_running import Work, run_group
from topologies.sales import own_topic
from topologies.settings import LOOPBACK, Settings

logger = logging.getLogger(__name__)

TOPICS: Final = (ORDER_EVENTS, USER_ACTIVITY, PAYMENT_NOTIFICATIONS)
LOOK_S: Final = 0.2


async def run_archive(
    files: Files,
    settings: Settings,
    *,
    topics: Sequence[Topic] = TOPICS,
    roll_s: float = 60.0,
    roll_records: int = 25_000,
    once: bool = False,
    host: str = LOOPBACK,
    port: int | None = None,
    started: Callable[[str], None] = logger.info,
) -> Archive:
    """Archive until SIGINT or SIGTERM, or with `once` what is there now; returns what was done.

    A file is written once it has `roll_records`, or `roll_s` after its first one. Raises MillraceError.
    """
    await asyncio.to_thread(files.prepare)
    own = await asyncio.to_thread(_own, topics, settings)
    await asyncio.to_thread(ensure_topics, settings.cluster, own)
    ids = await asyncio.to_thread(topic_ids, settings.cluster, [topic.name for topic in own])
    archive, stop = Archive(files, own, ids), asyncio.Event()
    reading = Reading(
        max_records=roll_records, max_bytes=16 << 20, linger_s=0.5 if once else roll_s, starts=archive.starts
    )

    def counts() -> Mapping[str, float]:
        return {f"archive_{name}": count for name, count in asdict(archive.counts).items()}

    work = Work(settings.prefix + GROUP, own, archive, reading, counts)
    ending = asyncio.ensure_future(_stop_when_done(archive, settings, stop)) if once else None
    if ending is not None:
        ending.add_done_callback(lambda _: stop.set())  # also where it failed: nobody else would end it
    try:
        await run_group(work, settings, host=host, port=port, stop=stop, started=started)
    finally:
        if ending is not None:
            ending.cancel()
    if ending is not None:
        with suppress(asyncio.CancelledError):
            await ending
    return archive


def _own(topics: Sequence[Topic], settings: Settings) -> list[Topic]:
    """The topics with the shop's prefix; those that are not ours to create have as many partitions as there are."""
    own = [own_topic(topic, settings) for topic in topics]
    theirs = [topic.name for topic in own if topic.value is None]
    there = partitions_of(Admin(settings.cluster), theirs) if theirs else {}
    return [topic.with_partitions(len(there.get(topic.name, range(topic.partitions)))) for topic in own]


async def _stop_when_done(archive: Archive, settings: Settings, stop: asyncio.Event) -> None:
    """Set `stop` once the files reach to the last record that every partition had at the start, whoever wrote them."""
    log = KafkaLog(settings.cluster)
    try:
        await log.start()
        every = [TP(topic.name, number) for topic in archive.topics for number in range(topic.partitions)]
        left = await _ends(log, every)
    except LogError as error:
        raise MillraceError(f"{error}; see `millrace doctor`") from error
    finally:
        await log.stop()
    while left and not await waited(stop, LOOK_S):
        left = {tp: end for tp, end in left.items() if not await archive.reaches(tp, end)}
    stop.set()


async def _ends(log: Log, every: Sequence[TP]) -> dict[TP, int]:
    """The offset after each partition's last record; what is behind it (a transaction's marker) comes to no file."""
    begins, ends = await log.start_offsets(every), await log.end_offsets(every)
    found, back = dict[TP, int](), 1
    while spans := {tp: (max(begins[tp], end - back), end) for tp, end in ends.items() if begins[tp] < end}:
        async for tp, records in log.read(spans):
            found[tp] = records[-1].offset + 1
        ends = {tp: end for tp, (start, end) in spans.items() if tp not in found and start > begins[tp]}
        back *= 10
    return found
