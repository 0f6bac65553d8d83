"""The log of a cluster whose topics go away under it."""

import asyncio
import contextlib
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient

from streams.cluster import Cluster
from streams.kafka_log import KafkaLog
from streams.log import TP, Entry, TopicGone
from streams.topics import Topic, ensure_topics


async def append_on_and_on(log: KafkaLog, tp: TP) -> None:
    for _ in range(100):  # the broker takes a few more, until it has heard that the topic is gone
        await log.append({tp: [Entry(b"key", b"value")]})


@pytest.mark.timeout(90)
async def test_a_topic_that_is_deleted_is_told_by_every_call_instead_of_waited_for(kafka: Cluster) -> None:
    name = f"gone-{uuid4().hex[:8]}"
    ensure_topics(kafka, [Topic(name, partitions=1)])
    tp = TP(name, 0)
    log = KafkaLog(kafka)
    await log.start()
    try:
        await log.append({tp: [Entry(b"key", b"value")]})
        admin = AdminClient(kafka.librdkafka())
        for done in admin.delete_topics([name], operation_timeout=20).values():
            done.result(20)
        with pytest.raises(TopicGone, match=name):
            await append_on_and_on(log, tp)
        with pytest.raises(TopicGone, match=name):
            await log.end_offsets([tp])
        with pytest.raises(TopicGone, match=name):
            async for _ in log.read({tp: (0, 1)}):
                pass
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await log.stop()
