"""The producer against librdkafka's own mock brokers: what fails is raised, once, by the next flush."""

from typing import Any

import pytest

from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.producers import Producer

NOWHERE = Cluster("127.0.0.1:1")


def mock(**config: Any) -> Producer:
    return Producer(NOWHERE, **{"test.mock.num.brokers": 1, "log_level": 0, **config})


def test_what_is_produced_is_counted_and_acknowledged() -> None:
    with mock() as producer:
        for number in range(5_000):
            producer.produce("orders", b"user-%d" % number, b"{}", headers={"trace": b"1"}, timestamp_ms=number + 1)
        producer.flush()
        assert (producer.produced, producer.failed) == (5_000, 0)


def test_a_full_queue_waits_instead_of_failing() -> None:
    with mock(**{"queue.buffering.max.messages": 100}) as producer:
        for _ in range(1_000):
            producer.produce("orders", b"user-1", b"{}")
        producer.flush()
        assert (producer.produced, producer.failed) == (1_000, 0)


def test_a_record_that_fails_is_raised_by_the_next_flush_and_only_by_it() -> None:
    producer = mock(**{"test.mock.broker.rtt": 500})
    # Known to be none only when the broker has answered, which is not before these two lines are through.
    producer.produce("orders", b"user-1", b"{}", partition=99)
    producer.produce("orders", b"user-1", b"{}", partition=0)
    with pytest.raises(MillraceError, match=r"1 of 2 records were not delivered: orders: .*partition"):
        producer.flush()
    producer.produce("orders", b"user-1", b"{}", partition=0)
    producer.flush()
    assert producer.failed == 1


def test_a_record_that_is_too_large_is_refused_at_once() -> None:
    producer = mock(**{"message.max.bytes": 2_000})
    with pytest.raises(MillraceError, match=r"cannot be sent to 'orders': .*too large"):
        producer.produce("orders", b"user-1", b"x" * 5_000)
    assert producer.produced == 0


def test_records_that_still_wait_are_told_with_the_brokers_address() -> None:
    producer = Producer(NOWHERE, log_level=0)
    producer.produce("orders", b"user-1", b"{}")
    with pytest.raises(MillraceError, match=r"1 records are not delivered after 0\.2 s: .*127.0.0.1:1"):
        producer.flush(timeout_s=0.2)


def test_an_error_inside_a_with_block_is_not_hidden_by_a_flush() -> None:
    def fail() -> None:
        with Producer(NOWHERE, log_level=0) as producer:
            producer.produce("orders", b"user-1", b"{}")
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
