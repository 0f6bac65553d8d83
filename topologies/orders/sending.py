"""Rows of the outbox into Kafka, in their order, and where each came to lie."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message

from streams.cluster import Cluster
from streams.producers import CONFIG
from topologies.orders.outbox import Place, Row

# A batch that fails half may leave a gap, and a row that is sent later than the one after it. So nothing is given up
# for taking long, and whatever is given up all the same stops the producer before it can send what comes after.
PATIENT: Final[dict[str, Any]] = {
    **CONFIG,
    "message.timeout.ms": 0,
    "enable.gapless.guarantee": True,
    "allow.auto.create.topics": False,
    "delivery.report.only.error": False,
    "linger.ms": 0,
    "reconnect.backoff.max.ms": 1_000,
    "log_level": 0,
}
LOOK_S: Final = 0.25


class NotSent(Exception):
    """Some rows were not taken; which of them are in the log is not known."""


class Sender(Protocol):
    """Where a relay sends its rows."""

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
        """Keep where the cluster is; connects with the first rows."""
        self._cluster = cluster
        self._producer: confluent_kafka.Producer | None = None

    async def send(self, rows: Sequence[Row], stop: asyncio.Event) -> dict[int, Place]:
        """Send rows, and wait for as long as it takes. Raises NotSent for what the cluster refuses."""
        producer = self._producer = self._producer or confluent_kafka.Producer(self._cluster.librdkafka(**PATIENT))
        sent: dict[int, Place] = {}
        failed: list[str] = []
        for row in rows:
            try:
                producer.produce(row.topic, row.value, row.key, on_delivery=_noting(row, sent, failed))
            except (KafkaException, BufferError) as error:
                failed.append(f"{row.topic}: {error}")
                break  # nothing overtakes it
        while len(producer) and not failed and not stop.is_set():
            await asyncio.to_thread(producer.flush, LOOK_S)
        if failed:
            self.close()
            raise NotSent(failed[0])
        return sent

    def close(self) -> None:
        """Drop the producer, and what it has not sent."""
        if self._producer is not None:
            self._producer.purge()
            self._producer = None


def _noting(row: Row, sent: dict[int, Place], failed: list[str]) -> Any:
    def delivered(error: KafkaError | None, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        if error is not None or partition is None or offset is None or offset < 0:
            failed.append(f"{row.topic}: {error.str() if error is not None else 'acknowledged without an offset'}")
        else:
            sent[row.id] = Place(row.topic, partition, offset)

    return delivered
