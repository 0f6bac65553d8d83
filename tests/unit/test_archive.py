"""The archive's laws, with files on disk and in memory, without a broker."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from streams.codecs import decoder
from streams.consuming import Again
from streams.dedupe import seen_of
from streams.errors import MillraceError
from streams.events import OrderEvent, event_time_ms
from streams.intake import EventTime, Intake
from streams.log import TP
from streams.memory_log import MemoryRecord
from streams.topics import ORDER_EVENTS, Topic
from topologies.archive.archiving import Archive, runs
from topologies.archive.checking import check
from topologies.archive.files import Files
from topologies.archive.layout import day_of
from topologies.archive.querying import Tables

DAY = 86_400_000
TP0 = TP("order-events", 0)
ORDER = b'{"orderId":%d,"userId":"u","amount":7,"eventId":"e%d","items":[{"productId":1,"quantity":2,"price":3}]}'


def record(offset: int, at: int = DAY, value: bytes | None = None, key: bytes | None = b"user-u") -> MemoryRecord:
    return MemoryRecord(offset, at, key, value if value is not None else ORDER % (offset, offset), [("h", b"\xff")])


def records(first: int, end: int, at: int = DAY) -> list[MemoryRecord]:
    return [record(offset, at) for offset in range(first, end)]


@pytest.fixture(params=["disk", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files]:
    found = Files(str(tmp_path / "archive") if request.param == "disk" else f"memory://{uuid4().hex}")
    found.prepare()
    yield found
    if not found.local:
        found.fs.store.clear()


async def started(files: Files, end: int = 1_000_000, topic_id: str = "", first: int = 0) -> Archive:
    archive = Archive(files, [ORDER_EVENTS], {"order-events": topic_id})
    await archive.starts(TP0, first, end)
    return archive


def offsets(files: Files) -> list[int]:
    return [offset for path, _ in files.places("order-events") for offset in files.offsets(path)]


def rows(files: Files, sql: str) -> Sequence[Sequence[Any]]:
    with Tables(files, EventTime()) as tables:
        return tables.query(sql).rows


async def test_what_is_archived_is_where_the_next_one_begins(files: Files) -> None:
    await (await started(files))(TP0, records(0, 10))
    again = await started(files)
    assert again.next[TP0] == 10
    await again(TP0, records(5, 12))  # as after a commit that failed
    assert offsets(files) == list(range(12))


async def test_of_two_that_believe_to_own_a_partition_each_offset_is_archived_once(files: Files) -> None:
    one, two = await started(files), await started(files)
    await one(TP0, records(0, 10))
    await two(TP0, records(0, 15))
    await one(TP0, records(10, 12))
    await one(TP0, records(12, 20))
    await two(TP0, records(15, 30))
    assert offsets(files) == list(range(30))
    assert one.counts.overtaken + two.counts.overtaken == 3
    assert [found.faults for found in check(files, "order-events")] == [[]]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6), st.booleans()), max_size=25))
def test_however_archivers_interleave_and_start_anew_no_offset_is_there_twice_or_left_out(
    steps: list[tuple[int, int, bool]],
) -> None:
    async def run() -> None:
        files = Files(f"memory://{uuid4().hex}")
        archives = [await started(files) for _ in range(3)]
        reads = [0, 0, 0]
        for who, count, anew in steps:
            if anew:  # killed, and started again
                archives[who] = await started(files)
                reads[who] = archives[who].next[TP0]
            await archives[who](TP0, records(reads[who], reads[who] + count))
            reads[who] += count
        assert offsets(files) == list(range(max(archive.next[TP0] for archive in archives)))
        files.fs.store.clear()

    asyncio.run(run())


async def test_where_an_archive_stands_is_found_under_any_day_and_among_the_partitions_own_files(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole_topic(*_: Any, **__: Any) -> Any:
        raise AssertionError("they are millions, and those of all partitions")

    archive = Archive(files, [ORDER_EVENTS])
    days = {0: [5, 9, 3], 1: [9, 2], 11: [4, 7]}
    for number, of_records in days.items():
        await archive.starts(tp := TP("order-events", number), 0, 100)
        for offset, day in enumerate(of_records):
            await archive(tp, [record(offset, day * DAY)])
    for listing in ("find", "glob", "walk"):
        monkeypatch.setattr(files.fs, listing, whole_topic)
    found = files.newest(TP("order-events", 1))
    assert found is not None
    assert found[0].endswith("date=1970-01-03/partition=1/00000000000000000001.parquet")
    assert found[1].end == 2
    assert files.newest(TP("order-events", 2)) is None
    assert files.newest(TP("nothing", 0)) is None


async def test_a_row_has_all_that_the_record_had_and_the_fields_of_its_event(files: Files) -> None:
    await (await started(files))(TP0, [record(0), record(1, value=b"{"), record(2, value=b"", key=None)])
    ((order, user, amount, item, headers),) = rows(
        files, 'SELECT order_id, user_id, amount, items[1], headers FROM order_events WHERE "offset" = 0'
    )
    assert (order, user, amount, headers) == ("0", "u", 7, [{"name": "h", "value": b"\xff"}])
    assert item == {"product_id": "1", "category": "unknown", "quantity": 2, "price": 3}
    found = rows(files, 'SELECT "offset", key, value, unreadable IS NULL, id FROM order_events ORDER BY ALL')
    assert found == [
        (0, b"user-u", ORDER % (0, 0), True, "e0"),
        (1, b"user-u", b"{", False, "order-events-0-1"),
        (2, None, b"", False, "order-events-0-2"),
    ]


async def test_a_row_lies_under_its_own_day_or_a_later_one(files: Files) -> None:
    days = [1, 1, 2, 1, 2, 3, 1, 9]
    await (await started(files))(TP0, [record(offset, day * DAY) for offset, day in enumerate(days)])
    found = rows(files, 'SELECT date, count(*) FROM order_events WHERE date >= "timestamp"::DATE GROUP BY 1 ORDER BY 1')
    assert [(str(day), count) for day, count in found] == [
        ("1970-01-02", 2),
        ("1970-01-03", 3),
        ("1970-01-04", 2),
        ("1970-01-10", 1),
    ]


async def test_a_row_lies_under_no_earlier_day_also_where_a_part_of_its_batch_is_archived(files: Files) -> None:
    archive = await started(files)
    around_midnight = [record(offset, day * DAY) for offset, day in enumerate([2, 1, 2, 1, 2])]
    await archive(TP0, around_midnight[:1])
    await archive(TP0, around_midnight)  # as after a commit that failed
    assert offsets(files) == list(range(5))
    assert rows(files, 'SELECT "offset" FROM order_events WHERE date < "timestamp"::DATE') == []


@given(st.lists(st.integers(-1, 5 * DAY), min_size=1))
def test_days_part_records_and_change_nothing_about_them(times: list[int]) -> None:
    given_ = [record(offset, at) for offset, at in enumerate(times)]
    found = list(runs(given_))
    assert list(itertools.chain(*found)) == given_
    assert all(day_of(one.timestamp) <= day_of(run[0].timestamp) for run in found for one in run)


async def test_holes_of_the_log_are_none_of_the_archive(files: Files) -> None:
    archive = await started(files)
    await archive(TP0, [record(3), record(7)])  # compaction took the others
    await archive(TP0, [record(12)])
    (found,) = check(files, "order-events")
    assert (found.first, found.end, found.rows, found.faults) == (0, 13, 3, [])


async def test_what_the_log_deleted_before_it_was_archived_is_found(files: Files) -> None:
    await (await started(files))(TP0, records(0, 100))
    for first in (140, 151):  # killed after its start, before it wrote anything
        archive = await started(files, first=first)
    await archive(TP0, records(151, 160))
    await archive(TP0, records(160, 170))
    await (await started(files, first=151))(TP0, records(165, 180))
    (found,) = check(files, "order-events")
    assert (found.first, found.end, found.rows) == (0, 180, 129)
    assert len(found.faults) == 1
    assert "0100.parquet lacks 100 to 150: the log had deleted them" in found.faults[0]


async def test_what_another_archived_in_time_is_not_lost(files: Files) -> None:
    first = await started(files)
    await first(TP0, records(0, 100))
    late = await started(files, first=151)  # as after a pause: the other one has these records in its hands
    await first(TP0, records(100, 160))
    await late(TP0, records(151, 170))
    assert offsets(files) == list(range(170))
    assert [found.faults for found in check(files, "order-events")] == [[]]


async def test_what_is_missing_damaged_or_there_twice_is_found(files: Files) -> None:
    archive = await started(files)
    for first in range(0, 40, 10):
        await archive(TP0, records(first, first + 10))
    paths = [path for path, _ in files.places("order-events")]
    files.fs.rm(paths[1])
    files.fs.pipe_file(paths[2].replace("0020", "0015"), files.fs.cat_file(paths[2]))
    files.fs.pipe_file(paths[3], b"PAR1 and nothing else PAR1")
    (found,) = check(files, "order-events")
    said = "\n".join(found.faults)
    assert "10 to 19 are missing" in said
    assert "begins at 20, before 30" in said
    assert "is damaged" in said


async def test_an_archive_of_another_topic_of_the_same_name_is_refused(files: Files) -> None:
    await (await started(files, topic_id="one"))(TP0, records(0, 10))
    with pytest.raises(MillraceError, match="is of another topic"):
        await started(files, topic_id="two")
    with pytest.raises(MillraceError, match="up to 10, this one ends at 4"):
        await started(files, end=4)


async def test_where_the_storage_fails_it_is_tried_again_from_the_same_offset(tmp_path: Path) -> None:
    files, told = Files(str(tmp_path / "archive")), list[str]()
    archive = Archive(files, [ORDER_EVENTS], tell=told.append)
    await archive.starts(TP0, 0, 100)
    (tmp_path / "archive").write_text("in the way")
    for _ in range(3):
        with pytest.raises(Again) as again:
            await archive(TP0, records(0, 10))
        assert again.value.at == 0
    (tmp_path / "archive").unlink()
    await archive(TP0, records(0, 10))
    assert offsets(files) == list(range(10))
    assert len(told) == 1


async def test_how_far_others_are_is_asked_again_where_the_storage_fails(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise OSError("away")

    one, another = await started(files), Archive(files, [ORDER_EVENTS])
    await one(TP0, records(0, 10))
    with monkeypatch.context() as broken:
        broken.setattr(files.fs, "exists", away)
        assert not await another.reaches(TP0, 10)
    assert [await who.reaches(TP0, end) for who in (one, another) for end in (10, 11)] == [True, False] * 2
    await another.starts(TP0, 0, 1_000)
    await another(TP0, records(10, 11))
    assert await one.reaches(TP0, 11)


class Lossy(MemoryFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """An object store whose client fails with errors of its own: before or after what it was asked to put is there."""

    protocol = "lossy"
    cachable = False
    fails: ClassVar[list[str]] = []

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        fails = self.fails.pop() if self.fails else ""
        if fails != "before":
            super().pipe_file(path, value, mode=mode, **kwargs)
        if fails:
            raise RuntimeError(f"connection lost {fails}")


async def test_a_put_whose_answer_is_lost_is_archived_once() -> None:
    fsspec.register_implementation("lossy", Lossy, clobber=True)
    files = Files(f"lossy://{uuid4().hex}")
    archive = await started(files)
    Lossy.fails = ["after"]
    await archive(TP0, records(0, 10))
    Lossy.fails = ["before"]
    with pytest.raises(Again) as again:
        await archive(TP0, records(10, 20))
    assert again.value.at == 10
    await archive(TP0, records(10, 20))
    assert offsets(files) == list(range(20))
    assert archive.counts.records == 20


async def test_a_killed_writer_leaves_nothing_that_counts(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    files.prepare()
    (tmp_path / ".incoming" / "torn.parquet").write_bytes(b"PAR1")
    archive = await started(files)
    await archive(TP0, records(0, 3))
    assert offsets(files) == [0, 1, 2]
    assert rows(files, "SELECT count(*) FROM order_events") == [(3,)]
    files.prepare()
    assert (tmp_path / ".incoming" / "torn.parquet").exists()  # another one may be at work on it


def test_a_storage_that_cannot_create_only_what_is_not_there_is_refused() -> None:
    with pytest.raises(MillraceError, match="only where there is none"):
        Files("dir::memory://somewhere")
    with pytest.raises(MillraceError, match="cannot be reached"):
        Files("nonsense://somewhere")


async def test_a_topic_without_a_type_is_archived_as_bytes(files: Files) -> None:
    tp = TP("sensor.readings", 1)
    archive = Archive(files, [Topic("sensor.readings")])
    await archive.starts(tp, 5, 100)
    await archive(tp, [record(5, value=b"\x00\xff"), record(6, value=None, key=None)])
    assert rows(files, 'SELECT "offset", value, "partition" FROM sensor_readings ORDER BY 1')[0] == (5, b"\x00\xff", 1)


async def archived(files: Files, *topics: str) -> None:
    """One record of each topic, which is the topic's name."""
    archive = Archive(files, [Topic(name) for name in topics])
    for name in topics:
        await archive.starts(TP(name, 0), 0, 100)
        await archive(TP(name, 0), [record(0, value=name.encode())])


async def test_whatever_a_topic_is_called_there_is_a_table_of_it(files: Files) -> None:
    names = ["order", "left", "a-b", "a.b", "A_b", "a_b_2", "1", "-", "order-events.counted", "own-order.events"]
    await archived(files, *names)
    with Tables(files, EventTime(), prefix="own-") as tables:
        found = {table: tables.query(f'SELECT value FROM "{table}"').rows for table in tables.names}
        assert sorted(value for ((value,),) in found.values()) == sorted(name.encode() for name in names)
        assert found["order_events"] == [(b"own-order.events",)]
        with pytest.raises(MillraceError) as failed:
            tables.query("SELECT * FROM order")
    told = str(failed.value).partition("tables: ")[2]
    assert '"order", ' in told
    assert "a_b_3 of topic a.b" in told


async def test_orders_are_counted_from_the_shops_own_topic(files: Files) -> None:
    await archived(files, "Order-events", "order.events", "order-events")
    archive = Archive(files, [replace(ORDER_EVENTS, name="shop-order-events")])
    await archive.starts(TP("shop-order-events", 0), 0, 100)
    await archive(TP("shop-order-events", 0), records(0, 3))
    with Tables(files, EventTime(), prefix="shop-") as tables:
        assert tables.query("SELECT count(*) FROM order_events_counted").rows == [(3,)]
    with Tables(files, EventTime(), prefix="another-") as tables:
        assert "order_events_counted" not in tables.names


async def test_a_table_that_cannot_be_read_is_told_with_its_topic(files: Files) -> None:
    await archived(files, "a", "b")
    files.fs.pipe_file(files.places("b")[0][0], b"PAR1 and nothing else PAR1")
    with pytest.raises(MillraceError, match="the archive of topic b cannot be read"):
        rows(files, "SELECT 1")


class Reading(Struct, rename="camel"):
    """An event of somebody's own, with a field of every kind."""

    id: int
    at: datetime
    ok: bool = True
    level: float = 0.5
    tags: list[str] = []  # msgspec copies it
    more: dict[str, int] = {}
    either: int | str | list[int] | None = None
    huge: int = 0


async def test_columns_follow_from_any_type(files: Files) -> None:
    topic, tp = Topic("readings", Reading), TP("readings", 0)
    archive = Archive(files, [topic])
    await archive.starts(tp, 0, 100)
    full = b'{"id":1,"at":"1970-01-01T00:00:01","ok":false,"tags":["a"],"more":{"b":2},"either":"c","huge":%d}' % 2**70
    await archive(tp, [record(0, value=full), record(1, value=b'{"id":2,"at":"1969-12-31T23:59:59.5Z"}')])
    found = rows(files, 'SELECT event_id, epoch_ms("at"), ok, level, tags, more, either, huge FROM readings ORDER BY 1')
    assert found[0] == (1, 1_000, False, 0.5, ["a"], '{"b":2}', '"c"', None)
    assert found[1] == (2, -500, True, 0.5, [], "{}", None, 0)


MINUTE = 60_000


def order(offset: int, at: int, name: str | None = None) -> MemoryRecord:
    value = f'{{"orderId":{offset},"userId":1,"amount":1,"eventId":"{name or offset}","occurredAt":{at}}}'
    return record(offset, 10 * MINUTE, value.encode())


async def test_what_is_late_a_duplicate_or_from_the_future_is_not_counted(files: Files) -> None:
    given_ = [
        order(0, 5 * MINUTE),
        order(1, 21 * MINUTE),  # 11 minutes ahead of its record
        order(2, 7 * MINUTE - 1),
        order(3, 4 * MINUTE + 59_999),  # its minute ended at 5, and its grace at 6
        order(4, 7 * MINUTE),
        order(5, 5 * MINUTE),  # and this one's at 7
        order(6, 6 * MINUTE, name="2"),
        order(7, 6 * MINUTE),
        record(8, 10 * MINUTE, b"{"),
    ]
    await (await started(files))(TP0, given_)
    assert rows(files, 'SELECT "offset" FROM order_events_counted ORDER BY 1') == [(0,), (2,), (4,), (7,)]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6)), max_size=60), st.sampled_from([1, 3, 10]))
@example([(3, 0), (9, 1), (3, 0)], 10)  # so long ago that its id is forgotten, in a slice that is open
@settings(deadline=None, max_examples=25)
def test_what_is_counted_in_sql_is_what_the_tables_take(events: list[tuple[int, int]], slice_min: int) -> None:
    """The rules of `streams.intake`, which the tables go by, and the same in SQL."""
    rules = EventTime(slice_min * MINUTE, MINUTE, 5 * MINUTE)
    given_ = [order(offset, at * MINUTE, name=f"{name}-{at}") for offset, (at, name) in enumerate(events)]
    intake = Intake(decoder(OrderEvent), event_time_ms, rules, seen_of(ORDER_EVENTS))
    taken = [offset for one in given_ for offset in intake.take([one]).offsets]

    async def counted() -> list[int]:
        files = Files(f"memory://{uuid4().hex}")
        await (await started(files))(TP0, given_)
        with Tables(files, rules) as tables:
            found = tables.query('SELECT "offset" FROM order_events_counted ORDER BY 1').rows
        files.fs.store.clear()
        return [offset for (offset,) in found]

    assert (asyncio.run(counted()) if given_ else []) == taken
