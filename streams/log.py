"""The log as the engine sees it: numbered records in partitions that can be read, and appended to in whole batches.

Two logs speak it: `KafkaLog` (a real cluster) and `MemoryLog` (the test driver). Everything that must be exact is
written against this protocol, so that the same code runs in both.

Offsets are Kafka's: a partition's *end offset* is the offset that the next record will get. Offsets may have holes
(compaction, transaction markers), so `read` promises order and completeness, not that offsets are consecutive.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from streams.errors import MillraceError


class TP(NamedTuple):
    """A topic's partition. Equal to any other (topic, partition) tuple, Faust's and aiokafka's included."""

    topic: str
    partition: int


Headers = Sequence[tuple[str, bytes]]


class Record(Protocol):
    """One record as read."""

    @property
    def offset(self) -> int:
        """Its number in its partition."""
        ...

    @property
    def timestamp(self) -> int:
        """Kafka's own time of it, in ms since the epoch."""
        ...

    @property
    def key(self) -> bytes | None:
        """Its key."""
        ...

    @property
    def value(self) -> bytes | None:
        """Its value; None is a tombstone."""
        ...

    @property
    def headers(self) -> Headers:
        """Its headers, in order."""
        ...


class Entry(NamedTuple):
    """One record to append. A value of None is a tombstone."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Span(NamedTuple):
    """Where a batch of one append landed: `records` of them at offsets `base`, `base + 1`, ..."""

    base: int
    records: int

    @property
    def end(self) -> int:
        """The offset after the last one."""
        return self.base + self.records


class Log(Protocol):
    """What tables and read models need of a cluster. Errors of the cluster come out as `LogError`."""

    async def start_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        """Each partition's first offset that can still be read."""
        ...

    async def end_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        """Each partition's end offset, now."""
        ...

    def read(self, spans: Mapping[TP, tuple[int, int]]) -> AsyncIterator[tuple[TP, Sequence[Record]]]:
        """Yield every record of each partition's `[start, end)`, in order within a partition, in batches."""
        ...

    async def append(self, appends: Mapping[TP, Sequence[Entry]]) -> dict[TP, list[Span]]:
        """Append to each partition, in order; return once every replica in sync has them (acks=all).

        Spans come in the order of their entries. A span that does not continue the one before it tells that
        somebody else wrote in between.
        """
        ...


class LogRefused(MillraceError):
    """The log will never take this: too large, not allowed. Trying again does not help."""


class TopicGone(LogRefused):
    """A topic was deleted while it was in use."""

    def __init__(self, topic: str) -> None:
        """Name it."""
        super().__init__(f"topic {topic} was deleted while in use: start again to have it created anew")
        self.topic = topic


class LogError(Exception):
    """The log could not be read or written now (broker away, timed out). Nothing is known of what got through."""
