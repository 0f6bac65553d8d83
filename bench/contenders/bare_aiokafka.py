"""The limit for anything on aiokafka: read, `orjson.loads`, add up in a dict; nothing is kept."""

import asyncio
from collections import defaultdict

from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.contenders.bare import Sums, add_up, with_sums
from bench.measure import Meter, Outcome, Task, report, task_given

# As the worker fetches, and as many records as librdkafka's loop takes at once.
FETCH_BYTES = 1 << 20
RECORDS = 5_000


async def run(task: Task) -> Outcome:
    """Read the topic once."""
    consumer = AIOKafkaConsumer(
        max_partition_fetch_bytes=FETCH_BYTES, enable_auto_commit=False, **task.cluster.aiokafka()
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(task.topic, number) for number in range(task.partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        return await _read(consumer, Meter(task.warmup, task.total))
    finally:
        await consumer.stop()


async def _read(consumer: AIOKafkaConsumer, meter: Meter) -> Outcome:
    sums: Sums = defaultdict(int)
    positions: dict[int, int] = {}
    while True:
        for tp, records in (await consumer.getmany(timeout_ms=1000, max_records=RECORDS)).items():
            meter.before()
            add_up(sums, [record.value for record in records])
            positions[tp.partition] = records[-1].offset + 1
            if meter.after(len(records)):
                return with_sums(meter.outcome(), sums, positions)


if __name__ == "__main__":
    report(asyncio.run(run(task_given())))
