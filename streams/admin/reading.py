"""Records out of a topic: what is there, what comes, from any place; outside any group, or as a member of one."""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any, Final, Literal

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.admin.connection import ANSWER_S, MOVING, Admin, reason
from streams.admin.topics import partitions_of
from streams.cluster import Cluster
from streams.errors import MillraceError

Batches = Generator[list[Message], None, None]

AT_ONCE: Final = 500
WAIT_S: Final = 0.2
CONFIG: Final[dict[str, Any]] = {
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "isolation.level": "read_uncommitted",  # as the workers read
    "fetch.wait.max.ms": 100,
    "fetch.queue.backoff.ms": 10,
    "log_level": 0,
}


@dataclass(frozen=True)
class Begin:
    """Where reading begins. `number` is the time in ms of `time`, the offset of `offset`, how many of `last`."""

    at: Literal["beginning", "end", "time", "offset", "last"]
    number: int = 0


@dataclass(frozen=True)
class Stop:
    """When reading ends: after `records`, after `idle_s` without one, at the partitions' ends of the start.

    Or once `asked` is set: then what was yielded is stored first, so that a group does not get it again.
    """

    at_ends: bool = False
    records: int | None = None
    idle_s: float | None = None
    asked: Event | None = None


def read(cluster: Cluster, topic: str, begin: Begin, stop: Stop, partitions: Sequence[int] | None = None) -> Batches:
    """Records of a topic outside any group, some hundred at a time, in order within a partition.

    Raises MillraceError for a topic or partition that is not there, and when the cluster refuses.
    """
    numbers = _chosen(cluster, topic, partitions)
    # librdkafka wants a name to be made with; nothing is joined, and nothing committed
    consumer = Consumer(cluster.librdkafka(**CONFIG, **{"group.id": "millrace-consume", "enable.auto.commit": False}))
    try:
        spans = {number: _span(consumer, TopicPartition(topic, number), begin) for number in numbers}
        if stop.at_ends:
            spans = {number: span for number, span in spans.items() if span[0] < span[1]}
        consumer.assign([TopicPartition(topic, number, start) for number, (start, _) in spans.items()])
        ends = {number: end for number, (_, end) in spans.items()} if stop.at_ends else None
        if ends is None or ends:
            yield from _read(consumer, stop, ends)
    finally:
        consumer.close()


def read_as_member(cluster: Cluster, topic: str, group: str, stop: Stop, *, from_beginning: bool = False) -> Batches:
    """Records of a topic as a member of a group, which goes on where it was; its positions are committed.

    What was yielded is committed once the next is asked for, so after a crash it comes again. `from_beginning` is for
    partitions in which the group has no position; without it they begin at their end. Raises MillraceError.
    """
    _chosen(cluster, topic, None)
    settings = {"group.id": group, "auto.offset.reset": "earliest" if from_beginning else "latest"}
    consumer = Consumer(cluster.librdkafka(**CONFIG, **settings, **{"auto.commit.interval.ms": 1000}))
    ends: dict[int, int] = {}

    def assigned(_consumer: Consumer, given: list[TopicPartition]) -> None:
        places = _committed(consumer, given)
        for tp in places:
            first, end = _bounds(consumer, tp)
            ends.setdefault(tp.partition, end)
            if tp.offset < 0:
                tp.offset = first if from_beginning else end
        consumer.assign(places)
        # so that a partition from which nothing came yet has a position, too, as with Kafka's own consumer
        consumer.store_offsets(offsets=places)

    try:
        consumer.subscribe([topic], on_assign=assigned)
        yield from _read(consumer, stop, ends if stop.at_ends else None, member=True)
    finally:
        consumer.close()


def _read(consumer: Consumer, stop: Stop, ends: dict[int, int] | None, member: bool = False) -> Batches:
    left, heard, done = stop.records, time.monotonic(), set[int]()
    while (left is None or left > 0) and not (stop.asked is not None and stop.asked.is_set()):
        try:
            polled = consumer.consume(AT_ONCE if left is None else min(left, AT_ONCE), WAIT_S)
        except KafkaException as failure:
            raise MillraceError(f"the topic cannot be read: {reason(failure)}") from failure
        records = _records(polled, ends, done)
        if records:
            heard = time.monotonic()
            left = None if left is None else left - len(records)
            yield records
            if member:
                _store(consumer, records)
        elif stop.idle_s is not None and time.monotonic() - heard > stop.idle_s:
            return
        if ends is not None and _ended(consumer, ends, done):
            return


def _records(polled: Sequence[Message], ends: dict[int, int] | None, done: set[int]) -> list[Message]:
    """The records below the ends; notes partitions that have come to theirs."""
    records = []
    for message in polled:
        partition, offset, error = message.partition() or 0, message.offset() or 0, message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                done.add(partition)
            elif error.fatal() or not (error.retriable() or error.code() in _PASSING):
                raise MillraceError(f"{message.topic()}[{partition}] cannot be read: {error.str()}")
            continue
        end = None if ends is None else ends.get(partition)
        if end is None or offset < end:
            records.append(message)
        if end is not None and offset + 1 >= end:
            done.add(partition)
    return records


_PASSING: Final = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT)


def _ended(consumer: Consumer, ends: dict[int, int], done: set[int]) -> bool:
    mine = {tp.partition for tp in consumer.assignment()}
    return bool(mine) and mine <= done and mine <= ends.keys()


def _store(consumer: Consumer, records: Sequence[Message]) -> None:
    newest = {(one.topic() or "", one.partition() or 0): one.offset() or 0 for one in records}
    try:
        consumer.store_offsets(offsets=[TopicPartition(*tp, offset + 1) for tp, offset in newest.items()])
    except KafkaException:
        pass  # a rebalance took the partition meanwhile: its next owner reads these again


def _chosen(cluster: Cluster, topic: str, partitions: Sequence[int] | None) -> list[int]:
    numbers = partitions_of(Admin(cluster), [topic])[topic]
    for number in partitions or ():
        if number not in numbers:
            raise MillraceError(f"topic {topic!r} has no partition {number}; it has 0 to {numbers[-1]}")
    return sorted(set(partitions)) if partitions else numbers


def _span(consumer: Consumer, tp: TopicPartition, begin: Begin) -> tuple[int, int]:
    first, end = _bounds(consumer, tp)
    if begin.at == "beginning":
        return first, end
    if begin.at == "end":
        return end, end
    if begin.at == "last":
        return max(first, end - begin.number), end
    if begin.at == "offset":
        return min(max(first, begin.number), end), end
    return _at_time(consumer, tp, begin.number, end), end


def _committed(consumer: Consumer, given: list[TopicPartition]) -> list[TopicPartition]:
    try:
        return consumer.committed(given, timeout=ANSWER_S)
    except KafkaException as failure:
        raise MillraceError(f"positions of the group cannot be read: {reason(failure)}") from failure


def _bounds(consumer: Consumer, tp: TopicPartition) -> tuple[int, int]:
    until = time.monotonic() + ANSWER_S
    while True:
        try:
            first, end = consumer.get_watermark_offsets(tp, timeout=ANSWER_S)
        except KafkaException as failure:
            if failure.args[0].code() not in MOVING or time.monotonic() > until:
                raise MillraceError(f"{tp.topic}[{tp.partition}] cannot be read: {reason(failure)}") from failure
            time.sleep(WAIT_S)
        else:
            return first, end


def _at_time(consumer: Consumer, tp: TopicPartition, at_ms: int, end: int) -> int:
    try:
        (found,) = consumer.offsets_for_times([TopicPartition(tp.topic, tp.partition, at_ms)], timeout=ANSWER_S)
    except KafkaException as failure:
        raise MillraceError(f"{tp.topic}[{tp.partition}] cannot be read: {reason(failure)}") from failure
    return end if found.offset in (OFFSET_END, -1) else found.offset
