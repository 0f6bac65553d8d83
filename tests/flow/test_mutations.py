"""The exactness suite can fail: with each guard taken out, at least one of its laws breaks."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import test_exactness

from streams.log import Entry, Record
from tables import flush, reading, recovery
from tables.cache import Cache
from tables.horizon import horizon as horizon_of
from tables.partition import Feed, Partition
from tables.row_source import compile_row
from tables.store import Store

Break = Callable[[pytest.MonkeyPatch], None]


def stamps_ignored(patch: pytest.MonkeyPatch) -> None:
    """A torn flush's accumulators take their events again."""

    def compiled(*args: Any) -> dict[str, Any]:
        code = compile_row(*args)
        return {**code, "apply_checked": code["apply"]}

    patch.setattr("tables.accumulators.compile_row", compiled)


def progress_written_first(patch: pytest.MonkeyPatch) -> None:
    """The progress claims records whose accumulators are not in the changelog yet."""
    append, append_progress = flush._append, flush._append_progress

    async def progress_then_rest(partition: Partition, pending: flush.Pending) -> None:
        await append_progress(partition, pending)
        await append(partition, pending)

    async def nothing(partition: Partition, pending: flush.Pending) -> None:
        return None

    patch.setattr(flush, "_append", progress_then_rest)
    patch.setattr(flush, "_append_progress", nothing)


def records_before_the_progress_not_skipped(patch: pytest.MonkeyPatch) -> None:
    """Whatever is delivered is applied, wherever the position is."""
    patch.setattr(Partition, "_new_records", lambda self, feed, records, base: records)


def expired_one_flush_early(patch: pytest.MonkeyPatch) -> None:
    """A slice is dropped by the flush that closes it, before a progress covers its end."""

    def early(partition: Partition, feed: Feed, cache: Cache) -> int:
        durable = feed.durable
        if durable is None:
            return horizon_of(partition, feed, cache)
        now = replace(feed, durable=msgspec.structs.replace(durable, watermark=feed.intake.watermark))
        return horizon_of(partition, now, cache)

    patch.setattr(flush, "horizon", early)


def the_last_record_wins(patch: pytest.MonkeyPatch) -> None:
    """Stamps do not fence zombies: recovery and readers take a key's last record."""

    def last(records: Iterable[Record]) -> dict[bytes, bytes]:
        found = {r.key: r.value for r in records if r.key is not None}
        return {key: value for key, value in found.items() if value is not None}

    patch.setattr(reading, "newest_by_key", last)
    patch.setattr(recovery, "STAMP_SLICE", slice(0, 0))
    patch.setattr(Store, "get_many", lambda self, table, keys: [None] * len(keys))


def no_look_at_foreign_records(patch: pytest.MonkeyPatch) -> None:
    """Nobody sees that a zombie wrote in between, and compaction keeps what it wrote."""
    gaps = flush._gaps

    def unseen(table: flush.TableFlush, spans: Any) -> list[tuple[int, int]]:
        gaps(table, spans)
        return []

    async def not_looking(*_: object) -> None:
        return None

    patch.setattr(flush, "_gaps", unseen)
    patch.setattr("tables.engine.look_for_foreign", not_looking)


def outdone_keys_not_said_again(patch: pytest.MonkeyPatch) -> None:
    """A restore finds what a zombie wrote last and keeps the better record, but says so to nobody."""
    say = flush._said_again

    def noted(partition: Partition, table: flush.TableFlush) -> list[Entry]:
        say(partition, table)
        return []

    patch.setattr(flush, "_said_again", noted)


def laws() -> Iterator[Callable[[], None]]:
    """Every law of the suite that needs no arguments, and the torn flushes."""
    for name, law in inspect.getmembers(test_exactness, inspect.isfunction):
        if name.startswith("test_") and not inspect.signature(law).parameters:
            yield law
    for entries in range(7):
        yield lambda n=entries: test_exactness.test_a_flush_torn_after_any_number_of_records_changes_no_total(n, True)  # type: ignore[misc]


@pytest.mark.parametrize(
    "broken",
    [
        stamps_ignored,
        progress_written_first,
        records_before_the_progress_not_skipped,
        expired_one_flush_early,
        the_last_record_wins,
        no_look_at_foreign_records,
        outdone_keys_not_said_again,
    ],
)
def test_the_suite_fails_without_this_guard(broken: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    assert any(fails(law) for law in laws())


def fails(law: Callable[[], None]) -> bool:
    """Whether a law does not hold."""
    try:
        law()
    except AssertionError:
        return True
    return False
