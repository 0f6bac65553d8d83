"""What makes a fault count: records that a group has taken and not made durable, or has yet to take, at its moment."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaException, TopicPartition

from topologies.settings import Settings

TIMEOUT_S = 5.0
# A cluster that has lost a broker elects leaders first.
ANSWER_S = 30.0


class Watch:
    """Compares what was sent to a topic with what a group has committed; it never joins the group."""

    def __init__(self, settings: Settings, group: str, topic: str) -> None:
        """Connect in the background."""
        config = {"group.id": group, "enable.auto.commit": False, "log_level": 0}
        self._consumer = Consumer(settings.cluster.librdkafka(**config))
        self._tps = [TopicPartition(topic, number) for number in range(settings.partitions)]

    def uncommitted(self) -> int:
        """Records sent and not committed: unflushed, in a flush, or waiting for a recovery.

        Asks until the cluster answers; 0 if it does not within `ANSWER_S`.
        """
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            with contextlib.suppress(KafkaException):
                return self._uncommitted(self._tps)
        return 0

    def all_applied(self, topics: Iterable[str]) -> bool:
        """Whether the group has committed all of these topics too; name second stages after what they are fed from."""
        tps = [TopicPartition(topic, tp.partition) for topic in topics for tp in self._tps]
        with contextlib.suppress(KafkaException):
            return not self._uncommitted(self._tps) and not self._uncommitted(tps)
        return False

    def _uncommitted(self, tps: Sequence[TopicPartition]) -> int:
        ends = [self._consumer.get_watermark_offsets(tp, timeout=TIMEOUT_S)[1] for tp in tps]
        found = self._consumer.committed(list(tps), timeout=TIMEOUT_S)
        return sum(max(0, end - max(0, at.offset)) for end, at in zip(ends, found, strict=True))

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
