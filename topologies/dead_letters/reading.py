"""Dead letters as they lie in a cluster, with the notes on which of them were replayed."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import confluent_kafka
import orjson
from confluent_kafka import KafkaException, TopicPartition

from streams.cluster import Cluster
from streams.dead_letters import parse_id
from streams.errors import BrokerUnreachable, MillraceError
from streams.log import TP
from streams.topics import Topic
from topologies.dead_letters.letters import Letter, letter_of

SUFFIX = ".dead-letters"
ANSWER_S = 10.0
CONFIG: dict[str, Any] = {
    "group.id": "millrace-dead-letters",
    "enable.auto.commit": False,
    "log_level": 0,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
}


def notes_topic(source: str) -> Topic:
    """The compacted topic of notes on what of a source was replayed."""
    return Topic(
        f"{source}{SUFFIX}.replayed", key="dead letter's id", partitions=1, cleanup="compact", retention_s=None
    )


@dataclass
class Mailbox:
    """Reads dead letters of a cluster. Use as a context manager; each read ends where the topic ended at its start."""

    cluster: Cluster

    def __enter__(self) -> Self:
        """Connect."""
        self._consumer = confluent_kafka.Consumer(self.cluster.librdkafka(**CONFIG))
        try:
            self._topics = self._consumer.list_topics(timeout=ANSWER_S).topics
        except KafkaException as error:
            raise BrokerUnreachable(self.cluster.bootstrap) from error
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        self._consumer.close()

    def sources(self, prefix: str) -> list[str]:
        """The topics with this prefix that have a topic of dead letters."""
        names = [name.removesuffix(SUFFIX) for name in self._topics if name.endswith(SUFFIX)]
        return sorted(name for name in names if name.startswith(prefix))

    def letters(self, source: str, partition: int | None = None) -> Iterator[Letter]:
        """The letters of a source topic, each id once, by partition, oldest first. Raises MillraceError."""
        topic = f"{source}{SUFFIX}"
        if topic not in self._topics:
            raise MillraceError(f"there is no topic {topic!r}; `millrace dead-letters list` shows those that are there")
        notes = self._notes(source)
        for number in sorted(self._topics[topic].partitions) if partition is None else [partition]:
            seen: set[str] = set()
            for message in self._read(topic, number):
                letter = _letter(message)
                if letter is not None and letter.told.id not in seen:
                    seen.add(letter.told.id)
                    yield replace(letter, replayed_ms=notes.get(letter.told.id))

    def letter(self, name: str) -> Letter:
        """The letter of that id. Raises MillraceError when there is none."""
        place = parse_id(name)
        if place is None:
            raise MillraceError(
                f"{name!r} is no id of a dead letter: those are <topic>-<partition>-<offset>, see `list`"
            )
        for letter in self.letters(place[0].topic, place[0].partition):
            if letter.told.id == name:
                return letter
        raise MillraceError(f"{place[0].topic}{SUFFIX} has no dead letter {name}: see `millrace dead-letters list`")

    def end(self, tp: TP) -> int:
        """A partition's end offset."""
        return int(self._consumer.get_watermark_offsets(TopicPartition(*tp), timeout=ANSWER_S)[1])

    def _notes(self, source: str) -> dict[str, int]:
        topic = notes_topic(source).name
        if topic not in self._topics:
            return {}
        found = {}
        for message in self._read(topic, 0):
            key, value = message.key(), message.value()
            if key is not None and value is not None:
                found[key.decode()] = int(orjson.loads(value)["replayedAt"])
        return found

    def _read(self, topic: str, partition: int) -> Iterator[confluent_kafka.Message]:
        at = TopicPartition(topic, partition)
        try:
            first, end = self._consumer.get_watermark_offsets(at, timeout=ANSWER_S)
        except KafkaException as error:
            raise MillraceError(f"{topic}[{partition}] cannot be read: {error.args[0].str()}") from error
        if first >= end:
            return
        self._consumer.assign([TopicPartition(topic, partition, first)])
        while True:
            message = self._consumer.poll(ANSWER_S)
            if message is None:
                raise MillraceError(f"{topic}[{partition}] does not answer: see whether {self.cluster.bootstrap} is up")
            failure = message.error()
            if failure is not None:
                if failure.code() == confluent_kafka.KafkaError._PARTITION_EOF:
                    return
                raise MillraceError(f"{topic} cannot be read: {failure.str()}")
            offset = cast(int, message.offset())
            if offset < end:
                yield message
            if offset >= end - 1:
                return


def _letter(message: confluent_kafka.Message) -> Letter | None:
    headers = [(name, value or b"") for name, value in cast(list[tuple[str, bytes]], message.headers() or [])]
    at = TP(cast(str, message.topic()), cast(int, message.partition()))
    place = (at, cast(int, message.offset()), message.timestamp()[1])
    return letter_of(*place, message.key(), message.value(), headers)
