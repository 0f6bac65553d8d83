"""Changelogs to restore from: what the flushes of many minutes leave of one table, and what has to come out.

A minute has 1,000 products, and each of its cells is written twice, flush by flush: all of them, then all of them
again. Of every 5,000th cell the second record is a zombie's, with the lower stamp: who takes the last record of a key,
or leaves one out, comes to another digest. Records are about 45 bytes of value, five sums each.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

import orjson

from streams.log import TP, Entry, Log
from tables.accumulators import EVENTS, FIRST, STAMP, STATES, encode_key
from tables.progress import Progress
from tables.table import Group, Table

TABLE: Final = "sales_by_product"
SLICE_MS: Final = 60_000
KEYS: Final = 1_000
WRITES: Final = 2
ZOMBIE_EVERY: Final = 5_000
# As a worker flushes at full speed: a few thousand cells a partition.
FLUSH: Final = 5_000


class Write(NamedTuple):
    """One record: which state, 0 or 1, of which product's cell in which minute."""

    minute: int
    key: int
    state: int


@dataclass(frozen=True)
class Shape:
    """Every partition's changelog of that many minutes."""

    minutes: int
    partitions: int

    @classmethod
    def of(cls, records: int, partitions: int) -> "Shape":
        """The shape of about so many records, in whole minutes, one of them at least."""
        return cls(max(1, records // (partitions * KEYS * WRITES)), partitions)

    @property
    def records(self) -> int:
        """All records of all partitions."""
        return self.minutes * KEYS * WRITES * self.partitions

    def writes(self, *, zombies: bool) -> Iterator[Write]:
        """A partition's records in order."""
        for minute in range(self.minutes):
            for turn in range(WRITES):
                for key in range(KEYS):
                    late = zombies and (minute * KEYS + key) % ZOMBIE_EVERY == 0
                    yield Write(minute, key, WRITES - 1 - turn if late else turn)

    def final(self) -> Iterator[Write]:
        """What must be left of each cell, in the order of a store's keys."""
        keys = sorted(range(KEYS), key=str)
        return (Write(minute, key, WRITES - 1) for minute in range(self.minutes) for key in keys)


def entry(table: Table, write: Write) -> Entry:
    """The record of a write; a later state has the higher stamp."""
    minute, key, state = write
    cell = table.row.new_cell()
    cell[STAMP], cell[FIRST], cell[EVENTS] = (minute * WRITES + state) * KEYS + key, minute, 2 + state
    cell[STATES:] = [(minute + state) * 1_000 + key, 0, 0, 3, 5]
    return Entry(encode_key(minute * SLICE_MS, str(key)), table.row.encode(cell, 0))


def digest(pairs: Iterable[tuple[bytes, bytes]]) -> str:
    """A hash of keys and values in order, with how many there are: `<count>-<hex>`."""
    sha, count = hashlib.sha256(), 0
    for key, value in pairs:
        sha.update(b"%d %d " % (len(key), len(value)) + key + value)
        count += 1
    return f"{count}-{sha.hexdigest()[:16]}"


def expected(table: Table, shape: Shape) -> str:
    """The digest of a partition's table that was restored right."""
    return digest((found.key or b"", found.value or b"") for found in (entry(table, w) for w in shape.final()))


async def fill(group: Group, log: Log, shape: Shape) -> None:
    """Write the changelog as flushes would, and a progress that covers it."""
    table = table_of(group)
    source = group.source_of(table.name).topic.name
    each = shape.records // shape.partitions
    for number in range(shape.partitions):
        tp = TP(group.changelog(table).name, number)
        writes = shape.writes(zombies=True)
        while entries := [entry(table, write) for write in islice(writes, FLUSH)]:
            await log.append({tp: entries})
        # of every source: one without would be pinned to its start by a flush, and each round find a longer changelog
        progress = [
            Progress(name, number, 0, SLICE_MS * (shape.minutes + 1), ends={table.name: each} if name == source else {})
            for name in (one.topic.name for one in group.sources)
        ]
        await log.append({TP(group.progress.name, number): [one.entry() for one in progress]})


def table_of(group: Group) -> Table:
    """The table that is filled."""
    return next(table for table in group.tables if table.name == TABLE)


def plain_entries(shape: Shape, start_s: float) -> Iterator[Entry]:
    """The same cells as plain Faust's changelog has them: JSON, a window's range in the key.

    No zombies among them: it takes a key's last record. `start_s` is where the first minute begins.
    """
    for minute, key, state in shape.writes(zombies=False):
        start = start_s + 60.0 * minute
        sums = {"placed": (minute + state) * 1_000 + key, "cancelled": 0, "refunded": 0, "orders": 3, "units": 5}
        yield Entry(orjson.dumps([str(key), [start, start + 59.9]]), orjson.dumps(sums))


def plain_expected(shape: Shape) -> str:
    """What plain Faust must hold over all partitions: how many cells, and the sum of `placed`."""
    placed = [(minute + state) * 1_000 + key for minute, key, state in shape.final()]
    return f"{len(placed) * shape.partitions}-{sum(placed) * shape.partitions}"
