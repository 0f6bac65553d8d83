"""Every topic, declared once: name, key, value type, partitions, retention, cleanup.

Topics are created before a worker starts. Faust would otherwise create a source topic with one partition and
then fail on the mismatch with its tables.
"""

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from streams.errors import BrokerUnreachable, MillraceError, PartitionMismatch
from streams.events import OrderEvent, PaymentNotification, UserActivity

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient, ClusterMetadata

    from streams.cluster import Cluster

WEEK_S: Final = 7 * 86400.0
FIRST_CONTACT_S: Final = 10.0
LEGAL_NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")


@dataclass(frozen=True)
class Topic:
    """One topic's declaration.

    ``value`` is the msgspec Struct its records decode to, None for plain bytes; ``key`` says in words what
    the key is; ``retention_s`` None keeps records for ever (compacted topics are never cut by age);
    ``dedupe_s`` is the stretch of event time in which an eventId seen before is dropped, 0 for never;
    ``dedupe_records`` the same counted in records of the partition, for topics that are forwarded to: what a crash
    repeats comes again soon, while event times leap where several writers are days apart;
    ``config`` adds Kafka's own topic settings, and wins over the ones made from the other fields;
    ``aside`` is what the names of dead letters and late events begin with, if not with the topic's own.
    """

    name: str
    value: type | None = None
    key: str = "user-<userId>"
    partitions: int = 4
    retention_s: float | None = WEEK_S
    cleanup: Literal["delete", "compact"] = "delete"
    dedupe_s: float = 0
    dedupe_records: int = 0
    config: Mapping[str, str] = field(default_factory=dict, hash=False)
    aside: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a declaration that Kafka would refuse."""
        if not LEGAL_NAME.fullmatch(self.name) or self.name in (".", ".."):
            raise ValueError(f"topic name {self.name!r}: letters, digits, '.', '_' and '-', at most 249")
        if self.partitions < 1:
            raise ValueError(f"topic {self.name!r}: partitions must be at least 1, not {self.partitions}")
        if self.retention_s is not None and self.retention_s <= 0:
            raise ValueError(f"topic {self.name!r}: retention_s must be positive, or None for ever")
        if self.cleanup not in ("delete", "compact"):
            raise ValueError(f"topic {self.name!r}: cleanup is 'delete' or 'compact', not {self.cleanup!r}")
        if self.dedupe_s < 0 or self.dedupe_records < 0:
            raise ValueError(f"topic {self.name!r}: dedupe_s and dedupe_records must not be negative")
        if self.dedupe_s and self.dedupe_records:
            raise ValueError(f"topic {self.name!r}: give dedupe_s or dedupe_records, not both")

    @property
    def dedupes(self) -> bool:
        """Whether an eventId counts once."""
        return bool(self.dedupe_s or self.dedupe_records)

    @property
    def dead_letters(self) -> "Topic":
        """The topic of records that could not be decoded or applied, partitioned like this one."""
        return self._beside("dead-letters")

    @property
    def late(self) -> "Topic":
        """The topic of events that came after their window's grace, partitioned like this one."""
        return self._beside("late")

    def with_partitions(self, partitions: int) -> "Topic":
        """Return the same declaration with another number of partitions."""
        return replace(self, partitions=partitions)

    def kafka_config(self) -> dict[str, str]:
        """Return Kafka's settings of this topic: cleanup.policy, retention.ms and ``config``."""
        retention_ms = -1 if self.retention_s is None else round(self.retention_s * 1000)
        return {"cleanup.policy": self.cleanup, "retention.ms": str(retention_ms), **self.config}

    def _beside(self, suffix: str) -> "Topic":
        # a record as large as a source topic takes must fit with its reason and origin beside it, also one that was
        # packed better than ours are: streams.dead_letters cuts what is longer
        config = {"max.message.bytes": str(20 << 20)}
        return Topic(f"{self.aside or self.name}.{suffix}", key=self.key, partitions=self.partitions, config=config)


ORDER_EVENTS: Final = Topic("order-events", OrderEvent, dedupe_s=300)
USER_ACTIVITY: Final = Topic("user-activity", UserActivity)
PAYMENT_NOTIFICATIONS: Final = Topic("payment-notifications", PaymentNotification, dedupe_s=300)


def ensure_topics(
    cluster: "Cluster", topics: Iterable[Topic], *, replication: int | None = None, timeout_s: float = 30
) -> None:
    """Create the topics that are missing and return once every partition of all of them has a leader.

    Topics that exist keep their settings. ``replication`` None means three, or as many as there are
    brokers. Workers may call this at the same time. Raises PartitionMismatch, BrokerUnreachable, and
    MillraceError when a topic is refused or not ready after ``timeout_s``.
    """
    from confluent_kafka.admin import AdminClient

    deadline = time.monotonic() + timeout_s
    declared = {topic.name: topic for topic in topics}
    # librdkafka's own log lines would stand beside the one line that the operator is to read
    admin = AdminClient(cluster.librdkafka(**{"log_level": 0, "socket.connection.setup.timeout.ms": 5000}))
    metadata = _metadata(admin, cluster, min(timeout_s, FIRST_CONTACT_S))
    missing = [topic for name, topic in declared.items() if name not in metadata.topics]
    copies = replication or min(3, len(metadata.brokers))
    _create(admin, missing, copies, timeout_s)
    while waiting := _not_ready(metadata, declared):
        if time.monotonic() > deadline:
            raise MillraceError(f"topic {waiting[0]!r} is not ready after {timeout_s:g} s; see `millrace doctor`")
        if metadata.topics.keys() >= declared.keys():
            time.sleep(0.02)
        metadata = _metadata(admin, cluster, max(1.0, deadline - time.monotonic()))


def missing_topics(cluster: "Cluster", names: Iterable[str]) -> set[str]:
    """Which of these topics do not exist. Raises BrokerUnreachable."""
    from confluent_kafka.admin import AdminClient

    admin = AdminClient(cluster.librdkafka(**{"log_level": 0, "socket.connection.setup.timeout.ms": 5000}))
    return set(names) - _metadata(admin, cluster, FIRST_CONTACT_S).topics.keys()


def _metadata(admin: "AdminClient", cluster: "Cluster", timeout_s: float) -> "ClusterMetadata":
    from confluent_kafka import KafkaException

    try:
        return admin.list_topics(timeout=timeout_s)
    except KafkaException as error:
        raise BrokerUnreachable(cluster.bootstrap) from error


def _create(admin: "AdminClient", topics: list[Topic], replication: int, timeout_s: float) -> None:
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import NewTopic

    if not topics:
        return
    wanted = [NewTopic(topic.name, topic.partitions, replication, config=topic.kafka_config()) for topic in topics]
    for name, created in admin.create_topics(wanted, operation_timeout=timeout_s).items():
        try:
            created.result()
        except KafkaException as failure:
            error = failure.args[0]
            # another worker was quicker: its partition count is checked like any other's
            if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise MillraceError(f"topic {name!r} could not be created: {error.str()}") from failure


def _not_ready(metadata: "ClusterMetadata", declared: Mapping[str, Topic]) -> list[str]:
    waiting = []
    for name, topic in declared.items():
        found = metadata.topics.get(name)
        partitions = {} if found is None or found.error is not None else found.partitions
        if partitions and len(partitions) != topic.partitions:
            raise PartitionMismatch(name, len(partitions), topic.partitions)
        if not partitions or any(partition.leader < 0 for partition in partitions.values()):
            waiting.append(name)
    return waiting


def topic_ids(cluster: "Cluster", names: Iterable[str]) -> dict[str, str]:
    """Return each topic's id, which tells a topic from another that was later made under the same name.

    Brokers before Kafka 2.8 have none; those topics are left out. Raises BrokerUnreachable.
    """
    from confluent_kafka import KafkaException, TopicCollection
    from confluent_kafka.admin import AdminClient

    wanted = sorted(set(names))
    admin = AdminClient(cluster.librdkafka(log_level=0))
    try:
        described = admin.describe_topics(TopicCollection(wanted), request_timeout=FIRST_CONTACT_S)
        found = {name: future.result().topic_id for name, future in described.items()}
    except KafkaException as error:
        raise BrokerUnreachable(cluster.bootstrap) from error
    return {name: str(topic_id) for name, topic_id in found.items() if topic_id is not None}
