"""Records that cannot be applied, as they go to `<topic>.dead-letters`; late events, to `<topic>.late`; and replays.

Key and value are the source record's own bytes, so that a mended record can be sent again as it is; what is known
about it comes in headers after its own, as text: `reason`, `stage` (`intake`: it does not decode, or its time cannot
be; `fold`: no table can take it; `effect`: what it asks for could not be done), `cut` (bytes missing from a giant
value), `id` (topic-partition-offset), the same whenever the record is decided on again after a crash, `source-topic`,
`source-partition`, `source-offset` and `source-timestamp` (ms).

A replay is the record sent again to where it came from, with the header `replayed-from: <id>`; of all replays of an
id one is taken (`streams.put_aside`). After a dead letter of stage `fold` it also has `replayed-stage: fold`: the
original's eventId is remembered as seen, and must not make its own replay a duplicate.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Literal

from streams.log import TP, Entry, Headers, Record

REASON_CHARS = 500
# A record set of 1 MiB, which is what brokers take, may unpack to a thousand times as much.
VALUE_BYTES = 16 << 20
REPLAYED_FROM: Final = "replayed-from"
REPLAYED_STAGE: Final = "replayed-stage"
BLOCK: Final = ("reason", "stage", "cut", "id", "source-topic", "source-partition", "source-offset", "source-timestamp")
Stage = Literal["intake", "fold", "effect"]

_ID: Final = re.compile(r"(.{1,249})-([0-9]{1,10})-([0-9]{1,19})")
_headers = attrgetter("headers")


@dataclass(frozen=True)
class Told:
    """What a dead letter's headers say. `cut` is how many bytes of the value are missing, `at_ms` the source's time."""

    reason: str
    stage: str
    cut: int
    id: str
    tp: TP
    offset: int
    at_ms: int


def dead_letter(tp: TP, record: Record, reason: str, stage: Stage = "intake") -> Entry:
    """The record, put aside with its reason. Of a value above 16 MiB only the beginning is kept."""
    cut = max(0, len(record.value or b"") - VALUE_BYTES)
    said = {"reason": reason[:REASON_CHARS], "stage": stage, "cut": cut}
    return _aside(record, {**said, **_origin(tp, record)})


def told(headers: Headers) -> Told | None:
    """Read what `dead_letter` wrote; None for other records."""
    block = list(headers)[-len(BLOCK) :]
    if tuple(name for name, _ in block) != BLOCK:
        return None
    said = {name: value.decode(errors="replace") for name, value in block}
    try:
        tp, offset = TP(said["source-topic"], int(said["source-partition"])), int(said["source-offset"])
        return Told(
            said["reason"], said["stage"], int(said["cut"]), said["id"], tp, offset, int(said["source-timestamp"])
        )
    except ValueError:
        return None


def late_entry(tp: TP, record: Record) -> Entry:
    """The record, put aside because its window had closed."""
    return _aside(record, _origin(tp, record))


def replay_headers(headers: Headers, said: Told) -> list[tuple[str, bytes]]:
    """The headers with which a dead letter goes back to its topic: its own, and where it comes from."""
    own = [pair for pair in list(headers)[: -len(BLOCK)] if pair[0] not in (REPLAYED_FROM, REPLAYED_STAGE)]
    stage = [(REPLAYED_STAGE, b"fold")] if said.stage == "fold" else []
    return [*own, (REPLAYED_FROM, said.id.encode()), *stage]


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


def _aside(record: Record, said: Mapping[str, object]) -> Entry:
    value = record.value[:VALUE_BYTES] if record.value is not None else None
    block = [(name, str(known).encode(errors="replace")) for name, known in said.items()]
    return Entry(record.key, value, [*record.headers, *block])


def _origin(tp: TP, record: Record) -> dict[str, object]:
    return {
        "id": f"{tp.topic}-{tp.partition}-{record.offset}",
        "source-topic": tp.topic,
        "source-partition": tp.partition,
        "source-offset": record.offset,
        "source-timestamp": record.timestamp,
    }


def _original(tp: TP, headers: Headers) -> int | None:
    raw = next((value for name, value in headers if name == REPLAYED_FROM), None)
    place = parse_id(raw.decode(errors="replace")) if raw else None
    return place[1] if place is not None and place[0] == tp else None
