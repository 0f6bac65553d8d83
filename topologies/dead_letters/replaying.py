"""Sending dead letters back: what would be dead again stays, the rest goes to where it came from, then is noted."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import orjson

from streams.cluster import Cluster
from streams.codecs import decoder
from streams.dead_letters import replay_headers
from streams.errors import MillraceError
from streams.intake import Intake
from streams.log import TP
from streams.memory_log import MemoryRecord
from streams.producers import Producer
from streams.put_aside import KEPT
from streams.topics import ensure_topics
from tables.table import Group, Source
from topologies.dead_letters.letters import Letter
from topologies.dead_letters.reading import notes_topic

# The broker judges what is too large, not the client.
CONFIG = {"message.max.bytes": 64 << 20, "queue.buffering.max.kbytes": 128 << 10}


SENT_AT_ONCE = 10_000


@dataclass
class Judge:
    """Says of each letter why it would not be applied; None if its topic's rules have nothing against it.

    `end_of` is asked once for a partition's end offset. Raises MillraceError for a topic that the group does not read.
    """

    group: Group
    end_of: Callable[[TP], int]
    _ends: dict[TP, int] = field(default_factory=dict)

    def __call__(self, letter: Letter) -> str | None:
        """The reason, or None."""
        tp = letter.told.tp
        if tp not in self._ends:
            self._ends[tp] = self.end_of(tp)
        return why_not(letter, self.group, self._ends[tp])


def why_not(letter: Letter, group: Group, end: int) -> str | None:
    """Why a letter would not be applied; None if its topic's rules have nothing against it."""
    if letter.told.cut:
        return f"{letter.told.cut} bytes of it are missing: take the value from {letter.told.id} and edit"
    if end - letter.told.offset >= KEPT:
        return "too long ago: the tables no longer know that it was put aside"
    return refusal(source_of(group, letter.told.tp.topic), letter)


def refusal(source: Source, letter: Letter) -> str | None:
    """The reason for which the topic's rules would put it aside again; None if they would not.

    The folds are not asked: whether they can take it by now, only a worker can tell.
    """
    assert source.topic.value is not None or source.decode is not None
    decode = source.decode or decoder(source.topic.value)  # type: ignore[arg-type]  # one of them is there
    record = MemoryRecord(letter.told.offset, letter.told.at_ms, letter.key, letter.value)
    dead = Intake(decode, source.time_of, source.time).take([record]).dead
    return dead[0][1] if dead else None


def source_of(group: Group, topic: str) -> Source:
    """The source of that name. Raises MillraceError."""
    for source in group.sources:
        if source.topic.name == topic:
            return source
    raise MillraceError(f"{group.name} does not read {topic}: name the topology that does with --topology")


def mended(letter: Letter, value: bytes, judge: Judge) -> Letter:
    """The letter with another value. Raises MillraceError, with the reason, for one that would be dead again."""
    whole = replace(letter, value=value, told=replace(letter.told, cut=0))
    reason = judge(whole)
    if reason is not None:
        raise MillraceError(f"not sent, since it would be a dead letter again: {reason}")
    return whole


def send(cluster: Cluster, letters: Iterable[Letter], *, note_mended: bool = False) -> int:
    """Send letters back, wait until all replicas in sync have them, then note it; returns how many there were.

    Interrupted anywhere, it can be done again: the tables take the first of each id. Raises MillraceError.
    """
    left, sent = iter(letters), 0
    with Producer(cluster, **CONFIG) as producer:
        while some := list(islice(left, SENT_AT_ONCE)):
            for letter in some:
                _send_one(producer, letter)
            producer.flush()
            _note(cluster, producer, some, note_mended)
            sent += len(some)
    return sent


def _send_one(producer: Producer, letter: Letter) -> None:
    told = letter.told
    producer.produce(
        told.tp.topic,
        letter.key,
        letter.value,
        partition=told.tp.partition,
        headers=replay_headers(letter.headers, told),
        timestamp_ms=told.at_ms if told.at_ms >= 0 else None,
    )


def _note(cluster: Cluster, producer: Producer, letters: Sequence[Letter], mended: bool) -> None:
    topics = {letter.told.tp.topic: notes_topic(letter.told.tp.topic) for letter in letters}
    ensure_topics(cluster, topics.values())
    note = orjson.dumps({"replayedAt": time.time_ns() // 1_000_000, "mended": mended})
    for letter in letters:
        producer.produce(topics[letter.told.tp.topic].name, letter.told.id.encode(), note, partition=0)
    producer.flush()
