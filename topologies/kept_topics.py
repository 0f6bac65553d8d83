"""Topics that hold a group's state: created for a group that is new, and never again for one that has run.

Whoever starts creates the topics that are missing. For a changelog that somebody deleted this would be the end of the
trace: an empty topic under the same name, which all that come later take for the table's whole history. So a missing
one is created only where nothing says that it has been there.
"""

import asyncio
from collections.abc import Iterable

from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.kafka_log import KafkaLog
from streams.log import TP, Log, TopicGone
from streams.topics import ensure_topics, missing_topics
from tables import progress as progress_records
from tables.lost import ChangelogLost
from tables.table import Group
from topologies.topology import Topology


def kept_topics(group: Group) -> list[str]:
    """The topics that a group's tables are made of; derived and side topics are not."""
    return [group.progress.name, group.put_aside.name, *(group.changelog(table).name for table in group.tables)]


async def ensure_all(cluster: Cluster, topology: Topology) -> None:
    """Create what topics are missing. Raises ChangelogLost, and what `ensure_topics` raises."""
    await refuse_lost(cluster, topology.group)
    await asyncio.to_thread(ensure_topics, cluster, topology.topics())


async def refuse_lost(cluster: Cluster, group: Group) -> None:
    """Raise ChangelogLost for a topic of the group's state that has been there and is missing now."""
    kept = kept_topics(group)
    missing = await asyncio.to_thread(missing_topics, cluster, kept)
    if not missing or len(missing) == len(kept):
        return
    log = KafkaLog(cluster)
    await log.start()
    try:
        lost = await _were_there(log, group, set(kept) - missing) & missing
    finally:
        await log.stop()
    # Asked once more: a worker that started at the same moment may have created them and written since.
    lost &= await asyncio.to_thread(missing_topics, cluster, lost)
    if lost:
        raise ChangelogLost(min(lost))


async def _were_there(log: Log, group: Group, present: set[str]) -> set[str]:
    """Names of topics that must have been there, by what the others contain."""
    if group.progress.name not in present:
        changelogs = [table for table in group.tables if group.changelog(table).name in present]
        tps = [TP(group.changelog(t).name, p) for t in changelogs for p in _numbers(group)]
        return {group.progress.name} if any((await log.end_offsets(tps)).values()) else set()
    tps = [TP(group.progress.name, p) for p in _numbers(group)]
    starts, ends = await log.start_offsets(tps), await log.end_offsets(tps)
    written: set[str] = set()
    async for _, records in log.read({tp: (starts[tp], ends[tp]) for tp in tps}):
        for record in records:
            if record.value is not None:
                written |= progress_records.decode(record.value).schemas.keys()
    found = {group.changelog(table).name for table in group.tables if table.name in written}
    return found | {group.put_aside.name} if written else found


def _numbers(group: Group) -> Iterable[int]:
    return range(group.progress.partitions)


def explained(gone: TopicGone, group: Group) -> MillraceError:
    """What to say of a topic that was deleted while in use."""
    return ChangelogLost(gone.topic) if gone.topic in kept_topics(group) else gone
