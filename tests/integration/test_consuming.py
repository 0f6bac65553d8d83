"""A group with side effects on a real cluster: order, at least once, hand-over, waiting, outages."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from fleet import committed
from operating import fresh, transact
from own import forget_topics

from streams.broker import Broker
from streams.cluster import Cluster
from streams.consuming import Again, Handle, Meter, Reading, consume
from streams.errors import MillraceError
from streams.log import TP, Record
from streams.producers import Producer
from streams.topics import Topic, ensure_topics

pytestmark = pytest.mark.timeout(120)


class Seen:
    """A handler that remembers what it was given, and first does what a test wants."""

    def __init__(self, before: Callable[[TP, Sequence[Record]], Any] | None = None) -> None:
        self.before = before
        self.calls: list[tuple[TP, list[int]]] = []

    async def __call__(self, tp: TP, records: Sequence[Record]) -> None:
        if self.before is not None:
            await self.before(tp, records)
        self.calls.append((tp, [record.offset for record in records]))

    def offsets(self, partition: int) -> list[int]:
        return [offset for tp, offsets in self.calls if tp.partition == partition for offset in offsets]

    def total(self) -> int:
        return sum(len(offsets) for _, offsets in self.calls)


async def until(holds: Callable[[], Any], what: str, limit_s: float = 30.0) -> None:
    async with asyncio.timeout(limit_s):
        while not holds():
            await asyncio.sleep(0.02)
    assert holds(), what


@asynccontextmanager
async def consuming(
    kafka: Cluster, group: str, topic: Topic, handle: Handle, *, orderly: bool = True, **settings: Any
) -> AsyncIterator[asyncio.Event]:
    """A member while the context lasts. Not `orderly`: it dies in the middle of what it does."""
    stop = asyncio.Event()
    task = asyncio.ensure_future(consume(kafka, group, [topic], handle, stop=stop, **settings))
    try:
        yield stop
        if task.done():
            await task
    finally:
        if orderly:
            stop.set()
            await asyncio.wait_for(task, 20)
        else:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def topic_with(kafka: Cluster, *counts: int, **config: str) -> Topic:
    """A topic of its own with so many records in each partition."""
    topic = Topic(fresh("effects"), partitions=len(counts), config=config)
    ensure_topics(kafka, [topic])
    send(kafka, topic, *counts)
    return topic


def send(kafka: Cluster, topic: Topic, *counts: int) -> None:
    with Producer(kafka) as producer:
        for partition, count in enumerate(counts):
            for number in range(count):
                producer.produce(topic.name, b"k", b"%d" % number, partition=partition)


def delete_before(kafka: Cluster, topic: Topic, offset: int) -> None:
    """As retention does."""
    admin = AdminClient(kafka.librdkafka())
    for deleted in admin.delete_records([TopicPartition(topic.name, 0, offset)]).values():
        deleted.result(10)


async def test_every_record_is_handled_in_order_and_then_committed(kafka: Cluster) -> None:
    topic, seen, meter = topic_with(kafka, 700, 3), Seen(), Meter()
    group = fresh("effects")
    async with consuming(kafka, group, topic, seen, reading=Reading(max_records=100), meter=meter):
        await until(lambda: seen.total() == 703 and not any(meter.lag().values()), "handled")
        assert meter.handled == {TP(topic.name, 0): 700, TP(topic.name, 1): 3}
    assert seen.offsets(0) == list(range(700))
    assert seen.offsets(1) == [0, 1, 2]
    assert max(len(offsets) for _, offsets in seen.calls) <= 100
    later = Seen()
    send(kafka, topic, 1, 1)
    async with consuming(kafka, group, topic, later):
        await until(lambda: later.total() == 2, "the new ones")
    assert (later.offsets(0), later.offsets(1)) == ([700], [3])


async def test_what_was_not_said_to_have_taken_effect_comes_again_after_a_death(kafka: Cluster) -> None:
    topic, group, begun = topic_with(kafka, 10), fresh("effects"), asyncio.Event()

    async def hang(tp: TP, records: Sequence[Record]) -> None:
        begun.set()
        await asyncio.sleep(60)

    async with consuming(kafka, group, topic, Seen(hang), orderly=False):
        await asyncio.wait_for(begun.wait(), 20)
    again = Seen()
    async with consuming(kafka, group, topic, again):
        await until(lambda: again.total() == 10, "all of them")


async def test_one_that_waits_holds_up_its_partition_only(kafka: Cluster) -> None:
    topic, failures = topic_with(kafka, 5, 5), 0

    async def refuse(tp: TP, records: Sequence[Record]) -> None:
        nonlocal failures
        if tp.partition == 0 and failures < 3:
            failures += 1
            raise Again(0.3)

    seen = Seen(refuse)
    async with consuming(kafka, fresh("effects"), topic, seen):
        await until(lambda: seen.offsets(1), "the other partition")
        assert seen.offsets(0) == []
        await until(lambda: seen.offsets(0), "this one, too")
    assert seen.offsets(0) == list(range(5))
    assert failures == 3


async def test_what_took_effect_before_a_wait_does_not_come_again(kafka: Cluster) -> None:
    topic, group = topic_with(kafka, 10), fresh("effects")

    async def some(tp: TP, records: Sequence[Record]) -> None:
        raise Again(0.0 if records[0].offset < 6 else 60.0, at=records[0].offset + 3)

    meter, second = Meter(), Seen()
    async with consuming(kafka, group, topic, Seen(some), meter=meter):
        await until(lambda: 9 in meter.position.values(), "it waits with the last one")
    async with consuming(kafka, group, topic, second):
        await until(lambda: second.total(), "what is left")
    assert second.offsets(0) == [9]


async def test_a_hand_over_repeats_nothing_and_leaves_nothing_out(kafka: Cluster) -> None:
    topic, group = topic_with(kafka, 400, 400, 400, 400), fresh("effects")

    async def slowly(tp: TP, records: Sequence[Record]) -> None:
        await asyncio.sleep(0.15)

    one, two = Seen(slowly), Seen(slowly)
    async with consuming(kafka, group, topic, one, reading=Reading(max_records=10)):
        await until(lambda: one.total() > 100, "the first is at work")
        async with consuming(kafka, group, topic, two, reading=Reading(max_records=10)):
            await until(lambda: two.total() > 50, "the second, too")
        await until(lambda: one.total() + two.total() >= 1600, "all")
    for partition in range(4):
        assert sorted(one.offsets(partition) + two.offsets(partition)) == list(range(400))


@pytest.mark.parametrize("after_s", [number / 10 for number in range(10)])
async def test_one_ends_in_good_order_whenever_a_rebalance_is(kafka: Cluster, after_s: float) -> None:
    """From before it hears that another one joins until after it has its new share."""
    topic, group, at_work = topic_with(kafka, 50, 50), fresh("effects"), 0

    async def slowly(tp: TP, records: Sequence[Record]) -> None:
        nonlocal at_work
        at_work += 1
        await asyncio.sleep(0.2)
        at_work -= 1

    reading, meter = Reading(max_records=1, session_s=2.0), Meter()
    async with consuming(kafka, group, topic, Seen(slowly), reading=reading, meter=meter) as stop:
        await until(lambda: meter.assigned, "it has all")
        async with consuming(kafka, group, topic, Seen(), reading=reading):
            await asyncio.sleep(after_s)
            stop.set()
            await until(lambda: not meter.assigned, "it has ended")
            assert not at_work


async def test_one_that_comes_back_to_a_group_of_nobody_does_not_set_it_back(kafka: Cluster) -> None:
    """Its pause outlasted its session; the successor did its work and more, and has ended since."""
    topic, group = topic_with(kafka, 30), fresh("effects")
    reading = Reading(max_records=10, session_s=2.0)
    paused, go_on = threading.Event(), threading.Event()

    def pause(tp: TP, records: Sequence[Record]) -> Awaitable[None]:
        if records[0].offset == 10:
            paused.set()
            go_on.wait(60)  # its loop stands still, its heartbeats with it
        return asyncio.sleep(0)

    first, meter = Seen(pause), Meter()
    stop, loop = asyncio.Event(), asyncio.new_event_loop()
    member = consume(kafka, group, [topic], first, stop=stop, reading=reading, meter=meter)
    thread = threading.Thread(target=loop.run_until_complete, args=(member,))
    thread.start()
    try:
        await until(paused.is_set, "it is at work")
        async with consuming(kafka, group, topic, Seen(), reading=reading):
            await until(lambda: committed(kafka, group, topic.name, 1) == {0: 30}, "the successor has done everything")
        assert first.offsets(0) == list(range(10))
        go_on.set()
        await until(lambda: meter.position.get(TP(topic.name, 0)) == 30, "it is back at the end")
        assert first.offsets(0) == list(range(20))  # what it had been at, and nothing that the successor did
        assert committed(kafka, group, topic.name, 1) == {0: 30}
    finally:
        go_on.set()
        loop.call_soon_threadsafe(stop.set)
        await asyncio.to_thread(thread.join, 20)
        loop.close()


async def test_lingering_gathers_until_there_is_enough_or_it_is_time(kafka: Cluster) -> None:
    topic, seen = topic_with(kafka, 3), Seen()
    async with consuming(kafka, fresh("effects"), topic, seen, reading=Reading(max_records=8, linger_s=1.5)):
        send(kafka, topic, 1)
        await until(lambda: seen.calls, "the time is over")
        assert seen.offsets(0) == [0, 1, 2, 3]
        send(kafka, topic, 9)
        await until(lambda: seen.total() == 13, "the others")
    assert [len(offsets) for _, offsets in seen.calls] == [4, 8, 1]


async def test_what_is_gathered_is_handled_at_an_orderly_end(kafka: Cluster) -> None:
    topic, seen, meter = topic_with(kafka, 3), Seen(), Meter()
    async with consuming(kafka, fresh("effects"), topic, seen, reading=Reading(linger_s=60), meter=meter):
        await until(lambda: 3 in meter.gathered.values(), "gathered")
        assert seen.calls == []
    assert seen.offsets(0) == [0, 1, 2]


async def test_bytes_bound_what_is_handed_over_as_well(kafka: Cluster) -> None:
    topic, seen = topic_with(kafka, 0), Seen()
    with Producer(kafka) as producer:
        for _ in range(5):
            producer.produce(topic.name, None, b"x" * 1000)
    async with consuming(kafka, fresh("effects"), topic, seen, reading=Reading(max_bytes=2500)):
        await until(lambda: seen.total() == 5, "all")
    assert max(len(offsets) for _, offsets in seen.calls) == 2


async def test_a_group_can_begin_where_it_knows_better(kafka: Cluster) -> None:
    topic, seen = topic_with(kafka, 10), Seen()

    async def starts(tp: TP, first: int, end: int) -> int:
        assert (first, end) == (0, 10)
        return 6

    async with consuming(kafka, fresh("effects"), topic, seen, reading=Reading(starts=starts)):
        await until(lambda: seen.total() == 4, "the last four")
    assert seen.offsets(0) == [6, 7, 8, 9]


async def test_a_mistake_in_a_handler_ends_the_loop_with_it(kafka: Cluster) -> None:
    async def wrong(tp: TP, records: Sequence[Record]) -> None:
        raise MillraceError("this cannot be")

    with pytest.raises(MillraceError, match="this cannot be"):
        await consume(kafka, fresh("effects"), [topic_with(kafka, 1)], wrong, stop=asyncio.Event())


async def test_what_a_transaction_leaves_at_the_end_is_passed_and_committed(kafka: Cluster) -> None:
    topic, group, told = topic_with(kafka, 0, 0), fresh("effects"), list[str]()
    transact(kafka, topic.name, 3, 1)
    transact(kafka, topic.name, 0, 2, commit=False)
    seen, meter = Seen(), Meter()
    async with consuming(kafka, group, topic, seen, meter=meter, tell=told.append):
        await until(lambda: sorted(meter.position.values()) == [4, 5], "past the markers")
        assert not any(meter.lag().values())
        transact(kafka, topic.name, 1, 1)
        await until(lambda: sorted(meter.position.values()) == [6, 7], "past those, too")
    assert committed(kafka, group, topic.name, 2) == {0: 6, 1: 7}
    assert (seen.offsets(0), seen.offsets(1)) == ([0, 1, 2, 4], [0, 2, 3, 5])
    assert not any("deleted" in line for line in told)


async def test_no_marker_is_passed_before_what_is_gathered_took_effect(kafka: Cluster) -> None:
    topic, group, meter = topic_with(kafka, 0), fresh("effects"), Meter()
    transact(kafka, topic.name, 3)
    async with consuming(kafka, group, topic, Seen(), orderly=False, meter=meter, reading=Reading(linger_s=60)):
        await until(lambda: 3 in meter.gathered.values(), "gathered")
        await asyncio.sleep(1.0)  # polls go on
        assert committed(kafka, group, topic.name, 1)[0] <= 0
    seen = Seen()
    async with consuming(kafka, group, topic, seen):
        await until(lambda: seen.total() == 3, "all of them")


async def test_what_was_deleted_before_it_was_read_is_told(kafka: Cluster) -> None:
    topic, group, told = topic_with(kafka, 10), fresh("effects"), list[str]()
    async with consuming(kafka, group, topic, first := Seen()):
        await until(lambda: first.total() == 10, "all")
    send(kafka, topic, 10)
    delete_before(kafka, topic, 15)
    async with consuming(kafka, group, topic, seen := Seen(), tell=told.append):
        await until(lambda: seen.total() == 5, "what is left")
    assert seen.offsets(0) == [15, 16, 17, 18, 19]
    assert any("up to 5 record(s) from 10 on were deleted" in line for line in told)


@pytest.mark.parametrize(("linger_s", "left"), [(0.0, 5), (2.0, 5), (0.0, 0)])
async def test_what_is_deleted_under_a_live_member_is_told_and_gone_on_after_as_at_a_start(
    kafka: Cluster, linger_s: float, left: int
) -> None:
    topic, meter, told, begun = topic_with(kafka, 10), Meter(), list[str](), list[int]()

    async def starts(tp: TP, first: int, end: int) -> None:
        begun.append(first)

    seen, reading = Seen(), Reading(linger_s=linger_s, starts=starts)
    async with consuming(kafka, fresh("effects"), topic, seen, reading=reading, meter=meter, tell=told.append):
        await until(lambda: seen.total() == 10 or 10 in meter.gathered.values(), "the first")
        time.sleep(0.5)  # its loop stands still: what it had asked for comes back empty
        send(kafka, topic, 10)
        delete_before(kafka, topic, 20 - left)
        await until(lambda: seen.total() == 10 + left and 20 in meter.position.values(), "what is left")
    assert seen.offsets(0) == [*range(10), *range(20 - left, 20)]
    assert [line for line in told if f"up to {10 - left} record(s) from 10 on were deleted" in line] == told[1:]
    assert begun == [0, 20 - left]


async def test_a_log_that_got_shorter_under_a_live_member_is_gone_on_with_at_its_end(
    kafka: Cluster, kafka_broker: Broker
) -> None:
    """A broker alone loses at a power cut what it had not synced; the offsets are given to other records then."""
    topic, group, told = topic_with(kafka, 30), fresh("effects"), list[str]()
    (log,) = kafka_broker.directory.rglob(f"{topic.name}-0/*.log")
    synced = log.stat().st_size
    send(kafka, topic, 20)
    async with consuming(kafka, group, topic, seen := Seen(), tell=told.append):
        await until(lambda: committed(kafka, group, topic.name, 1) == {0: 50}, "all handled and committed")
        await asyncio.to_thread(kafka_broker.kill, 1)
        os.truncate(log, synced)
        await asyncio.to_thread(kafka_broker.start_node, 1)
        await until(lambda: any("ends at 30, before 50" in line for line in told), "told")
        await asyncio.to_thread(send, kafka, topic, 5)
        await until(lambda: seen.total() == 55, "the new ones")
    assert seen.offsets(0) == [*range(50), *range(30, 35)]
    assert sum("goes on at 30" in line for line in told) == 1
    assert committed(kafka, group, topic.name, 1) == {0: 35}


async def test_a_topic_made_anew_under_a_live_member_is_read_from_its_beginning(kafka: Cluster) -> None:
    topic, group, told = topic_with(kafka, 30), fresh("effects"), list[str]()
    async with consuming(kafka, group, topic, seen := Seen(), tell=told.append):
        await until(lambda: seen.total() == 30, "all")
        time.sleep(0.5)  # its loop stands still: it does not see that the topic was away
        forget_topics(kafka, topic.name)
        ensure_topics(kafka, [topic])
        send(kafka, topic, 5)
        await until(lambda: seen.total() >= 35, "the new ones")
    assert seen.offsets(0) == [*range(30), *range(5)]
    assert told[1:] == [f"{topic.name}[0] ends at 5, before 30, where this group was: it goes on at 0"]
    assert committed(kafka, group, topic.name, 1) == {0: 5}


async def test_a_broker_that_goes_and_comes_back_is_waited_for(kafka: Cluster, kafka_broker: Broker) -> None:
    topic, group, told = topic_with(kafka, 5), fresh("effects"), list[str]()
    async with consuming(kafka, group, topic, seen := Seen(), tell=told.append):
        await until(lambda: seen.total() == 5, "the first")
        await asyncio.to_thread(kafka_broker.kill, 1)
        await until(lambda: any("is away" in line for line in told), "told")
        await asyncio.to_thread(kafka_broker.start_node, 1)
        await asyncio.to_thread(send, kafka, topic, 5)
        await until(lambda: len(set(seen.offsets(0))) == 10, "the others")
    assert seen.offsets(0) == list(range(10))
