"""Reading stretches of source partitions once more, with librdkafka, from a thread and outside any group.

For counts that are made again and for samples: at any offset, or where Kafka finds a time. A worker's own fetching is
not touched. Not for two threads at once.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.cluster import Cluster
from streams.log import TP, Headers, LogError, Record

# What is fetched ahead stays small: a recount is gentle, and mostly ends before the partition does.
CONFIG: Final[dict[str, Any]] = {
    "group.id": "millrace-rereading",  # it needs one to be made, and never joins it
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "isolation.level": "read_uncommitted",  # as the workers read
    "queued.max.messages.kbytes": 8_192,
    "fetch.queue.backoff.ms": 10,
    "fetch.wait.max.ms": 100,
    "log_level": 0,
}
AT_ONCE: Final = 500
ANSWER_S: Final = 10.0


class Reread(NamedTuple):
    """One record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Rereader:
    """Reads one partition at a time. Raises `LogError` where the cluster does not answer, or has it no more."""

    def __init__(self, cluster: Cluster) -> None:
        """Connect in the background."""
        self._consumer = Consumer(cluster.librdkafka(**CONFIG))

    def bounds(self, tp: TP) -> tuple[int, int]:
        """The first offset that can still be read, and the end offset."""
        with _told(tp):
            first, end = self._consumer.get_watermark_offsets(TopicPartition(*tp), timeout=ANSWER_S)
        return first, end

    def offset_at(self, tp: TP, at_ms: int) -> int:
        """The first offset whose record has a Kafka time of `at_ms` or later; the end offset if none has."""
        with _told(tp):
            (found,) = self._consumer.offsets_for_times([TopicPartition(*tp, at_ms)], timeout=ANSWER_S)
            if found.error is not None:
                raise KafkaException(found.error)
        if found.offset in (OFFSET_END, -1):
            return self.bounds(tp)[1]
        return int(found.offset)

    def read(self, tp: TP, start: int, end: int) -> Iterator[Sequence[Record]]:
        """The records of `[start, end)`, in order, some hundred at a time."""
        with _told(tp):
            self._consumer.assign([TopicPartition(*tp, start)])
        try:
            yield from self._read(tp, end)
        finally:
            self._consumer.unassign()

    def _read(self, tp: TP, end: int) -> Iterator[Sequence[Record]]:
        heard = time.monotonic()
        while True:
            with _told(tp):
                messages = self._consumer.consume(AT_ONCE, timeout=0.2)
            records, ended = _records(tp, messages)
            if records:
                heard = time.monotonic()
            elif time.monotonic() - heard > ANSWER_S:
                raise LogError(f"{tp.topic}[{tp.partition}] does not answer")
            ended = ended or bool(records and records[-1].offset + 1 >= end)
            if records and records[-1].offset >= end:
                records = [record for record in records if record.offset < end]
            if records:
                yield records
            if ended:
                return

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def __enter__(self) -> Self:
        """Use as a context manager."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def _records(tp: TP, messages: Sequence[Message]) -> tuple[list[Reread], bool]:
    """The records, and whether the partition ended."""
    records, ended = [], False
    for message in messages:
        error = message.error()
        if error is None:
            records.append(_record(message))
        elif error.code() == KafkaError._PARTITION_EOF:
            ended = True
        elif not error.retriable() and error.code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
            raise LogError(f"{tp.topic}[{tp.partition}]: {error.str()}")
    return records, ended


def _record(message: Message) -> Reread:
    headers: Any = message.headers()
    value: Any = message.value()
    key: Any = message.key()
    offset = message.offset()
    assert offset is not None
    return Reread(offset, message.timestamp()[1], key, value, headers or ())


@contextlib.contextmanager
def _told(tp: TP) -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise LogError(f"{tp.topic}[{tp.partition}]: {error.args[0].str()}") from error
