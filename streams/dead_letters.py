"""Records that cannot be applied, as they go to `<topic>.dead-letters`; late events, to `<topic>.late`; and replays.

Key and value are the source record's own bytes, so that a mended record can be sent again as it is; what is known
about it is in headers, as text: `reason`, `stage` (`intake`: it does not decode, or its time cannot be; `fold`: no
table can take it), `source-topic`, `source-partition`, `source-offset`, `source-timestamp` (ms), and `id`
(topic-partition-offset), the same whenever the record is decided on again after a crash.

A replay is the record sent again to where it came from, with the header `replayed-from: <id>`; of all replays of an
id one is taken (`streams.put_aside`). After a dead letter of stage `fold` it also has `replayed-stage: fold`: the
original's eventId is remembered as seen, and must not make its own replay a duplicate.
"""

import re
from collections.abc import Sequence
from operator import attrgetter
from typing import Final, Literal

from streams.log import TP, Entry, Headers, Record

REASON_CHARS = 500
REPLAYED_FROM: Final = "replayed-from"
REPLAYED_STAGE: Final = "replayed-stage"
OURS: Final = frozenset(
    {
        *("id", "reason", "stage", REPLAYED_FROM, REPLAYED_STAGE),
        *("source-topic", "source-partition", "source-offset", "source-timestamp"),
    }
)
Stage = Literal["intake", "fold"]

_ID: Final = re.compile(r"(.{1,249})-([0-9]{1,10})-([0-9]{1,19})")
_headers = attrgetter("headers")


def dead_letter(tp: TP, record: Record, reason: str, stage: Stage = "intake") -> Entry:
    """The record, put aside with its reason."""
    said = [("reason", reason[:REASON_CHARS].encode(errors="replace")), ("stage", stage.encode())]
    return Entry(record.key, record.value, [*own_headers(record.headers), *said, *_origin(tp, record)])


def late_entry(tp: TP, record: Record) -> Entry:
    """The record, put aside because its window had closed."""
    return Entry(record.key, record.value, [*own_headers(record.headers), *_origin(tp, record)])


def own_headers(headers: Headers) -> list[tuple[str, bytes]]:
    """A record's headers without those that this module adds."""
    return [(name, value) for name, value in headers if name not in OURS]


def replay_headers(headers: Headers, origin: str, stage: str) -> list[tuple[str, bytes]]:
    """The headers with which a dead letter goes back to its topic."""
    said = [(REPLAYED_FROM, origin.encode())]
    if stage == "fold":
        said.append((REPLAYED_STAGE, b"fold"))
    return [*own_headers(headers), *said]


def parse_id(text: str) -> tuple[TP, int] | None:
    """The place that an id names; None for what is no id.

    >>> parse_id("order-events-3-17")
    (TP(topic='order-events', partition=3), 17)
    """
    match = _ID.fullmatch(text)
    return (TP(match[1], int(match[2])), int(match[3])) if match else None


def replays(tp: TP, records: Sequence[Record]) -> dict[int, int]:
    """Of the records that are replays of this partition's own: the offset, and the original's offset."""
    if not any(map(_headers, records)):
        return {}
    found = {}
    for record in records:
        if record.headers and (original := _original(tp, record.headers)) is not None:
            found[record.offset] = original
    return found


def is_past_fold(record: Record) -> bool:
    """Whether a replay's original came as far as the folds, so that its eventId is remembered."""
    return (REPLAYED_STAGE, b"fold") in record.headers


def _original(tp: TP, headers: Headers) -> int | None:
    raw = next((value for name, value in headers if name == REPLAYED_FROM), None)
    place = parse_id(raw.decode(errors="replace")) if raw else None
    return place[1] if place is not None and place[0] == tp else None


def _origin(tp: TP, record: Record) -> list[tuple[str, bytes]]:
    fields = {
        "id": f"{tp.topic}-{tp.partition}-{record.offset}",
        "source-topic": tp.topic,
        "source-partition": tp.partition,
        "source-offset": record.offset,
        "source-timestamp": record.timestamp,
    }
    return [(name, str(value).encode()) for name, value in fields.items()]
