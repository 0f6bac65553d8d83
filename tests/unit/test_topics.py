import pytest

from streams.errors import BrokerUnreachable, MillraceError, PartitionMismatch
from streams.events import OrderEvent
from streams.topics import ORDER_EVENTS, Topic


def test_side_topics_are_named_and_partitioned_like_their_source() -> None:
    orders = ORDER_EVENTS.with_partitions(7)
    assert [(side.name, side.partitions, side.value) for side in (orders.dead_letters, orders.late)] == [
        ("order-events.dead-letters", 7, None),
        ("order-events.late", 7, None),
    ]


def test_other_partitions_change_nothing_else() -> None:
    assert ORDER_EVENTS.with_partitions(9).with_partitions(4) == ORDER_EVENTS
    assert ORDER_EVENTS.value is OrderEvent


def test_side_topics_are_never_searched_for_duplicates() -> None:
    assert ORDER_EVENTS.dedupe_s == 300
    assert ORDER_EVENTS.late.dedupe_s == 0


def test_no_retention_means_for_ever() -> None:
    assert Topic("t", retention_s=None).kafka_config() == {"cleanup.policy": "delete", "retention.ms": "-1"}


def test_retention_is_told_in_milliseconds() -> None:
    assert Topic("t", retention_s=1.5).kafka_config()["retention.ms"] == "1500"


def test_kafkas_own_settings_win() -> None:
    topic = Topic("t", cleanup="compact", config={"cleanup.policy": "compact,delete"})
    assert topic.kafka_config()["cleanup.policy"] == "compact,delete"


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "no spaces"), ("name", ".."), ("partitions", 0), ("retention_s", 0), ("dedupe_s", -1)],
)
def test_an_impossible_topic_cannot_be_declared(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        Topic(**{"name": "t", field: value})  # type: ignore[arg-type]  # wrong on purpose


def test_a_mismatch_names_both_counts_and_the_way_out() -> None:
    message = str(PartitionMismatch("order-events", 1, 4))
    assert "'order-events'" in message
    assert "1 partition" in message
    assert "4 are declared" in message
    assert "MILLRACE_PARTITIONS=1" in message


@pytest.mark.parametrize("error", [PartitionMismatch("t", 1, 4), BrokerUnreachable("localhost:1")])
def test_an_operators_error_is_one_line(error: MillraceError) -> None:
    assert "\n" not in str(error)
