"""Whole record batches from Kafka: the same records that aiokafka's own consumer hands over, from any position."""

import asyncio
import gc
import struct
import uuid

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.record.util import calc_crc32c

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


async def test_all_partitions_of_a_poll_together_keep_to_their_limit_and_none_is_left_behind(kafka: Cluster) -> None:
    topic = Topic(f"fetching-{uuid.uuid4().hex[:8]}", partitions=3)
    ensure_topics(kafka, [topic])
    producer = AIOKafkaProducer(**kafka.aiokafka())
    await producer.start()
    try:
        for i in range(600):
            await producer.send_and_wait(topic.name, b"%d" % i, partition=i % 3)
    finally:
        await producer.stop()
    consumer = WholeBatchConsumer(whole=lambda _: True, at_most=150, in_all=40, **kafka.aiokafka())
    await consumer.start()
    try:
        tps = [TopicPartition(topic.name, number) for number in range(3)]
        consumer.assign(tps)
        await consumer.seek_to_beginning()
        polls, read = [], dict.fromkeys(tps, 0)
        async with asyncio.timeout(30):
            while sum(read.values()) < 600:
                found = await consumer.getmany(timeout_ms=500)
                polls.append(sum(map(len, found.values())))
                for tp, records in found.items():
                    read[tp] += len(records)
                if sum(read.values()) == 200:
                    consumer.in_all = None
    finally:
        await consumer.stop()
    assert set(read.values()) == {200}
    assert polls[:5] == [40] * 5  # each record is a batch of its own
    assert max(polls[5:]) > 40


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


async def send_with_header(producer: AIOKafkaProducer, topic: str, values: list[bytes], name: bytes) -> None:
    """A batch whose second record has a header of a name that no Python client would send."""
    batch = producer.create_batch()
    for i, value in enumerate(values):
        named = [("*" * len(name), b"odd")] if i == 1 else []
        batch.append(key=None if i else b"first", value=value, timestamp=i, headers=[("n", value), *named])
    raw = bytearray(batch._build()).replace(b"*" * len(name), name)
    struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
    batch._buffer = bytes(raw)
    await (await producer.send_batch(batch, topic, partition=0))


@pytest.mark.parametrize("at_most", [1, 200])
@pytest.mark.parametrize("whole", [True, False])
async def test_a_header_whose_name_is_not_utf_8_arrives_escaped_and_all_else_as_it_is(
    kafka: Cluster, whole: bool, at_most: int
) -> None:
    topic = f"fetching-{uuid.uuid4().hex[:8]}"
    ensure_topics(kafka, [Topic(topic, partitions=1)])
    producer = AIOKafkaProducer(enable_idempotence=False, **kafka.aiokafka())
    await producer.start()
    try:
        await send_with_header(producer, topic, [b"0", b"1", b"2"], "ñ".encode())
        await send_with_header(producer, topic, [b"3", b"4", b"5"], "ñ".encode("latin-1"))
        await send_with_header(producer, topic, [b"6", b"7"], b"plain")
        await send_with_header(producer, topic, [b"8", b"9"], b"\xff\x00")
    finally:
        await producer.stop()
    odd = {1: "ñ", 4: "\\xf1", 7: "plain", 9: "\\xff\0"}
    starts = (0, 3, 6, 8)

    def expected(offset: int) -> Found:
        place = offset - max(start for start in starts if start <= offset)
        named = (("n", b"%d" % offset), *([(odd[offset], b"odd")] if offset in odd else []))
        return [(offset, place, None if place else b"first", b"%d" % offset, named)]

    for position in (0, 1, 3, 4, 5, 6, 9):
        consumer = WholeBatchConsumer(whole=lambda topic: whole, at_most=at_most, **kafka.aiokafka())
        found, _ = await read(consumer, TopicPartition(topic, 0), position)
        assert found == [record for offset in range(position, 10) for record in expected(offset)]


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
