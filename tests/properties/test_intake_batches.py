"""Whole batches decide as event by event: what is applied, late, dead and twice, whatever the batches."""

from dataclasses import dataclass

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from streams.codecs import decoder
from streams.dedupe import Seen
from streams.events import UserActivity, event_time_ms
from streams.intake import EventTime, Intake

AT = 1_000_000


@dataclass(frozen=True)
class Given:
    """A record as the intake sees it."""

    offset: int
    timestamp: int
    value: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


def value(at: int, event_id: int | None, ahead: bool) -> bytes:
    if at % 17 == 0:
        return b"not JSON"
    fields = {"eventType": "product.viewed", "userId": 1, "occurredAt": AT + at + (100_000 if ahead else 0)}
    return msgspec.json.encode(fields if event_id is None else fields | {"eventId": str(event_id)})


events = st.builds(
    value,
    st.integers(0, 40).map(lambda step: step * 499),
    st.none() | st.integers(0, 400),
    st.integers(0, 80).map(lambda luck: luck == 0),
)


def intake(dedupes: bool) -> Intake:
    rules = EventTime(slice_ms=1_000, grace_ms=2_000, max_ahead_ms=50_000)
    return Intake(decoder(UserActivity), event_time_ms, rules, Seen(3_000) if dedupes else None)


@given(st.lists(events, min_size=1, max_size=120), st.integers(1, 120), st.booleans())
def test_batches_decide_as_event_by_event(values: list[bytes], size: int, dedupes: bool) -> None:
    records = [Given(offset, AT, raw) for offset, raw in enumerate(values)]
    whole, single = intake(dedupes), intake(dedupes)
    told = [whole.take(records[start : start + size]) for start in range(0, len(records), size)]
    each = [single.take([record]) for record in records]
    for name in ("offsets", "windows", "ats"):
        together = [at for batch in told for at in getattr(batch, name)]
        assert together == [at for one in each for at in getattr(one, name)]
    late = [record.offset for batch in told for record in batch.late]
    assert late == [record.offset for one in each for record in one.late]
    dead = sorted(record.offset for batch in told for record, _ in batch.dead)
    assert dead == sorted(record.offset for one in each for record, _ in one.dead)
    assert sum(batch.duplicates for batch in told) == sum(one.duplicates for one in each)
    assert whole.watermark == single.watermark


def test_a_sources_own_event_time_counts_in_batches_too() -> None:
    records = [Given(offset, AT, value(offset, None, False)) for offset in range(1, 10)]
    own = Intake(decoder(UserActivity), lambda event, _: event.occurred_at + 1, EventTime())
    assert own.take(records).ats == [AT + offset + 1 for offset in range(1, 10)]
