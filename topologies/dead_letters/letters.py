"""One dead letter as a value, and which of many are meant."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from streams.dead_letters import Told, told
from streams.log import TP, Headers


@dataclass(frozen=True)
class Letter:
    """A record of a dead-letter topic. `at` and `offset` are its own place, `told` says where it came from."""

    told: Told
    at: TP
    offset: int
    put_aside_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    replayed_ms: int | None = None

    @property
    def size(self) -> int:
        """Bytes of its value."""
        return len(self.value or b"")

    def row(self) -> dict[str, Any]:
        """What `list` says of it."""
        return {
            "id": self.told.id,
            "reason": self.told.reason,
            "stage": self.told.stage,
            "source": {"topic": self.told.tp.topic, "partition": self.told.tp.partition, "offset": self.told.offset},
            "deadLetter": {"topic": self.at.topic, "partition": self.at.partition, "offset": self.offset},
            "sourceTimestamp": self.told.at_ms,
            "putAsideAt": self.put_aside_ms,
            "key": text(self.key),
            "bytes": self.size,
            "replayedAt": self.replayed_ms,
        }


@dataclass(frozen=True)
class Filter:
    """Which letters are meant: those whose reason contains `reason` in any case, not replayed unless `replayed`."""

    reason: str | None = None
    replayed: bool = False

    def matches(self, letter: Letter) -> bool:
        """Whether it is one of them."""
        if letter.replayed_ms is not None and not self.replayed:
            return False
        return self.reason is None or self.reason.lower() in letter.told.reason.lower()


def letter_of(
    at: TP, offset: int, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Headers
) -> Letter | None:
    """A record as a letter; None if no worker wrote it."""
    said = told(headers)
    return None if said is None else Letter(said, at, offset, timestamp_ms, key, value, headers)


def by_kind(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """Reasons that differ only in numbers together, the most frequent first.

    >>> by_kind(["bad (byte 3)", "empty", "bad (byte 17)"])
    [('bad (byte 3)', 2), ('empty', 1)]
    """
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for reason in reasons:
        kind = re.sub(r"[0-9]+", "#", reason)
        first.setdefault(kind, reason)
        counts[kind] += 1
    return [(first[kind], count) for kind, count in counts.most_common()]


def text(raw: bytes | None) -> str | None:
    """Bytes as text, what is none of it shown by replacement characters."""
    return None if raw is None else raw.decode(errors="replace")


def pretty(raw: bytes | None) -> str:
    """A value as one would like to read it: indented if it is JSON, as text if it is that, else its bytes."""
    if raw is None:
        return "(null)"
    try:
        return orjson.dumps(orjson.loads(raw), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONDecodeError:
        pass
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return repr(raw)
