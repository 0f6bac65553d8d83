"""Times as an operator types and reads them."""

import re
import time
from datetime import UTC, datetime
from typing import Final

from streams.errors import MillraceError

_AGO: Final = re.compile(r"([0-9]{1,9})([smhd])")
_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def moment(text: str, what: str = "start") -> int:
    """Epoch ms or ISO-8601 (UTC unless it says otherwise) as epoch ms; raises MillraceError for anything else."""
    if text.isdecimal():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise MillraceError(f"{what} {text!r} is no time: give 2025-01-31T12:00:00Z or epoch ms") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def moment_or_ago(text: str, what: str) -> int:
    """The same, or so long ago: `90s`, `15m`, `2h`, `7d`."""
    ago = _AGO.fullmatch(text)
    if ago:
        return time.time_ns() // 1_000_000 - int(ago[1]) * _UNIT_MS[ago[2]]
    return moment(text, what)


def shown(at_ms: int) -> str:
    """A record's time, to the millisecond, in UTC; as the number it is where no calendar has it.

    >>> shown(1_767_225_600_123)
    '2026-01-01 00:00:00.123Z'
    """
    try:
        at = datetime.fromtimestamp(at_ms // 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return str(at_ms)
    return f"{at:%Y-%m-%d %H:%M:%S}.{at_ms % 1000:03d}Z"
