"""What groups with side effects do with records before they act on them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from streams.consuming import Again, Backoff
from streams.dead_letters import REPLAYED_FROM, told
from streams.log import TP, Entry, LogError, Span
from streams.memory_log import MemoryLog, MemoryRecord
from streams.taking import Taken, Taking
from streams.topics import ORDER_EVENTS

TP0 = TP("order-events", 0)
ASIDE = TP("order-events.dead-letters", 0)
ORDER = b'{"orderId":1,"userId":2,"amount":3}'


def record(offset: int, value: bytes | None = ORDER, *headers: tuple[str, bytes]) -> MemoryRecord:
    return MemoryRecord(offset, 1_000 + offset, b"user-2", value, headers)


class Handler:
    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.taken: list[Taken] = []

    async def __call__(self, tp: TP, taken: Sequence[Taken]) -> None:
        if self.failures:
            raise self.failures.pop()
        self.taken += taken


class Away(MemoryLog):
    async def append(self, appends: Mapping[TP, Sequence[Entry]]) -> dict[TP, list[Span]]:
        raise LogError("away")


def letters(log: MemoryLog) -> list[Any]:
    return [told(one.headers) for one in log.records(ASIDE)]


async def test_what_does_not_decode_is_put_aside_with_its_reason_and_the_rest_goes_on() -> None:
    log, handler = MemoryLog(), Handler()
    await Taking(log, [ORDER_EVENTS], handler)(TP0, [record(7), record(8, b"{"), record(9, None), record(10)])
    assert [one.record.offset for one in handler.taken] == [7, 10]
    assert [letter.id for letter in letters(log)] == ["order-events-0-8", "order-events-0-9"]
    assert all(letter.stage == "intake" and letter.reason for letter in letters(log))


async def test_an_event_of_before_1970_is_put_aside_as_the_workers_do() -> None:
    log, handler = MemoryLog(), Handler()
    early = b'{"orderId":1,"userId":1,"amount":1,"occurredAt":"1969-12-31T00:00:00Z"}'
    await Taking(log, [ORDER_EVENTS], handler)(TP0, [record(7, early), record(8)])
    assert [one.record.offset for one in handler.taken] == [8]
    [letter] = letters(log)
    assert (letter.id, letter.stage, letter.reason) == ("order-events-0-7", "intake", "occurredAt is before 1970")


async def test_what_comes_again_because_the_handler_asks_is_put_aside_once() -> None:
    log, handler = MemoryLog(), Handler(Again(1), Again(1))
    taking = Taking(log, [ORDER_EVENTS], handler)
    records = [record(7, b"{"), record(8)]
    for _ in range(2):
        with pytest.raises(Again):
            await taking(TP0, records)
    await taking(TP0, records)
    assert len(letters(log)) == taking.dead == 1
    assert [one.record.offset for one in handler.taken] == [8]


async def test_nothing_behind_a_record_that_cannot_be_put_aside_now_is_handled() -> None:
    handler = Handler()
    with pytest.raises(Again):
        await Taking(Away(), [ORDER_EVENTS], handler)(TP0, [record(7), record(8, b"{")])
    assert handler.taken == []


async def test_an_event_has_the_same_identity_whenever_it_comes_again() -> None:
    handler = Handler()
    named = b'{"orderId":1,"userId":2,"amount":3,"eventId":"order-1-placed"}'
    again = record(9, ORDER, (REPLAYED_FROM, b"order-events-0-8"))
    await Taking(MemoryLog(), [ORDER_EVENTS], handler)(TP0, [record(7, named), record(8), again])
    assert [one.id for one in handler.taken] == ["order-1-placed", "order-events-0-8", "order-events-0-8"]


def test_waiting_grows_to_its_bound_and_never_beyond() -> None:
    backoff = Backoff(0.5, 60)
    assert all(0.25 <= backoff.after(1) <= 0.5 for _ in range(50))
    assert all(30 <= backoff.after(10_000) <= 60 for _ in range(50))
