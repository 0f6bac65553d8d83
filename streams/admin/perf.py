"""How fast a cluster takes and gives records, counted as Kafka's ProducerPerformance and ConsumerPerformance count.

A record's latency is from handing it over to hearing of its acknowledgement. A megabyte is 1024 * 1024 bytes, and a
percentile the sorted value at `int(percentile * count)`, as in Kafka's tools; here every record counts, where they
take 500,000 samples at most. Starting the process is never part of a figure, getting connections is.
"""

import os
import random
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.admin.connection import ANSWER_S, Admin, answer, reason
from streams.admin.topics import partitions_of
from streams.cluster import Cluster
from streams.errors import MillraceError

MEGABYTE: Final = 1024 * 1024
PERCENTILES: Final = (0.5, 0.95, 0.99, 0.999)
POLL_EVERY: Final = 256
REPORT_S: Final = 0.25
FLUSH_S: Final = 120.0
# Cut out of this many random letters at random places, values differ, and making one costs next to nothing.
LETTERS: Final = 1 << 20
# A buffer as large as Kafka's producers have: records wait in it, and that is part of their latency.
BUFFER_KB: Final = 32 * 1024
AT_ONCE: Final = 1_000
CONSUMER: Final[dict[str, Any]] = {
    "auto.offset.reset": "earliest",
    "check.crcs": True,  # as the Java client does
    # A full fetch queue is looked at again after a second by default. With 10,000 records at once that held a million
    # of 1,000 bytes to 180,000 to 240,000 a second, against 610,000 to 980,000 with either of the two changed.
    "fetch.queue.backoff.ms": 5,
    "log_level": 0,
}

Report = Callable[[int, float], None]


@dataclass(frozen=True)
class Load:
    """What to send: `records` of `size` bytes each, at most `rate` a second (0: as fast as it goes).

    Raises ValueError for what cannot be. `config` has librdkafka's names and wins over Kafka's own defaults, which
    are taken for what both libraries call alike: all replicas in sync, idempotent, 5 ms of linger, no compression.
    """

    records: int
    size: int = 1000
    rate: float = 0.0
    acks: str = "all"
    linger_ms: float = 5.0
    batch_bytes: int | None = None
    compression: str = "none"

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.records < 1 or self.size < 1 or self.rate < 0 or self.linger_ms < 0:
            raise ValueError("records and size must be at least 1, rate and linger not negative")

    def config(self) -> dict[str, Any]:
        """As librdkafka has it."""
        settings: dict[str, Any] = {
            "acks": self.acks,
            "enable.idempotence": self.acks in ("all", "-1"),  # nothing less can be idempotent
            "linger.ms": self.linger_ms,
            "compression.type": self.compression,
            "queue.buffering.max.kbytes": BUFFER_KB,
            "queue.buffering.max.messages": 1_000_000,
            "allow.auto.create.topics": False,
            "topic.metadata.propagation.max.ms": 1000,
            "log_level": 0,
        }
        return settings if self.batch_bytes is None else {**settings, "batch.size": self.batch_bytes}


@dataclass(frozen=True)
class Produced:
    """What came of a load. Latencies in ms; `percentiles` are 50, 95, 99 and 99.9."""

    records: int
    bytes: int
    seconds: float
    average_ms: float
    max_ms: float
    percentiles_ms: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.records / self.seconds

    @property
    def megabytes(self) -> float:
        """Megabytes a second."""
        return self.bytes / MEGABYTE / self.seconds


@dataclass(frozen=True)
class Consumed:
    """What was read. `join_s` went by until partitions were assigned, and is part of `seconds`."""

    records: int
    bytes: int
    seconds: float
    join_s: float

    @property
    def rate(self) -> float:
        """Records a second, joining the group included."""
        return self.records / self.seconds

    @property
    def megabytes(self) -> float:
        """Megabytes a second, joining the group included."""
        return self.bytes / MEGABYTE / self.seconds

    @property
    def fetch_rate(self) -> float:
        """Records a second once partitions were assigned."""
        return self.records / max(1e-9, self.seconds - self.join_s)


def percentiles(latencies: Sequence[float], wanted: Sequence[float] = PERCENTILES) -> tuple[float, ...]:
    """The values below which these shares of all latencies are.

    >>> percentiles([4, 1, 3, 2], (0.5, 0.99))
    (3, 4)
    """
    ordered = sorted(latencies)
    return tuple(ordered[int(share * len(ordered))] for share in wanted)


def produce(cluster: Cluster, topic: str, load: Load, report: Report | None = None, **config: Any) -> Produced:
    """Send a load and wait until all of it is acknowledged. Raises MillraceError."""
    partitions_of(Admin(cluster), [topic])
    latencies, failures = array("d"), list[str]()

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is None:
            latencies.append(message.latency() or 0.0)
        else:
            failures.append(error.str())

    settings = cluster.librdkafka(**{**load.config(), **config, "on_delivery": delivered})
    producer = confluent_kafka.Producer(settings)
    letters = random.Random(0).choices(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=LETTERS + load.size)
    began = time.perf_counter()
    try:
        _send(producer, topic, load, bytes(letters), report)
        waiting = producer.flush(FLUSH_S)
    except BaseException:
        producer.purge()
        raise
    seconds = time.perf_counter() - began
    if failures or waiting:
        said = failures[0] if failures else f"no answer within {FLUSH_S:g} s"
        raise MillraceError(f"{len(failures) + waiting:,} of {load.records:,} records were not delivered: {said}")
    ms = [1000 * one for one in latencies]
    size = load.records * load.size
    return Produced(load.records, size, seconds, sum(ms) / len(ms), max(ms), percentiles(ms))


def _send(producer: "confluent_kafka.Producer", topic: str, load: Load, letters: bytes, report: Report | None) -> None:
    began = reported = time.perf_counter()
    size, places = load.size, random.Random(1)
    hand_over, poll, place = producer.produce, producer.poll, places.randrange
    for number in range(load.records):
        at = place(LETTERS)
        value = letters[at : at + size]
        while True:
            try:
                hand_over(topic, value)
                break
            except BufferError:
                poll(0.01)
            except KafkaException as failure:
                raise MillraceError(f"records cannot be sent to {topic!r}: {reason(failure)}") from failure
        if load.rate:
            _wait(producer, began + number / load.rate)
        if not number % POLL_EVERY:
            poll(0)
            now = time.perf_counter()
            if report is not None and now - reported > REPORT_S:
                reported = now
                report(number, now - began)


def _wait(producer: "confluent_kafka.Producer", until: float) -> None:
    while (left := until - time.perf_counter()) > 0:
        producer.poll(min(left, 0.1))


def consume(
    cluster: Cluster,
    topic: str,
    records: int,
    *,
    group: str | None = None,
    idle_s: float = 10.0,
    report: Report | None = None,
    **config: Any,
) -> Consumed:
    """Read so many records from the beginning, as the only member of a group, which is deleted afterwards.

    `group` names one that stays, and goes on where it was. Raises MillraceError when none come for `idle_s`.
    """
    admin = Admin(cluster)
    partitions_of(admin, [topic])
    own = group or f"millrace-perf-{os.urandom(6).hex()}"
    settings = {"group.id": own, **CONSUMER, **config}
    joined: list[float] = []

    def assigned(_consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        joined.append(time.perf_counter())

    consumer = Consumer(cluster.librdkafka(**settings))
    try:
        began = time.perf_counter()
        consumer.subscribe([topic], on_assign=assigned)
        count, size = _count(consumer, records, idle_s, began, report)
        seconds = time.perf_counter() - began
    finally:
        consumer.close()
        if group is None:
            _forget(admin, own)
    return Consumed(count, size, seconds, joined[0] - began if joined else seconds)


def _count(consumer: Consumer, records: int, idle_s: float, began: float, report: Report | None) -> tuple[int, int]:
    count = size = 0
    heard = reported = began
    while count < records:
        try:
            polled = consumer.consume(min(AT_ONCE, records - count), 0.1)
        except KafkaException as failure:
            raise MillraceError(f"the topic cannot be read: {reason(failure)}") from failure
        for message in polled:
            if message.error() is None:
                count += 1
                size += len(message.value() or b"") + len(message.key() or b"")
        now = time.perf_counter()
        if polled:
            heard = now
        elif now - heard > idle_s:
            raise MillraceError(f"{count:,} of {records:,} records came, then none for {idle_s:g} s: send more first")
        if report is not None and now - reported > REPORT_S:
            reported = now
            report(count, now - began)
    return count, size


def _forget(admin: Admin, group: str) -> None:
    future = admin.client.delete_consumer_groups([group], request_timeout=ANSWER_S)[group]
    try:
        answer(future, "")
    except MillraceError:
        pass  # it never came to be, or the cluster is away, which was told already
