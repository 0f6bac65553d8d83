"""Long lists of rows a page at a time: `limit=` rows at most, and with them `next`, the `cursor=` of the page after.

A cursor is a place in the order of the rows, the window and key of the last one that was sent, not a number of rows:
what comes or goes before it meanwhile moves nothing. Without `from`, the newest hour goes on while pages are read.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from tables.windows import Window
from topologies.views.endpoints import CURSOR, LIMIT


@dataclass(frozen=True)
class Page:
    """So many rows, None for all, after the row of a window's start (ms) and a key, None for the first."""

    limit: int | None = None
    last: tuple[int, str] | None = None

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Self:
        """Read a request's parameters. Raises BadParameter."""
        return cls(LIMIT.of(given) if LIMIT.name in given else None, _read(CURSOR.of(given)))

    def windows(self, windows: Sequence[Window]) -> list[Window]:
        """Those in which there are rows of the page, or of pages after it."""
        return [window for window in windows if self.last is None or window.start_ms >= self.last[0]]

    def rows(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of a window's rows, by key, that are not on pages before."""
        return [row for row in rows if self.last is None or place(row) > self.last]

    def cut(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What an answer has of the rows from here on: the page's `rows`, and `next` if pages were asked for."""
        if self.limit is None:
            return {"rows": rows}
        more = len(rows) > self.limit
        return {"rows": rows[: self.limit], "next": _written(place(rows[self.limit - 1])) if more else None}


def place(row: Mapping[str, Any]) -> tuple[int, str]:
    """Where a row is in the order of all."""
    return row["startMs"], row["key"]


def _written(place: tuple[int, str]) -> str:
    return urlsafe_b64encode(f"{place[0]}:{place[1]}".encode()).decode().rstrip("=")


def _read(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    try:
        start, colon, key = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().partition(":")
    except (Error, ValueError):
        raise CURSOR.bad("must be the `next` of another page") from None
    if not (colon and start.isascii() and start.isdecimal() and len(start) < 19):
        raise CURSOR.bad("must be the `next` of another page")
    return int(start), key
