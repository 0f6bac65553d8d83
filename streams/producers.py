"""Records to Kafka, fast, in order and each once: a thin producer over confluent-kafka.

Idempotent, so a retry neither doubles nor reorders; keys are placed by `murmur2_random`, where the Java
client puts them. Records go out in batches of up to 20 ms. A failed delivery is not an exception at its
`produce`, which has long returned: it is kept, and raised by the next `flush`.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message

from streams.cluster import Cluster
from streams.errors import MillraceError

Headers = Mapping[str, bytes] | Sequence[tuple[str, bytes]]

CONFIG: Final[dict[str, Any]] = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": 20,
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 512 * 1024,
    # a callback for each delivery would take longer than everything else that Python does for a record
    "delivery.report.only.error": True,
    # librdkafka retries what it warns of, and what it gives up is raised here
    "log_level": 2,
}
POLL_EVERY: Final = 1024
FULL_WAIT_S: Final = 0.1
FULL_TRIES: Final = 300


class Producer:
    """Sends records; not for use by several threads at once.

    `produced` counts the records handed over, `failed` those that could not be delivered.
    """

    def __init__(self, cluster: Cluster, **config: Any) -> None:
        """Connect in the background; `config` has librdkafka's names and wins over the defaults."""
        settings = cluster.librdkafka(**{**CONFIG, "on_delivery": self._on_failure, **config})
        self._producer = confluent_kafka.Producer(settings)
        self._bootstrap = cluster.bootstrap
        self._error: str | None = None
        self.produced = 0
        self.failed = 0

    def produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        headers: Headers | None = None,
        timestamp_ms: int | None = None,
    ) -> None:
        """Hand over one record; waits only while the queue is full, at most 30 s.

        `partition` None goes by the key's hash, or anywhere without a key; `timestamp_ms` None is now.
        Raises MillraceError for a record that cannot be sent, such as one that is too large.
        """
        options: dict[str, Any] = {}
        if partition is not None:
            options["partition"] = partition
        if headers is not None:
            options["headers"] = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        if timestamp_ms is not None:
            options["timestamp"] = timestamp_ms
        self._hand_over(topic, key, value, options)
        self.produced += 1
        if not self.produced % POLL_EVERY:
            self._producer.poll(0)

    def _hand_over(self, topic: str, key: bytes | None, value: bytes | None, options: Mapping[str, Any]) -> None:
        for _ in range(FULL_TRIES):
            try:
                self._producer.produce(topic, value, key, **options)
                return
            except BufferError:
                self._producer.poll(FULL_WAIT_S)
            except KafkaException as failure:
                reason = failure.args[0].str()
                raise MillraceError(
                    f"a record cannot be sent to {topic!r}: {reason}; see `millrace doctor`"
                ) from failure
        raise MillraceError(
            f"{len(self._producer):,} records wait and none are taken: see whether {self._bootstrap} is up, "
            "or `millrace doctor`"
        )

    def flush(self, timeout_s: float = 60) -> None:
        """Return once every record so far is acknowledged by all in-sync replicas.

        Raises MillraceError if any failed since the last `flush`, or some still wait after `timeout_s`.
        """
        waiting = self._producer.flush(timeout_s)
        self.check()
        if waiting:
            raise MillraceError(
                f"{waiting:,} records are not delivered after {timeout_s:g} s: see whether {self._bootstrap} is up, "
                "or `millrace doctor`"
            )

    def check(self) -> None:
        """Raise MillraceError if a record is known to have failed since the last check; never waits."""
        self._producer.poll(0)
        if self._error is not None:
            error, self._error = self._error, None
            raise MillraceError(f"{self.failed:,} of {self.produced:,} records were not delivered: {error}")

    def _on_failure(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failed += 1
            self._error = f"{message.topic()}: {error.str()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush, unless an error is already on its way."""
        if error is None:
            self.flush()
