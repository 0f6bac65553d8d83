"""Records that cannot be applied, as they go to `<topic>.dead-letters`; and late events, to `<topic>.late`.

Key and value are the source record's own bytes, so that a mended record can be sent again as it is; what is known
about it is in headers, as text: `reason`, `source-topic`, `source-partition`, `source-offset`, `source-timestamp`
(ms), and `id` (topic-partition-offset), the same whenever the record is decided on again after a crash.
"""

from streams.log import TP, Entry, Record

REASON_CHARS = 500


def dead_letter(tp: TP, record: Record, reason: str) -> Entry:
    """The record, put aside with its reason."""
    return Entry(record.key, record.value, [("reason", reason[:REASON_CHARS].encode()), *_origin(tp, record)])


def late_entry(tp: TP, record: Record) -> Entry:
    """The record, put aside because its window had closed."""
    return Entry(record.key, record.value, _origin(tp, record))


def _origin(tp: TP, record: Record) -> list[tuple[str, bytes]]:
    fields = {
        "id": f"{tp.topic}-{tp.partition}-{record.offset}",
        "source-topic": tp.topic,
        "source-partition": tp.partition,
        "source-offset": record.offset,
        "source-timestamp": record.timestamp,
    }
    return [*record.headers, *((name, str(value).encode()) for name, value in fields.items())]
