"""A connection to a cluster for questions and changes, and its refusals as one readable line."""

from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata

from streams.cluster import Cluster
from streams.errors import BrokerUnreachable, MillraceError
from streams.topics import FIRST_CONTACT_S

K = TypeVar("K")
T = TypeVar("T")

ANSWER_S: Final = 15.0
# librdkafka's own log lines would stand beside the one line that the operator is to read
QUIET: Final[Mapping[str, Any]] = {"log_level": 0, "socket.connection.setup.timeout.ms": 5000}
AWAY: Final = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE)
# What is said of a partition for the moment in which its leader changes. An epoch is that of a leadership.
MOVING: Final = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
)


class Admin:
    """One connection to a cluster, for questions and changes; nothing is sent before it is asked something."""

    def __init__(self, cluster: Cluster) -> None:
        """Keep where it is."""
        self.cluster = cluster
        self.client = AdminClient(cluster.librdkafka(**QUIET))

    def metadata(self) -> ClusterMetadata:
        """Brokers and topics as they are now. Raises BrokerUnreachable."""
        try:
            return self.client.list_topics(timeout=FIRST_CONTACT_S)
        except KafkaException as error:
            raise BrokerUnreachable(self.cluster.bootstrap) from error


def answer(future: "Future[T]", what: str) -> T:
    """What was asked for. Raises MillraceError, which begins with `what`."""
    try:
        return future.result(ANSWER_S)
    except KafkaException as failure:
        raise MillraceError(f"{what}: {reason(failure)}") from failure
    except NoAnswer as failure:
        raise MillraceError(f"{what}: no answer within {ANSWER_S:g} s; see `millrace doctor`") from failure


def answers(futures: Mapping[K, "Future[T]"], what: str) -> dict[K, T]:
    """All of what was asked for. Raises MillraceError for the first that failed."""
    return {key: answer(future, what) for key, future in futures.items()}


def reason(failure: KafkaException) -> str:
    """Why, without codes; a broker that is away is said to be."""
    error = failure.args[0]
    if error.code() in AWAY:
        return f"the cluster does not answer ({error.str()}); see `millrace doctor`"
    return str(error.str())
