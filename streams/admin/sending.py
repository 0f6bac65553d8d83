"""Records into a topic, and where they came to lie."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import KafkaError, Message

from streams.admin.connection import Admin
from streams.admin.lines import Outgoing
from streams.admin.topics import partitions_of
from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.partitioners import Partitioner, round_robin
from streams.producers import Producer

# A mistyped topic is told at once, not created and not waited for.
CONFIG: Final[dict[str, Any]] = {"linger.ms": 5, "allow.auto.create.topics": False, "delivery.report.only.error": False}


@dataclass
class Landed:
    """Where records came to lie: for each partition how many, and the offsets of the first and the last."""

    partitions: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def records(self) -> int:
        """All of them."""
        return sum(count for count, _, _ in self.partitions.values())

    def add(self, partition: int, offset: int) -> None:
        """Count one that was acknowledged; with acks=0 nobody knows its offset, -1."""
        count, first, last = self.partitions.get(partition, (0, offset, offset))
        self.partitions[partition] = (count + 1, min(first, offset), max(last, offset))


def partitioner_named(name: str, seed: int | None = None) -> Partitioner | None:
    """`round-robin` or `random`; None for `key-hash`, which the client does itself as the Java client does.

    Raises KeyError for another name.
    """
    if name == "random":
        chance = random.Random(seed)
        return lambda _key, partitions: chance.randrange(partitions)
    if name == "round-robin":
        return round_robin()
    if name == "key-hash":
        return None
    raise KeyError(name)


def send(
    cluster: Cluster,
    topic: str,
    records: Iterable[Outgoing],
    *,
    partitioner: Partitioner | None = None,
    partition: int | None = None,
    **config: Any,
) -> Landed:
    """Send records in their order and return when all are acknowledged. `config` has librdkafka's names.

    The partition is `partition`, else the partitioner's, else the key hash's. Raises MillraceError for what cannot be
    sent, and for a partitioner that names a partition that is not there; what came before is sent then.
    """
    numbers = partitions_of(Admin(cluster), [topic])[topic]
    if partition is not None and partition not in numbers:
        raise MillraceError(f"topic {topic!r} has no partition {partition}; it has 0 to {numbers[-1]}")
    landed = Landed()
    with _Reporting(cluster, landed, **{**CONFIG, **config}) as producer:
        try:
            for record in records:
                place = partition if partitioner is None else _chosen(partitioner, record.key, len(numbers))
                producer.produce(topic, record.key, record.value, place, record.headers or None)
        except MillraceError as error:
            producer.flush()
            raise MillraceError(f"{error} ({landed.records:,} before it were sent)") from error
    return landed


def _chosen(partitioner: Partitioner, key: bytes | None, partitions: int) -> int:
    try:
        chosen: Any = partitioner(key, partitions)  # whose own hint may promise what it does not keep
    except Exception as error:
        raise MillraceError(f"the partitioner failed for key {key!r}: {error!r}") from error
    if not isinstance(chosen, int) or not 0 <= chosen < partitions:
        raise MillraceError(f"the partitioner gave {chosen!r} for key {key!r}: it must give 0 to {partitions - 1}")
    return int(chosen)


class _Reporting(Producer):
    """A producer that hears of every record where it came to lie."""

    def __init__(self, cluster: Cluster, landed: Landed, **config: Any) -> None:
        super().__init__(cluster, **{"on_delivery": self._delivered, **config})
        self._landed = landed

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        if error is not None:
            self._on_failure(error, message)
        elif partition is not None:
            self._landed.add(partition, -1 if offset is None else offset)
