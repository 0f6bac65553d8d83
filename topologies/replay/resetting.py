"""Dropping the state of a group and beginning it anew: four steps, each of which may be repeated."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from streams.admin.connection import MOVING, Admin
from streams.admin.resetting import Move, execute
from streams.admin.topics import Stretch, delete_topics, stretches, topic_names
from streams.errors import MillraceError
from streams.kafka_log import KafkaLog
from streams.log import TP, LogError
from streams.topics import ensure_topics, topic_ids
from tables.points import reached
from tables.renewal import began_with, begin_anew
from tables.store import wipe
from topologies.kept_topics import kept_topics
from topologies.replay.concerned import concerned, partitions, stores
from topologies.replay.planning import Plan
from topologies.topology import Topology

NOT_LED: Final = (*MOVING, KafkaError.UNKNOWN_TOPIC_OR_PART)
LED_WITHIN_S: Final = 30.0
POLL_S: Final = 0.1


def reset(admin: Admin, topology: Topology, plan: Plan, state_dir: Path) -> None:
    """Drop what the plan drops, and begin the tables at its offsets. The group must be empty. Raises MillraceError.

    topologies.replay says why in this order.
    """
    what, group = concerned(topology), topology.group
    starts = {one.tp: one.start for one in plan.sources}
    commit(admin, group.name, starts)
    reached("replay-committed")
    _delete(admin, [*(topic.name for topic in what.inner), *what.streams])
    reached("replay-inner-deleted")
    _delete(admin, what.state)
    reached("replay-state-deleted")
    for path in stores(state_dir, group.name):
        wipe(path)
    ensure_topics(admin.cluster, topology.topics())
    reached("replay-made-anew")
    commit(admin, group.name, dict.fromkeys(partitions(what.inner), 0))
    asyncio.run(_begin(admin, topology, starts, plan.renewed))
    # refused where somebody has joined: who came before the line above has restored what was there before it
    commit(admin, group.name, starts)
    reached("replay-begun")


def commit(admin: Admin, group: str, offsets: Mapping[TP, int]) -> None:
    """Set the group's offsets. Raises MillraceError, also where somebody has joined it."""
    if offsets:
        execute(admin, group, [Move(tp, None, offset, offset) for tp, offset in offsets.items()])


def _delete(admin: Admin, names: Sequence[str]) -> None:
    there = set(topic_names(admin))
    if present := [name for name in names if name in there]:
        delete_topics(admin, present)


async def _begin(admin: Admin, topology: Topology, starts: Mapping[TP, int], renewed: int) -> None:
    group = topology.group
    names = [source.topic.name for source in group.sources]
    log = KafkaLog(admin.cluster, client_id="millrace-replay")
    try:
        await log.start()
        ids = await asyncio.to_thread(topic_ids, admin.cluster, names)
        await begin_anew(group, log, starts, renewed, ids)
    except LogError as error:
        raise MillraceError(f"the tables of {group.name} cannot be begun anew: {error}; run this again") from error
    finally:
        await log.stop()
    changelogs = [TP(name, n) for name in kept_topics(group)[2:] for n in range(group.progress.partitions)]
    for tp, held in _stretches_of_new(admin, changelogs).items():
        if held.end:
            raise MillraceError(
                f"somebody writes to {tp.topic} while the tables are begun anew: end all workers of {group.name}, "
                "and run this again"
            )


def _stretches_of_new(admin: Admin, tps: Sequence[TP]) -> dict[TP, Stretch]:
    """Where the partitions of topics that were just made begin and end: brokers lead them a moment later."""
    until = time.monotonic() + LED_WITHIN_S
    while True:
        try:
            return stretches(admin, tps)
        except MillraceError as error:
            cause = error.__cause__
            code = cause.args[0].code() if isinstance(cause, KafkaException) else None
            if code not in NOT_LED or time.monotonic() > until:
                raise
            time.sleep(POLL_S)


def is_begun(admin: Admin, topology: Topology, renewed: int) -> bool:
    """Whether the tables were begun anew in that epoch and are whole. Raises MillraceError."""
    there = set(topic_names(admin))
    if not there.issuperset(kept_topics(topology.group)):
        return False
    return asyncio.run(_began_with(admin, topology)) == renewed


async def _began_with(admin: Admin, topology: Topology) -> int | None:
    log = KafkaLog(admin.cluster, client_id="millrace-replay")
    try:
        await log.start()
        return await began_with(topology.group, log)
    except LogError as error:
        raise MillraceError(f"the progress of {topology.group.name} cannot be read: {error}") from error
    finally:
        await log.stop()
