"""The limit for behaviour and recommendations: read both topics, `orjson.loads`, count in a dict; nothing is kept."""

from collections import defaultdict

import msgspec
from confluent_kafka import Consumer, TopicPartition
from orjson import loads

from bench.contenders.bare_librdkafka import RECORDS, WAIT_S
from bench.measure import Meter, Outcome, Sum, Task, report, task_given
from bench.shop import SOURCES


def run(task: Task) -> Outcome:
    """Read both topics once."""
    settings = {"group.id": task.group, "enable.auto.commit": False, "fetch.queue.backoff.ms": 5}
    consumer = Consumer(task.cluster.librdkafka(**settings))
    try:
        names = [task.topic + topic.name for topic in SOURCES]
        consumer.assign([TopicPartition(name, number, 0) for name in names for number in range(task.partitions)])
        return _read(consumer, Meter(task.warmup, task.total))
    finally:
        consumer.close()


def _read(consumer: Consumer, meter: Meter) -> Outcome:
    counts: dict[tuple[int, str], int] = defaultdict(int)
    while True:
        messages = consumer.consume(RECORDS, WAIT_S)
        if not messages:
            continue
        meter.before()
        for message in messages:
            event = loads(message.value() or b"")
            at = event["occurredAt"]
            counts[at - at % 60_000, event["eventType"]] += 1
        if meter.after(len(messages)):
            found = [Sum(minute, kind, count) for (minute, kind), count in counts.items()]
            return msgspec.structs.replace(meter.outcome(), sums=found)


if __name__ == "__main__":
    report(run(task_given()))
