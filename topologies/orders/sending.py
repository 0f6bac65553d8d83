"""Rows of the outbox into Kafka, in their order, and where each came to lie."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message

from streams.cluster import Cluster
from streams.producers import CONFIG
from topologies.orders.outbox import Place, Row

# A batch that fails half may leave a gap, and a row that is sent later than the one after it. So nothing is given up
# for taking long, and of a user's rows for a topic the next is sent when the one before is acknowledged: a producer
# stops at what is given up all the same, but not what it has under way by then, and a broker takes that.
PATIENT: Final[dict[str, Any]] = {
    **CONFIG,
    "message.timeout.ms": 0,
    "enable.gapless.guarantee": True,
    "allow.auto.create.topics": False,
    "delivery.report.only.error": False,
    "linger.ms": 0,
    "reconnect.backoff.max.ms": 1_000,
    # so long a topic that is not there is asked for, and everything else waits
    "topic.metadata.propagation.max.ms": 10_000,
    "log_level": 0,
}
LOOK_S: Final = 0.25
CONNECT_S: Final = 2.0
SETTLE_S: Final = 2.0
# What a cluster says of one topic, and will say again: others are none the worse for it.
REFUSED: Final = frozenset({
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError.POLICY_VIOLATION,
})  # fmt: skip


class NotSent(Exception):
    """Some rows were not taken: those in `sent` are in the log, of the others that is not known.

    `refused` is the topic that the cluster does not let have them; None: the reason is another one.
    """

    def __init__(self, why: str, sent: Mapping[int, Place] | None = None, refused: str | None = None) -> None:
        super().__init__(why)
        self.sent = dict(sent or {})
        self.refused = refused


class Sender(Protocol):
    """Where a relay sends its rows."""

    async def open(self) -> None:
        """Connect, as far as that can be done now: rows that come later are quicker."""
        ...

    async def send(self, rows: Sequence[Row], stop: asyncio.Event) -> dict[int, Place]:
        """Where the rows lie, by id, once all are acknowledged; those known so far when `stop` is set.

        Raises NotSent.
        """
        ...

    def close(self) -> None:
        """Drop what is not sent."""
        ...


class KafkaSender:
    """Sends with an idempotent producer: what it sends again is there once, and in order.

    After `NotSent` it has a new one, whose first records may repeat the last ones of the old one.
    """

    def __init__(self, cluster: Cluster) -> None:
        """Keep where the cluster is; `open` connects, or else the first rows do."""
        self._cluster = cluster
        self._producer: confluent_kafka.Producer | None = None

    async def open(self) -> None:
        """Connect; returns without a word where that takes too long, as rows wait for it anyway."""
        await self._connected()

    async def _connected(self) -> confluent_kafka.Producer:
        producer = self._producer
        if producer is None:
            producer = self._producer = confluent_kafka.Producer(self._cluster.librdkafka(**PATIENT))
            # a row that comes before a new producer knows the cluster waits half a second, or a whole one (measured)
            with suppress(KafkaException):
                await asyncio.to_thread(producer.list_topics, timeout=CONNECT_S)
        return producer

    async def send(self, rows: Sequence[Row], stop: asyncio.Event) -> dict[int, Place]:
        """Send rows, and wait for as long as it takes. Raises NotSent for what the cluster refuses."""
        producer = await self._connected()
        sent: dict[int, Place] = {}
        failed: list[NotSent] = []
        for some in rounds(rows):
            for row in some:
                try:
                    producer.produce(row.topic, row.value, row.key, on_delivery=_noting(row, sent, failed))
                except KafkaException as error:
                    failed.append(_not_sent(row, error.args[0]))
                except BufferError as error:
                    failed.append(NotSent(f"{row.topic}: {error}"))
            why = ""
            while len(producer) and not failed and not stop.is_set():
                why = await asyncio.to_thread(_serve, producer, LOOK_S)
            if failed:
                # what else is under way may be acknowledged yet
                why = await asyncio.to_thread(_serve, producer, SETTLE_S) or why
                self.close()
                first = next((one for one in failed if one.refused), failed[0])
                raise NotSent(str(first) if first.refused else why or str(first), sent, first.refused)
            if stop.is_set():
                break
        return sent

    def close(self) -> None:
        """Drop the producer, and what it has not sent."""
        if self._producer is not None:
            self._producer.purge()
            self._producer = None


def rounds(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows in their order, with at most one of a key and topic in each round."""
    found: list[list[Row]] = []
    before: Counter[tuple[str, bytes]] = Counter()
    for row in rows:
        at = before[row.topic, row.key]
        before[row.topic, row.key] += 1
        if at == len(found):
            found.append([])
        found[at].append(row)
    return found


def _serve(producer: confluent_kafka.Producer, wait_s: float) -> str:
    """Hear what became of rows, until that is known of all, or for so long; returns what stopped the producer."""
    until, why = time.monotonic() + wait_s, ""
    while len(producer) and (left_s := until - time.monotonic()) > 0:
        why = _poll(producer, left_s) or why
    return _poll(producer, 0) or why


def _poll(producer: confluent_kafka.Producer, wait_s: float) -> str:
    # What stops a producer is raised here, and each row hears of it next. `flush` raises it in the middle of that,
    # as an error of Python's own.
    try:
        producer.poll(wait_s)
    except KafkaException as error:
        return str(error.args[0].str())
    return ""


def _noting(row: Row, sent: dict[int, Place], failed: list[NotSent]) -> Any:
    def delivered(error: KafkaError | None, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        if error is not None:
            failed.append(_not_sent(row, error))
        elif partition is None or offset is None or offset < 0:
            failed.append(NotSent(f"{row.topic}: acknowledged without an offset"))
        else:
            sent[row.id] = Place(row.topic, partition, offset)

    return delivered


def _not_sent(row: Row, error: KafkaError) -> NotSent:
    return NotSent(f"{row.topic}: {error.str()}", refused=row.topic if error.code() in REFUSED else None)
