"""Whole record batches from Kafka: the same records that aiokafka's own consumer hands over, from any position."""

import gc
import uuid

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords

from streams.cluster import Cluster
from streams.fetching import WholeBatchConsumer
from streams.topics import Topic, ensure_topics

Found = list[tuple[int, int, bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]]
RECORDS = 3_000


@pytest.fixture
async def filled(kafka: Cluster) -> tuple[Cluster, TopicPartition]:
    """A partition of many small batches, a committed transaction's marker every so often."""
    topic = f"fetching-{uuid.uuid4().hex[:8]}"
    ensure_topics(kafka, [Topic(topic, partitions=1)])
    producer = AIOKafkaProducer(transactional_id=topic, compression_type="lz4", **kafka.aiokafka())
    await producer.start()
    try:
        for first in range(0, RECORDS, 500):
            async with producer.transaction():
                for i in range(first, first + 500):
                    value = None if i % 7 == 0 else b"value %d" % i
                    await producer.send(topic, value, b"key %d" % i, headers=[("n", b"%d" % i)] if i % 5 == 0 else None)
    finally:
        await producer.stop()
    return kafka, TopicPartition(topic, 0)


async def read(consumer: AIOKafkaConsumer, tp: TopicPartition, position: int) -> tuple[Found, list[int]]:
    """All records from a position, and how many each poll gave."""
    await consumer.start()
    try:
        consumer.assign([tp])
        consumer.seek(tp, position)
        end = (await consumer.end_offsets([tp]))[tp]
        found: Found = []
        polls = []
        while await consumer.position(tp) < end:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in records]
                polls.append(len(records))
        return found, polls
    finally:
        await consumer.stop()


@pytest.mark.parametrize("position", [0, 3, 499, 500, 501, 1_777, RECORDS])
async def test_whole_batches_hold_what_single_records_do(filled: tuple[Cluster, TopicPartition], position: int) -> None:
    kafka, tp = filled
    single, _ = await read(AIOKafkaConsumer(**kafka.aiokafka()), tp, position)
    whole, _ = await read(WholeBatchConsumer(whole=lambda topic: True, at_most=200, **kafka.aiokafka()), tp, position)
    assert whole == single
    assert [offset for offset, *_ in whole] == sorted({offset for offset, *_ in whole})


async def test_a_poll_stops_soon_after_its_bound(filled: tuple[Cluster, TopicPartition]) -> None:
    kafka, tp = filled
    _, whole = await read(WholeBatchConsumer(whole=lambda topic: True, at_most=200, **kafka.aiokafka()), tp, 0)
    assert sum(whole) == RECORDS
    assert max(whole) < 200 + 500
    _, single = await read(WholeBatchConsumer(whole=lambda topic: False, at_most=200, **kafka.aiokafka()), tp, 0)
    assert sum(single) == RECORDS
    assert max(single) <= 200


@pytest.mark.parametrize("whole", [True, False])
async def test_what_was_fetched_is_freed_without_the_collector(
    filled: tuple[Cluster, TopicPartition], whole: bool
) -> None:
    kafka, tp = filled
    gc.collect()
    gc.disable()
    try:
        await read(WholeBatchConsumer(whole=lambda topic: whole, at_most=200, **kafka.aiokafka()), tp, 0)
        held = [one for one in gc.get_objects() if type(one) in (FetchResult, PartitionRecords)]
    finally:
        gc.enable()
    # those of the last fetch, which tells only that there is no more
    assert len(held) <= 1
