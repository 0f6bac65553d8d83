"""A local copy of a derived topic: the last value of each key, the newest first, across restarts and repeats."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.log import TP, Headers
from streams.topics import Topic
from tables.topic_copy import Copied, TopicCopy, after

ALERTS = Topic("alerts", partitions=2, cleanup="compact", retention_s=None)


@dataclass(frozen=True)
class Sent:
    """A record as a consumer returns it."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 0
    headers: Headers = ()


def time_of(key: bytes, value: bytes) -> int | None:
    """A value is its time, or nothing that is listed."""
    return int(value) if value.isdigit() else None


@pytest.fixture
def directory() -> Iterator[Path]:
    with TemporaryDirectory() as path:
        yield Path(path) / "copy"


def opened(directory: Path, keep: int | None = None, *, timed: bool = True) -> TopicCopy:
    return TopicCopy(Copied(ALERTS, time_of if timed else None, keep), directory)


def send(copy: TopicCopy, *pairs: tuple[bytes, bytes | None], partition: int = 0) -> None:
    tp = TP(ALERTS.name, partition)
    first = copy.positions()[tp]
    copy.apply(tp, [Sent(first + i, key, value) for i, (key, value) in enumerate(pairs)])


KEYS = st.sampled_from([b"", b"a", b"a\xff", b"b", b"\xff" * 9])
VALUES = st.none() | st.integers(0, 30).map(lambda at: str(at).encode()) | st.just(b"never") | st.just(b"")
STREAMS = st.lists(st.tuples(KEYS, VALUES), max_size=40)


@pytest.mark.timeout(300)  # every restart writes to the disk, which others may be writing to
@settings(max_examples=25, deadline=None)
@given(stream=STREAMS, data=st.data())
def test_a_copy_is_the_last_value_of_each_key_whatever_comes_again_or_is_restarted(
    stream: list[tuple[bytes, bytes | None]], data: st.DataObject
) -> None:
    tp = TP(ALERTS.name, 1)
    with TemporaryDirectory() as path:
        copy = opened(Path(path) / "copy")
        while (position := copy.positions()[tp]) < len(stream):
            start = data.draw(st.integers(0, position))
            end = data.draw(st.integers(start, len(stream)))
            copy.apply(tp, [Sent(i, *stream[i]) for i in range(start, end)])
            if data.draw(st.booleans()):
                copy.close()
                copy = opened(Path(path) / "copy")
        expected = {key: value for key, value in dict(stream).items() if value is not None}
        keys = [key for key, _ in stream]
        assert copy.get_many(keys) == [expected.get(key) for key in keys]
        assert dict(copy.starting(b"")) == expected
        timed = sorted(((int(v), k, v) for k, v in expected.items() if v.isdigit()), reverse=True)
        assert [tuple(found) for found in copy.newest(100)] == timed
        assert copy.listed == len(timed)
        copy.close()


@settings(max_examples=25, deadline=None)
@given(stream=STREAMS, keep=st.integers(1, 4), batch=st.integers(1, 7))
def test_a_bounded_copy_never_holds_more_and_holds_the_newest_of_what_only_grows(
    stream: list[tuple[bytes, bytes | None]], keep: int, batch: int
) -> None:
    grown = [(b"%d" % number, value) for number, (_, value) in enumerate(stream)]
    with TemporaryDirectory() as path:
        copy = opened(Path(path) / "copy", keep)
        for i in range(0, len(grown), batch):
            send(copy, *grown[i : i + batch])
            assert len(list(copy.starting(b""))) == copy.listed <= keep
        timed = sorted(((int(v), k) for k, v in grown if v is not None and v.isdigit()), reverse=True)
        assert [found.place for found in copy.newest(100)] == timed[:keep]
        copy.close()


def test_a_page_goes_on_where_the_one_before_ended_also_among_equal_times(directory: Path) -> None:
    copy = opened(directory)
    send(copy, (b"a", b"5"), (b"b", b"5"), (b"c", b"5"), (b"d", b"4"), (b"e", b"6"))
    first = copy.newest(2)
    assert [found.key for found in first] == [b"e", b"c"]
    second = copy.newest(2, first[-1].place)
    assert [found.key for found in second] == [b"b", b"a"]
    assert [found.key for found in copy.newest(2, second[-1].place)] == [b"d"]
    assert [found.key for found in copy.newest(9, 5)] == [b"d"]
    assert copy.newest(9, -7) == []
    copy.close()


def test_a_restart_goes_on_with_the_tail(directory: Path) -> None:
    copy = opened(directory)
    send(copy, (b"a", b"1"), (b"b", b"2"))
    send(copy, (b"c", b"3"), partition=1)
    copy.close()
    copy = opened(directory)
    assert copy.positions() == {TP("alerts", 0): 2, TP("alerts", 1): 1}
    send(copy, (b"a", None))
    assert [found.key for found in copy.newest(9)] == [b"c", b"b"]
    copy.close()


def test_another_topic_of_the_same_name_begins_a_copy_anew(directory: Path) -> None:
    copy = opened(directory)
    assert copy.bind({"alerts": "id-1", "others": "id-7"})
    send(copy, (b"a", b"1"))
    assert copy.bind({"alerts": "id-1"})
    assert copy.bind({"others": "id-8"})
    assert copy.get(b"a") == b"1"
    assert not copy.bind({"alerts": "id-2"})
    assert (copy.get(b"a"), copy.listed, copy.newest(1)) == (None, 0, [])
    assert set(copy.positions().values()) == {0}
    assert copy.bind({"alerts": "id-2"})
    copy.close()


@pytest.mark.parametrize(("keep", "timed"), [(3, True), (None, False)])
def test_a_copy_that_was_kept_otherwise_begins_anew(directory: Path, keep: int | None, timed: bool) -> None:
    copy = opened(directory)
    send(copy, (b"a", b"1"))
    copy.close()
    copy = opened(directory, keep, timed=timed)
    assert set(copy.positions().values()) == {0}
    assert copy.get(b"a") is None
    copy.close()


def test_a_record_whose_time_cannot_be_read_is_kept_and_not_listed(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = TopicCopy(Copied(ALERTS, lambda key, value: int(value)), directory)
    send(copy, (b"a", b"soon"), (b"b", b"1"), (b"c", b"-1"), (b"d", b"later"), (b"e", str(2**63).encode()))
    assert [found.key for found in copy.newest(9)] == [b"b"]
    assert copy.get(b"a") == b"soon"
    assert len(caplog.records) == 1
    copy.close()


def test_keys_that_begin_alike_are_listed_either_way(directory: Path) -> None:
    copy = opened(directory)
    send(copy, *((key, key) for key in (b"[1,10]", b"[1,20]", b"[1,30]", b"[10,10]", b"[2,10]")))
    assert [key for key, _ in copy.starting(b"[1,")] == [b"[1,10]", b"[1,20]", b"[1,30]"]
    assert [key for key, _ in copy.starting(b"[1,", last_first=True)] == [b"[1,30]", b"[1,20]", b"[1,10]"]
    assert list(copy.starting(b"[3,")) == []
    copy.close()


def test_the_key_after_a_prefix_is_after_all_that_begin_so() -> None:
    assert after(b"ab") == b"ac"
    assert after(b"\xff") > b"\xff" * 900
    assert after(b"") > b"\xff" * 900


@pytest.mark.parametrize(
    ("copied", "words"),
    [
        ({"topic": Topic("cut")}, "not compacted"),
        ({"topic": ALERTS, "keep": 5}, "keep needs time_of"),
        ({"topic": ALERTS, "keep": 0, "time_of": time_of}, "at least 1"),
    ],
)
def test_a_copy_that_could_not_be_right_is_refused(copied: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Copied(**copied)  # type: ignore[arg-type]  # as each case has them
