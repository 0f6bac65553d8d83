"""`millrace read`: the records of a topic as JSON lines, headers and all; dead letters above all."""

from collections.abc import Iterator
from typing import Annotated, Any

import confluent_kafka
import orjson
import typer
from confluent_kafka import KafkaException, TopicPartition

from streams.cluster import Cluster
from streams.errors import BrokerUnreachable, MillraceError
from topologies.cli.options import Bootstrap, Home
from topologies.settings import Settings

ANSWER_S = 10.0
CONFIG: dict[str, Any] = {"group.id": "millrace-read", "enable.auto.commit": False, "log_level": 0}

TopicName = Annotated[str, typer.Argument(help="The topic, e.g. order-events.dead-letters.")]
Last = Annotated[int | None, typer.Option("--last", "-n", help="Only so many of each partition, the newest.")]


def register(app: typer.Typer) -> None:
    """Add `read` to `millrace`."""
    app.command("read")(read)


def read(topic: TopicName, last: Last = None, bootstrap: Bootstrap = None, home: Home = None) -> None:
    """Print what is in a topic now: one JSON object a record, partition after partition, oldest first."""
    settings = Settings.from_environment(bootstrap=bootstrap, home=home)
    for message in records(settings.cluster, topic, last):
        typer.echo(orjson.dumps(as_dict(message)))


def records(cluster: Cluster, topic: str, last: int | None) -> Iterator[confluent_kafka.Message]:
    """What is there at the time of the call. Raises MillraceError for a topic that does not exist."""
    consumer = confluent_kafka.Consumer(cluster.librdkafka(**CONFIG))
    try:
        for number in _partitions(consumer, cluster, topic):
            first, end = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=ANSWER_S)
            begin = first if last is None else max(first, end - last)
            if begin < end:
                yield from _stretch(consumer, TopicPartition(topic, number, begin), end)
    finally:
        consumer.close()


def _partitions(consumer: confluent_kafka.Consumer, cluster: Cluster, topic: str) -> list[int]:
    try:
        found = consumer.list_topics(timeout=ANSWER_S).topics.get(topic)
    except KafkaException as error:
        raise BrokerUnreachable(cluster.bootstrap) from error
    if found is None:
        raise MillraceError(f"there is no topic {topic!r}; a worker creates its topics when it starts")
    return sorted(found.partitions)


def _stretch(consumer: confluent_kafka.Consumer, start: TopicPartition, end: int) -> Iterator[confluent_kafka.Message]:
    consumer.assign([start])
    while consumer.position([start])[0].offset < end:
        message = consumer.poll(ANSWER_S)
        if message is None:
            return  # what is left below the end was compacted away or is a transaction's
        if message.error() is not None:
            raise MillraceError(f"{start.topic} cannot be read: {message.error()}")
        if (message.offset() or 0) >= end:
            return
        yield message


def as_dict(message: confluent_kafka.Message) -> dict[str, Any]:
    """A record as JSON can say it; bytes that are no text are shown with replacement characters."""
    headers = message.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    return {
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp()[1],
        "key": _text(message.key()),
        "value": _text(message.value()),
        "headers": {name: _text(value) for name, value in pairs},
    }


def _text(raw: bytes | str | None) -> str | None:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw
