"""How `streams.put_aside` lasts: its chunks as records of a compacted topic of the group, in the source's partition.

- key: JSON `["topic", partition, chunk, position]`; value: the chunk's bits (`PutAside.drain`) as they stand
  before the source record at `position`. Nothing is ever written under the same key with other bytes, as they are a
  function of the partition's records before `position`: what a zombie or a torn flush writes is as good as ours.
- A flush appends the chunks that changed before its progress. A restart takes, of each chunk, the record with the
  highest position that the progress covers; records before that, and those that a torn flush left beyond, are
  dropped with the next flush.
- Without the topic (deleted) nothing is known to be put aside: replays are dropped, never counted twice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from streams.log import TP, Entry, Log, Record
from streams.put_aside import PutAside
from tables.table import Group

_decode_key = msgspec.json.Decoder(tuple[str, int, int, int]).decode
_encode_key = msgspec.json.Encoder().encode


@dataclass
class Kept:
    """What the topic has of one source partition: each chunk's position, and keys that say nothing any more."""

    tp: TP
    at: dict[int, int] = field(default_factory=dict)
    stale: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Taken:
    """One flush's part: `entries` to append before the progress."""

    position: int
    chunks: Mapping[int, bytes]
    dropped: int
    entries: list[Entry]


def take(aside: PutAside, kept: Kept, position: int) -> Taken:
    """The records that say what changed, and tombstones for those that an earlier flush has outdated."""
    chunks = aside.drain()
    entries = [Entry(_key(kept, chunk, position), raw) for chunk, raw in chunks.items()]
    return Taken(position, chunks, len(kept.stale), entries + [Entry(key, None) for key in kept.stale])


def finish(kept: Kept, taken: Taken) -> None:
    """Note that the progress over what was taken is written."""
    del kept.stale[: taken.dropped]
    for chunk in taken.chunks:
        before = kept.at.get(chunk)
        if before is not None and before != taken.position:
            kept.stale.append(_key(kept, chunk, before))
        kept.at[chunk] = taken.position


async def load(group: Group, sources: Mapping[TP, tuple[PutAside, Kept, int]], log: Log) -> None:
    """Bring back what each source partition had put aside as of its position."""
    numbers = {tp.partition for tp in sources}
    tps = [TP(group.put_aside.name, number) for number in sorted(numbers)]
    starts, ends = await log.start_offsets(tps), await log.end_offsets(tps)
    found: dict[TP, dict[bytes, bytes]] = {tp: {} for tp in sources}
    async for tp, records in log.read({tp: (starts[tp], ends[tp]) for tp in tps}):
        _sort(records, tp.partition, found)
    for tp, (aside, kept, position) in sources.items():
        _load_one(aside, kept, position, found[tp])


def _sort(records: Iterable[Record], number: int, found: Mapping[TP, dict[bytes, bytes]]) -> None:
    for record in records:
        if record.key is None:
            continue
        mine = found.get(TP(_decode_key(record.key)[0], number))
        if mine is None:
            continue
        if record.value is None:
            mine.pop(record.key, None)
        else:
            mine[record.key] = record.value


def _load_one(aside: PutAside, kept: Kept, position: int, found: Mapping[bytes, bytes]) -> None:
    best: dict[int, tuple[int, bytes]] = {}
    for key in found:
        _, _, chunk, at = _decode_key(key)
        if at <= position and at > best.get(chunk, (-1, b""))[0]:
            best[chunk] = (at, key)
    for chunk, (at, key) in best.items():
        aside.load(chunk, found[key])
        kept.at[chunk] = at
    used = {key for _, key in best.values()}
    kept.stale = [key for key in found if key not in used]


def _key(kept: Kept, chunk: int, position: int) -> bytes:
    return _encode_key([*kept.tp, chunk, position])
