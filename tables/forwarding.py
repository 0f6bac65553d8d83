"""Handing events on to another topic, keyed anew: what a flush writes of it is there before its progress.

A crash or a torn flush may forward an event twice, and so may a zombie. So the receiving topic's events carry an
`event_id` that is a function of the origin, and the topic dedupes: by `dedupe_records`, since a repeat comes soon after
(what a zombie had in its hands), and partitions that hand on may be days apart in event time. With `dedupe_s` at least
as long as the slices and the grace of the source that reads it, a repeat counts once however late it comes: what is not
known any more by its id is late by then, and so is what a partition hands on that has fallen behind.

The forwarded record's own timestamp is the time of the forwarding; where event time may be ahead of that, in tests and
simulations, the receiving source needs a `max_ahead_ms` to match.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from streams.log import TP, Entry
from tables.folding import Poison
from tables.table import Forward

Forwarded = list[tuple[TP, Entry]]

# Kafka refuses batches of more than 1 MiB, and with them the flush, again and again.
RECORD_BYTES = 1_000_000


def forward_all(forward: Forward, events: Sequence[Any], ats: Sequence[int]) -> Forwarded | None:
    """The records of a batch's events, in their order; None if any of them cannot be forwarded."""
    try:
        made = map(forward.of, events, ats) if forward.timed else map(forward.of, events)
        return [entry for records in made for entry in _entries(forward, records)]
    except Exception:
        return None


def forward_one(forward: Forward, event: Any, at: int) -> Forwarded:
    """One event's records. One that raises is asked once more, since the cause may pass. Raises `Poison`."""
    reason = ""
    for _ in range(2):
        try:
            return _entries(forward, forward.of(event, at) if forward.timed else forward.of(event))
        except Exception as error:
            reason = f"to topic {forward.topic.name}: {type(error).__name__}: {error}"
    raise Poison(reason)


def _entries(forward: Forward, records: Iterable[tuple[int, bytes, bytes]]) -> Forwarded:
    name, partitions = forward.topic.name, forward.topic.partitions
    entries = []
    for number, key, value in records:
        if not 0 <= number < partitions:
            raise ValueError(f"there is no partition {number}")
        entries.append((TP(name, number), writable(key, value)))
    return entries


def writable(key: object, value: object) -> Entry:
    """The entry of a record that Kafka can take. Raises TypeError or ValueError for one that no flush could write."""
    if not isinstance(key, bytes) or not (value is None or isinstance(value, bytes)):
        raise TypeError(f"a record is made of bytes, not of {type(key).__name__} and {type(value).__name__}")
    if len(key) + len(value or b"") > RECORD_BYTES:
        raise ValueError(f"a record of {len(key) + len(value or b'')} bytes; the limit is {RECORD_BYTES}")
    return Entry(key, value)
