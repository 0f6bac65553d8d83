"""Progress: how far the tables of a source partition are complete.

After a flush's changelog records are acknowledged, and before anything is written locally or committed, one record
goes to the group's compacted progress topic, in the source partition's number. Format:

- key: JSON `[topic, partition, generation]`. The group's generation is part of it so that a zombie's late record
  never replaces its successor's by compaction.
- value: JSON of `Progress`.

All source records before `position` are contained in the tables as far as their changelogs' `ends`. The record with
the highest `(epoch, position, committed)` wins.
"""

from collections.abc import Iterable

import msgspec

from streams.log import Entry, Record
from tables.layout import Layout


class Progress(msgspec.Struct, frozen=True, rename="camel"):
    """One source partition's progress.

    `position` is the next source offset to apply; `committed` the last position known to be committed when this was
    written, so that an operator's reset behind it can be told from a crash before a commit; `ends` each changelog's
    end offset; `since` the position that each table started at (0: complete history), and `table.aggregate`
    appended to it later; `schemas` its row's fingerprint, `layouts` the row itself (tables.layout; missing in old
    records); `read_back` where to re-read from to know recent event ids again; `marks` what the second stage
    knows of its own sources; `poison_run` how many events in a row, up to the position, no fold could take, and
    `poison_from` the first of them: a worker that stopped for it goes on counting when it is started again;
    `changelogs` each table's changelog's topic id, where the cluster has ids: offsets of one that was deleted and made
    anew mean nothing; `slices_ms` how long each table's slices are; `renewed` the epoch in which a replay in place
    began these tables anew (tables.renewal; 0: none has): whatever is of an epoch before it is of tables that are gone.
    """

    topic: str
    partition: int
    position: int
    watermark: int
    epoch: int = 0
    generation: int = 0
    committed: int = -1
    topic_id: str = ""
    read_back: int | None = None
    ends: dict[str, int] = {}
    since: dict[str, int] = {}
    schemas: dict[str, str] = {}
    marks: dict[str, int] = {}
    layouts: dict[str, Layout] = {}
    poison_run: int = 0
    poison_from: int = -1
    changelogs: dict[str, str] = {}
    slices_ms: dict[str, int] = {}
    renewed: int = 0

    @property
    def order(self) -> tuple[int, int, int]:
        """What decides between two progress records of a partition; of equal ones, whose group had committed more."""
        return (self.epoch, self.position, self.committed)

    def entry(self) -> Entry:
        """The record that says this."""
        return Entry(progress_key(self.topic, self.partition, self.generation), encode(self))


_decode = msgspec.json.Decoder(Progress).decode
encode = msgspec.json.Encoder().encode


def decode(raw: bytes) -> Progress:
    """Read a progress value. Raises msgspec.ValidationError."""
    return _decode(raw)


def progress_key(topic: str, partition: int, generation: int) -> bytes:
    """The record key: JSON, so that any Kafka tool shows it readably."""
    return encode([topic, partition, generation])


def newest(records: Iterable[Record], partition: int) -> dict[str, Progress]:
    """For each source topic, the progress of this partition that wins among the records."""
    best: dict[str, Progress] = {}
    for record in records:
        if record.value is None:
            continue
        progress = decode(record.value)
        if progress.partition != partition:
            continue
        known = best.get(progress.topic)
        if known is None or progress.order > known.order:
            best[progress.topic] = progress
    return best


def stale_keys(records: Iterable[Record], generation: int) -> dict[str, list[bytes]]:
    """For each source topic, keys of generations before this one: to be dropped once it has progress of its own."""
    keys = {r.key for r in records if r.key is not None and r.value is not None}
    stale: dict[str, list[bytes]] = {}
    for key in sorted(keys):
        topic, _, written_in = msgspec.json.decode(key)
        if written_in < generation:
            stale.setdefault(topic, []).append(key)
    return stale
