"""What makes a fault count: records that a group has taken and not made durable, or has yet to take, at its moment."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaException, TopicPartition

from topologies.settings import Settings

TIMEOUT_S = 5.0


class Watch:
    """Compares what was sent to a topic with what a group has committed; it never joins the group."""

    def __init__(self, settings: Settings, group: str, topic: str) -> None:
        """Connect in the background."""
        config = {"group.id": group, "enable.auto.commit": False, "log_level": 0}
        self._consumer = Consumer(settings.cluster.librdkafka(**config))
        self._tps = [TopicPartition(topic, number) for number in range(settings.partitions)]

    def uncommitted(self) -> int:
        """Records sent and not committed: unflushed, in a flush, or waiting for a recovery. 0 while nobody answers."""
        with contextlib.suppress(KafkaException):
            found = self._consumer.committed(self._tps, timeout=TIMEOUT_S)
            ends = [self._consumer.get_watermark_offsets(tp, timeout=TIMEOUT_S)[1] for tp in self._tps]
            return sum(end - max(0, at.offset) for end, at in zip(ends, found, strict=True))
        return 0

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()


@contextmanager
def watching(settings: Settings, group: str, topic: str) -> Iterator[Watch]:
    """A watch for the length of a run."""
    watch = Watch(settings, group, topic)
    try:
        yield watch
    finally:
        watch.close()
