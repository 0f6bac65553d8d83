"""What scenarios tell follows from the records alone: spreads, orders, stages."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import MillraceError
from topologies.scenarios.acts import Stage
from topologies.scenarios.ownership import Ownership
from topologies.scenarios.plan import Plan
from topologies.scenarios.spreading import BIG, big_customer_apart, first_reads, out_of_order, spread_of
from topologies.scenarios.telling import lines
from topologies.scenarios.wire import Payload, Read


def read(partition: int, offset: int, key: str, number: int, at: float, producer: int = 1) -> Read:
    return Read(partition, offset, key, Payload("act", producer, number, 0.0), at)


IN_ORDER = [read(0, 0, "a", 1, 1.0), read(1, 0, "b", 2, 1.1), read(0, 1, "a", 3, 1.2), read(1, 1, "b", 4, 1.3)]


def test_records_in_their_order_are_in_order() -> None:
    found = spread_of(IN_ORDER, 3)
    assert (found.counts, found.keys, found.in_one, found.in_order) == ((2, 2, 0), 2, 2, 2)


def test_a_record_that_is_read_before_an_earlier_one_of_its_key_is_out_of_order() -> None:
    swapped = [replace_at(one, 2.0) if one.payload.number == 1 else one for one in IN_ORDER]
    assert out_of_order(first_reads(swapped)) == {"a"}


def replace_at(one: Read, at: float) -> Read:
    return Read(one.partition, one.offset, one.key, one.payload, at)


def test_a_record_that_is_read_again_counts_once_and_as_it_was_read_first() -> None:
    again = [*IN_ORDER, *(replace_at(one, 5.0) for one in IN_ORDER)]
    assert spread_of(again, 3) == spread_of(IN_ORDER, 3)


def test_two_producers_of_a_key_have_an_order_each() -> None:
    mixed = [read(0, 0, "a", 7, 1.0, producer=1), read(0, 1, "a", 3, 1.1, producer=2), read(0, 2, "a", 8, 1.2)]
    assert out_of_order(first_reads(mixed)) == set()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=60), st.randoms())
def test_what_lies_in_order_in_one_partition_is_read_in_order_however_partitions_take_turns(
    sent: list[tuple[str, int]], chance: object
) -> None:
    ends = [0] * 4
    logs: list[list[tuple[str, int]]] = [[], [], [], []]
    for number, (key, _) in enumerate(sent):
        logs[ord(key) % 4].append((key, number))
    reads, at = [], 0.0
    waiting = [partition for partition in range(4) for _ in logs[partition]]
    chance.shuffle(waiting)  # type: ignore[attr-defined]  # a random.Random
    for partition in waiting:
        key, number = logs[partition][ends[partition]]
        reads.append(read(partition, ends[partition], key, number, at))
        ends[partition] += 1
        at += 1.0
    found = spread_of(reads, 4)
    assert found.in_order == found.in_one == found.keys


@given(st.integers(1, 40), st.integers(1, 32))
def test_stages_rise_to_all_consumers_and_stop_where_there_are_as_many_as_partitions(
    partitions: int, consumers: int
) -> None:
    stages = Plan("one-to-many", partitions=partitions, consumers=consumers).stages
    assert list(stages) == sorted(set(stages))
    assert stages[0] == 1
    assert stages[-1] == consumers
    assert (partitions in stages) == (partitions <= consumers)


@given(st.binary(max_size=20), st.integers(1, 50))
def test_the_example_of_a_custom_partitioner_keeps_to_its_partitions(key: bytes, partitions: int) -> None:
    assert 0 <= big_customer_apart(key, partitions) < partitions
    if partitions > 1 and key != BIG:
        assert big_customer_apart(key, partitions) != big_customer_apart(BIG, partitions)


@pytest.mark.parametrize(
    "numbers", [{"producers": 0}, {"partitions": 0}, {"consumers": 33}, {"records": 0}, {"session_s": 0.5}]
)
def test_numbers_that_cannot_be_are_refused_by_their_name(numbers: dict[str, int]) -> None:
    with pytest.raises(MillraceError, match=next(iter(numbers)).removesuffix("_s")):
        Plan("many-to-many", **numbers)  # type: ignore[arg-type]  # one of them is a float


def test_nobody_is_killed_without_a_survivor() -> None:
    with pytest.raises(MillraceError, match="second consumer"):
        Plan("one-to-many", kill=True)


def test_idle_consumers_are_named() -> None:
    plan = Plan("one-to-many", partitions=2, consumers=3)
    found = Ownership({"consumer-1": (0,), "consumer-2": (1,), "consumer-3": ()})
    said = lines(Stage(3, 2, found, 0.2), plan)
    assert "more consumers than partitions" in said[1]
    assert any(line.split()[:2] == ["consumer-3", "idle:"] for line in said)
    assert replace(found, owners={"consumer-1": (0, 1)}).idle == ()
