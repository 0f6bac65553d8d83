"""Where a file of the archive lies, and what its path says."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from streams.log import TP

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_DAY: Final = "9999-12-31"
_PATH: Final = re.compile(r"(?:.*/)?([^/]+)/date=(\d{4}-\d\d-\d\d)/partition=(\d{1,10})/(\d{20})\.parquet")


class Place(NamedTuple):
    """What a path says: the partition, the first offset that the file covers, and the day that it lies under."""

    tp: TP
    first: int
    day: str


def path_of(tp: TP, first: int, day: str) -> str:
    """The path below the archive's url.

    >>> path_of(TP("order-events", 3), 12_000, "2026-11-23")
    'order-events/date=2026-11-23/partition=3/00000000000000012000.parquet'
    """
    return f"{tp.topic}/date={day}/partition={tp.partition}/{first:020d}.parquet"


def place_of(path: str) -> Place | None:
    """What a path says; None for what is no file of an archive.

    >>> place_of("/data/order-events/date=2026-11-23/partition=3/00000000000000012000.parquet").first
    12000
    """
    match = _PATH.fullmatch(path)
    return Place(TP(match[1], int(match[3])), int(match[4]), match[2]) if match else None


def day_of(timestamp_ms: int) -> str:
    """The UTC day of a record's timestamp; what no calendar has is its first or last day.

    >>> day_of(86_400_000), day_of(-1), day_of(2**62)
    ('1970-01-02', '1970-01-01', '9999-12-31')
    """
    try:
        return (_EPOCH + timedelta(milliseconds=max(0, timestamp_ms))).strftime("%Y-%m-%d")
    except OverflowError:
        return _LAST_DAY
