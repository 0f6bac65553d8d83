"""The limit for anything on librdkafka: read, `orjson.loads`, add up in a dict; nothing is kept."""

from collections import defaultdict

from confluent_kafka import Consumer, KafkaException, TopicPartition

from bench.contenders.bare import Sums, add_up, outcome
from bench.measure import Meter, Outcome, Task, report, task_given

RECORDS = 5_000


def run(task: Task) -> Outcome:
    """Read the topic once."""
    # A group is asked for, though none is joined: partitions are assigned by hand and nothing is committed.
    settings = {"group.id": task.group, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    consumer = Consumer(task.cluster.librdkafka(**settings))
    try:
        consumer.assign([TopicPartition(task.topic, number, 0) for number in range(task.partitions)])
        return _read(consumer, Meter(task.warmup, task.total))
    finally:
        consumer.close()


def _read(consumer: Consumer, meter: Meter) -> Outcome:
    sums: Sums = defaultdict(int)
    positions: dict[int, int] = {}
    while True:
        # waits until there are so many, or 50 ms
        messages = consumer.consume(RECORDS, 0.05)
        if not messages:
            continue
        meter.before()
        for message in messages:
            if message.error() is not None:
                raise KafkaException(message.error())
        add_up(sums, (message.value() for message in messages))
        for message in messages:
            positions[message.partition()] = message.offset() + 1
        if meter.after(len(messages)):
            return outcome(meter, sums, positions)


if __name__ == "__main__":
    report(run(task_given()))
