"""Beginning a group's tables anew from chosen source offsets: the first thing that is written after a replay's reset.

The topics of the group's state were deleted and made anew, and are empty. One progress record for each source partition
now says: nothing is contained before `position`, and everything that is of an epoch before `renewed` is of tables that
are gone. So whoever comes with something of theirs cannot take it for the tables' own, whatever host it was left on:

- A worker with a local store of an earlier epoch drops it (tables.recovery).
- What a zombie still writes has an earlier epoch. It loses to what is there, and where nothing is there it counts for
  nothing: in recovery, in a flush that finds it (tables.flush), and, as a tombstone then, in every read model.
- A read model that has followed the former topics all along begins anew (`Renewed`).

The epoch is one above the highest that a progress names. Where the progress is lost it is the time in seconds, which no
counting of replays comes near.
"""

import time
from collections.abc import Iterable, Mapping

from streams.intake import NO_WATERMARK
from streams.log import TP, Entry, Log, Record
from tables import progress as progress_records
from tables.progress import Progress
from tables.table import Group


class Renewed(Exception):
    """The tables of a read model were dropped and begun anew: what it holds is of others."""

    def __init__(self, tp: TP) -> None:
        """Name the partition of the progress topic that says so, in the way of aiokafka's own errors."""
        super().__init__({tp: "begun anew"})


def next_epoch(known: Iterable[Progress], now_s: float | None = None) -> int:
    """The epoch of the next replay, above all that the tables have had.

    >>> next_epoch([Progress("orders", 0, position=5, watermark=7, epoch=2)])
    3
    """
    epochs = [progress.epoch for progress in known]
    return max(epochs) + 1 if epochs else int(time.time() if now_s is None else now_s)


async def read_progress(group: Group, log: Log) -> dict[TP, Progress]:
    """The newest progress of each source partition, as the log has it now. Raises LogError."""
    tps = [TP(group.progress.name, number) for number in range(group.progress.partitions)]
    starts, ends = await log.start_offsets(tps), await log.end_offsets(tps)
    records: dict[int, list[Record]] = {tp.partition: [] for tp in tps}
    async for tp, batch in log.read({tp: (starts[tp], ends[tp]) for tp in tps}):
        records[tp.partition] += batch
    found: dict[TP, Progress] = {}
    for number, of_number in records.items():
        newest = progress_records.newest(of_number, number)
        found |= {TP(topic, number): progress for topic, progress in newest.items()}
    return found


async def begin_anew(
    group: Group, log: Log, starts: Mapping[TP, int], renewed: int, topic_ids: Mapping[str, str]
) -> None:
    """Say that the group's tables contain nothing before `starts`; other source partitions start at 0.

    The topics of the group's state must be empty. Raises LogError.
    """
    appends: dict[TP, list[Entry]] = {}
    for source in group.sources:
        for number in range(source.topic.partitions):
            tp = TP(source.topic.name, number)
            at = starts.get(tp, 0)
            progress = Progress(
                tp.topic,
                number,
                position=at,
                watermark=NO_WATERMARK,
                epoch=renewed,
                renewed=renewed,
                topic_id=topic_ids.get(tp.topic, ""),
                since={table.name: at for table in source.tables},
            )
            appends.setdefault(TP(group.progress.name, number), []).append(progress.entry())
    await log.append(appends)


async def began_with(group: Group, log: Log) -> int | None:
    """The epoch in which the tables were begun anew; None if not all of them were, or in none. Raises LogError."""
    found = await read_progress(group, log)
    wanted = {TP(source.topic.name, n) for source in group.sources for n in range(source.topic.partitions)}
    epochs = {progress.renewed for progress in found.values()}
    return epochs.pop() if len(epochs) == 1 and wanted <= found.keys() else None
