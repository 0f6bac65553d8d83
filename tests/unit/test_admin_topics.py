"""Which topics a cluster has, asked of brokers that hear of new ones in their own time."""

from collections.abc import Iterable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from streams.admin.connection import MOVING, Admin
from streams.admin.topics import LATEST, offsets_at, partitions_of
from streams.errors import MillraceError
from streams.log import TP


class Asked:
    """An admin connection; each question goes to the next broker, the last one answers all the rest."""

    def __init__(self, *brokers: dict[str, Any]) -> None:
        self.brokers = list(brokers)

    def metadata(self) -> Any:
        return SimpleNamespace(topics=self.brokers.pop(0) if len(self.brokers) > 1 else self.brokers[0])


def topic(*partitions: int, error: str | None = None) -> Any:
    return SimpleNamespace(partitions=dict.fromkeys(partitions), error=error)


def asked(*brokers: dict[str, Any]) -> dict[str, list[int]]:
    return partitions_of(cast(Admin, Asked(*brokers)), ["orders", "visits"])


def test_a_topic_that_the_asked_broker_has_not_heard_of_is_looked_for_again() -> None:
    both = {"orders": topic(1, 0), "visits": topic(0)}
    unready = {"orders": topic(error="leader not available"), "visits": topic(0)}
    assert asked({}, {"orders": topic(0, 1)}, unready, both) == {"orders": [0, 1], "visits": [0]}


def test_a_topic_that_no_broker_hears_of_is_named_with_one_that_looks_alike() -> None:
    with pytest.raises(MillraceError, match="there is no topic 'visits'; did you mean 'visit'"):
        asked({"orders": topic(0), "visit": topic(0)})


class Led:
    """An admin connection to brokers that say this of a partition before they say where it ends."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.client = self

    def list_offsets(self, asked: Iterable[TopicPartition], request_timeout: float) -> Any:
        found = {tp: Future[Any]() for tp in asked}
        for future in found.values():
            if self.codes:
                future.set_exception(KafkaException(KafkaError(self.codes.pop(0))))
            else:
                future.set_result(SimpleNamespace(offset=7))
        return found


def test_a_partition_whose_leader_changes_is_asked_again() -> None:
    assert offsets_at(cast(Admin, Led(*MOVING)), [TP("orders", 0)], LATEST) == {TP("orders", 0): 7}


def test_a_partition_that_is_refused_is_not_asked_again() -> None:
    with pytest.raises(MillraceError, match="offsets cannot be read"):
        offsets_at(cast(Admin, Led(KafkaError.TOPIC_AUTHORIZATION_FAILED)), [TP("orders", 0)], LATEST)
