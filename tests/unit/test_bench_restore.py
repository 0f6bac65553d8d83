import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.changelog import SLICE_MS, TABLE, Shape, digest, expected, fill, plain_entries, plain_expected, table_of
from bench.measure import Outcome
from bench.restore import summary
from bench.topologies import all_tables
from streams.cluster import Cluster
from streams.log import TP, Entry
from streams.memory_log import MemoryLog
from tables.recovery import restore
from topologies.settings import Settings

SHAPE = Shape.of(12_000, 2)
SETTINGS = Settings(cluster=Cluster("nowhere:1"), home=Path("nowhere"), state_dir=Path("nowhere"), partitions=2)
GROUP = all_tables(SETTINGS, "g", "orders").group


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog(read_batch=700)
    asyncio.run(fill(GROUP, log, SHAPE))
    return log


def changelog(log: MemoryLog, number: int) -> Sequence[Entry]:
    return [Entry(r.key, r.value) for r in log.records(TP(GROUP.changelog(table_of(GROUP)).name, number))]


def test_a_restore_of_the_changelog_comes_to_the_digest_that_is_expected(log: MemoryLog, tmp_path: Path) -> None:
    for found in asyncio.run(restore(GROUP, range(2), tmp_path, log)):
        store = found.partition.store
        assert digest(store.scan(TABLE, b"", b"\xff" * 9)) == expected(table_of(GROUP), SHAPE)
        assert found.changelog_records == SHAPE.records // 2
        store.close()


def test_whoever_takes_the_last_record_of_a_key_comes_to_another_digest(log: MemoryLog) -> None:
    last = {entry.key or b"": entry.value or b"" for entry in changelog(log, 0)}
    right = expected(table_of(GROUP), SHAPE)
    assert digest(sorted(last.items())) != right
    assert digest(sorted(last.items())).split("-")[0] == right.split("-")[0]


def test_plain_fausts_records_are_as_many_and_end_with_the_sum_that_is_expected() -> None:
    entries = list(plain_entries(SHAPE, 0.0))
    assert len(entries) == SHAPE.records // SHAPE.partitions
    assert entries[0].key == b'["0",[0.0,59.9]]'
    cells = len({entry.key for entry in entries})
    assert plain_expected(SHAPE).startswith(f"{cells * SHAPE.partitions}-")


def test_a_shape_is_of_whole_minutes_and_never_empty() -> None:
    assert (SHAPE.minutes, SHAPE.records) == (3, 12_000)
    assert Shape.of(1, 4).minutes == 1
    assert SLICE_MS == 60_000


def test_the_ratio_is_of_the_rounds_and_not_of_the_medians() -> None:
    rounds = [
        {"millrace": Outcome(100, ours, ours, 1.0), "plain_faust": Outcome(100, theirs, theirs, 1.0)}
        for ours, theirs in ((1.0, 10.0), (2.0, 10.0), (1.0, 30.0))
    ]
    result = summary(rounds)
    assert result["ratio_to_plain_faust"] == 10.0
    assert result["records_per_s"] == 100
