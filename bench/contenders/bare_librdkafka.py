"""The limit for anything on librdkafka: read, `orjson.loads`, add up in a dict; nothing is kept."""

from collections import defaultdict

from confluent_kafka import Consumer, TopicPartition

from bench.contenders.bare import Sums, add_up, with_sums
from bench.measure import Meter, Outcome, Task, report, task_given

RECORDS = 5_000
WAIT_S = 0.05


def run(task: Task) -> Outcome:
    """Read the topic once."""
    settings = {
        "group.id": task.group,  # asked for, though no group is joined and nothing is committed
        "enable.auto.commit": False,
        # once its queue is full it would fetch nothing for a whole second, and halve its own figure
        "fetch.queue.backoff.ms": 5,
    }
    consumer = Consumer(task.cluster.librdkafka(**settings))
    try:
        consumer.assign([TopicPartition(task.topic, number, 0) for number in range(task.partitions)])
        return _read(consumer, Meter(task.warmup, task.total))
    finally:
        consumer.close()


def _read(consumer: Consumer, meter: Meter) -> Outcome:
    sums: Sums = defaultdict(int)
    while True:
        messages = consumer.consume(RECORDS, WAIT_S)
        if not messages:
            continue
        meter.before()
        # an error's value is a text that is no JSON, and ends the loop
        add_up(sums, [message.value() or b"" for message in messages])
        if meter.after(len(messages)):
            stopped = meter.outcome()
            positions = {tp.partition: tp.offset for tp in consumer.position(consumer.assignment())}
            return with_sums(stopped, sums, positions)


if __name__ == "__main__":
    report(run(task_given()))
