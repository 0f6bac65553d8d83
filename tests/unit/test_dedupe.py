"""What is remembered of event ids, by event time and by records."""

from random import Random

import pytest

from streams.dedupe import Seen, id_hashes, seen_of
from streams.topics import Topic


def test_a_topic_says_how_repeats_are_told() -> None:
    assert seen_of(Topic("plain")) is None
    by_time, by_records = seen_of(Topic("a", dedupe_s=300)), seen_of(Topic("b", dedupe_records=1_000))
    assert by_time is not None
    assert by_records is not None
    assert (by_time.window, by_time.by_offset) == (300_000, False)
    assert (by_records.window, by_records.by_offset) == (1_000, True)
    assert (by_time.now(7, 9), by_records.now(7, 9)) == (7, 9)


@pytest.mark.parametrize(("seconds", "records"), [(-1, 0), (0, -1), (1, 1)])
def test_a_topic_dedupes_in_one_way(seconds: float, records: int) -> None:
    with pytest.raises(ValueError, match="dedupe"):
        Topic("t", dedupe_s=seconds, dedupe_records=records)


def test_by_records_an_id_counts_for_exactly_the_window_whatever_its_event_time() -> None:
    seen = Seen(100, by_offset=True)
    (known,) = id_hashes(["a"])
    seen.remember(known, 10)
    assert seen.is_duplicate(known, 110)
    assert not seen.is_duplicate(known, 111)


@pytest.mark.parametrize("window", [1, 10, 100])
def test_no_id_is_forgotten_within_the_window_however_memory_is_tidied(window: int) -> None:
    chance = Random(window)
    seen, last = Seen(window, by_offset=True), dict[int, int]()
    for offset in range(3_000):
        known = chance.randrange(3 * window)
        expected = known in last and last[known] >= offset - window
        assert seen.is_duplicate(known, offset) == expected
        seen.remember(known, offset)
        last[known] = offset
        seen.advance(offset, offset)
    assert len(seen) <= 2 * (window + 1) + 3 * window


def test_what_was_drained_is_known_again_after_a_restart() -> None:
    seen = Seen(100, by_offset=True)
    hashes = id_hashes(f"{n}" for n in range(50))
    seen.remember_new(hashes, range(50))
    drained = seen.drain()
    assert seen.drain() == b""
    again = Seen(100, by_offset=True)
    assert again.load(drained) == 49
    assert all(again.is_duplicate(known, 100 + at) for at, known in enumerate(hashes))
    assert not again.is_duplicate(hashes[0], 101)


def test_what_could_not_be_written_is_drained_again() -> None:
    seen = Seen(100)
    seen.remember_new(id_hashes(["a", "b"]), [1, 2])
    drained = seen.drain()
    seen.remember_new(id_hashes(["c"]), [3])
    seen.undrain(drained)
    again = Seen(100)
    again.load(seen.drain())
    assert not again.all_new(id_hashes(["c"]))
    assert len(again) == 3


def test_reading_back_from_the_mark_finds_every_id_that_counts() -> None:
    chance = Random(3)
    for by_offset in (False, True):
        seen, sent = Seen(50, by_offset), list[tuple[int, int]]()
        now = 0
        for offset in range(1_000):
            now = offset if by_offset else now + chance.choice([0, 0, 1, 9])
            sent.append((now, offset))
            seen.remember(offset, now)
            seen.advance(now, offset)
            back = seen.read_back_from
            assert back is not None
            assert all(at < now - 50 for at, sent_at in sent[-200:] if sent_at < back)


def test_a_repeat_that_is_ahead_of_the_watermark_counts_for_a_whole_window_after_its_own_time() -> None:
    seen = Seen(100)
    seen.advance(1_000, 0)
    seen.remember(7, 1_300)  # moves no watermark
    for offset, watermark in enumerate((1_101, 1_202, 1_303, 1_400), start=9):
        seen.advance(watermark, offset)
        assert seen.is_duplicate(7, watermark)
        assert seen.read_back_from == 0
        assert seen.edge(watermark) == max(1_300, watermark)
    seen.advance(1_500, 13)
    assert not seen.is_duplicate(7, 1_500)
    seen.advance(1_602, 14)
    seen.advance(1_703, 15)
    assert len(seen) == 0
