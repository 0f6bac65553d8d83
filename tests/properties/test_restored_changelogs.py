"""However a changelog is cut into stretches, and whoever wrote it, a restore holds what a plain loop over it holds."""

import asyncio
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.log import TP, Entry
from streams.memory_log import MemoryLog
from streams.topics import Topic
from tables.accumulators import EVENTS, STAMP, encode_key, stamp_of
from tables.aggregates import Sum
from tables.progress import Progress
from tables.recovery import restore
from tables.table import Group, Source, Table

TABLE = Table("t", {"sum": Sum()}, fold=lambda event: ())
ORDERS = Topic("orders", bytes, partitions=1)
GROUP = Group("g", (Source(ORDERS, (TABLE,), decode=lambda raw: raw),))
CHANGELOG, PROGRESS = TP(GROUP.changelog(TABLE).name, 0), TP(GROUP.progress.name, 0)
SLICE_MS = 60_000
ALL = (encode_key(0, ""), b"\xff" * 9)
WAYS = count()

keys = st.builds(lambda slice_, key: encode_key(slice_ * SLICE_MS, key), st.integers(0, 3), st.sampled_from("abc"))
puts = st.tuples(keys, st.integers(0, 3), st.integers(0, 9))


def value(epoch: int, stamp: int) -> bytes:
    cell = TABLE.row.new_cell()
    cell[STAMP], cell[EVENTS] = stamp, 1
    return TABLE.row.encode(cell, epoch)


def held_by_a_loop(entries: Iterable[Entry]) -> dict[bytes, bytes]:
    held: dict[bytes, bytes] = {}
    for key, raw, _ in entries:
        if key is None:
            continue
        if raw is None:
            held.pop(key, None)
        elif key not in held or stamp_of(raw) > stamp_of(held[key]):
            held[key] = raw
    return held


def restored(log: MemoryLog, home: Path, entries: list[Entry]) -> tuple[dict[bytes, bytes], set[bytes]]:
    """What a restore holds after these were appended, and the keys that it leaves for the next flush to say again."""
    for entry in entries:
        log.put(CHANGELOG, entry)
    end = len(log.records(CHANGELOG))
    log.put(PROGRESS, Progress(ORDERS.name, 0, 10, 0, ends={TABLE.name: end}).entry())
    (found,) = asyncio.run(restore(GROUP, [0], home, log))
    store = found.partition.store
    try:
        return dict(store.scan(TABLE.name, *ALL)), found.partition.outdone.get(TABLE.name, set())
    finally:
        store.close()


@given(
    st.lists(st.one_of(puts, st.none()), max_size=40),
    st.lists(keys, max_size=3),
    st.integers(1, 50),
    st.integers(0, 40),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_restore_holds_each_keys_highest_stamp_and_owns_up_to_keys_that_end_with_a_lower_one(
    tmp_path: Path, written: list[tuple[bytes, int, int] | None], dropped: list[bytes], batch: int, cut: int
) -> None:
    entries = [Entry(one[0], value(*one[1:])) if one else Entry(None, b"no key") for one in written]
    entries += [Entry(key, None) for key in dropped]
    log, home = MemoryLog(read_batch=batch), tmp_path / str(next(WAYS))
    for _ in range(10):
        log.put(TP(ORDERS.name, 0), Entry(None, b""))  # what the progress says was applied
    restored(log, home, entries[:cut])
    held, outdone = restored(log, home, entries[cut:])
    assert held == held_by_a_loop(entries)
    last = {key: raw for key, raw, _ in entries if key is not None}
    assert {key for key, raw in last.items() if raw is not None and raw != held[key]} <= outdone


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_a_zombies_record_that_its_successor_outdid_again_leaves_nothing_to_settle_in_its_stretch(
    tmp_path: Path, batch: int
) -> None:
    key = encode_key(0, "a")
    log = MemoryLog(read_batch=batch)
    for _ in range(10):
        log.put(TP(ORDERS.name, 0), Entry(None, b""))
    held, outdone = restored(log, tmp_path, [Entry(key, value(0, stamp)) for stamp in (5, 2, 7)])
    assert held == {key: value(0, 7)}
    assert outdone == ({key} if batch == 1 else set())
