"""Records as events, for groups with side effects: what does not decode is put aside, and the rest goes on.

`Taking` is a handler for `streams.consuming` around one that takes events. What its topic's type does not decode, or
is of before 1970, goes to `<topic>.dead-letters` before anything behind it is handled, with the id that every group
gives it: several groups put the same record aside, and `millrace dead-letters` shows it once.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

from streams.codecs import Undecodable, decoder
from streams.consuming import Again
from streams.dead_letters import REPLAYED_FROM, dead_letter
from streams.events import event_time_ms
from streams.log import TP, Entry, Log, LogError, Record
from streams.topics import Topic

PUT_ASIDE_AGAIN_S: Final = 1.0


class Taken(NamedTuple):
    """A record and its event. `id` is the same whenever the same thing comes again (`identity`)."""

    record: Record
    event: Any
    id: str


Mark = tuple[int, int, int]
HandleEvents = Callable[[TP, Sequence[Taken]], Awaitable[None]]


def mark_of(record: Record) -> Mark:
    """What a record of a partition is known by in this process: a log that was cut gives its offset to another one."""
    return record.offset, record.timestamp, hash(record.value)


def identity(tp: TP, record: Record, event_id: str | None) -> str:
    """The event's own id; without one its place in the log, for a replayed dead letter that of the original."""
    if event_id is not None:
        return event_id
    replayed = next((value for name, value in record.headers if name == REPLAYED_FROM), None)
    return replayed.decode(errors="replace") if replayed else f"{tp.topic}-{tp.partition}-{record.offset}"


def taken_of(
    decode: Callable[[bytes | None], Any], tp: TP, records: Sequence[Record]
) -> tuple[list[Taken], list[tuple[Record, str]]]:
    """The records that decode and have a time, and those that do not with the reason, both in order."""
    taken, dead = list[Taken](), list[tuple[Record, str]]()
    for record in records:
        try:
            event = decode(record.value)
            event_time_ms(event, record.timestamp)  # raises for one of before 1970, or else the handler's would
        except Undecodable as error:
            dead.append((record, str(error)))
        else:
            taken.append(Taken(record, event, identity(tp, record, event.event_id)))
    return taken, dead


class Taking:
    """A `streams.consuming.Handle`. `log` is started and stopped by the caller; `dead` counts what was put aside."""

    def __init__(self, log: Log, topics: Sequence[Topic], handle: HandleEvents) -> None:
        """Make a decoder for each topic, all of which must have a type. The topics of dead letters must be there."""
        self._log, self._handle = log, handle
        self._topics = {topic.name: topic for topic in topics}
        self._decode: dict[str, Callable[[bytes | None], Any]] = {
            topic.name: decoder(_type_of(topic)) for topic in topics
        }
        self._aside: dict[TP, set[Mark]] = {}
        self.dead = 0

    async def __call__(self, tp: TP, records: Sequence[Record]) -> None:
        """Decode, put aside, hand the events on. Raises `Again` where the dead letters cannot be written now."""
        taken, dead = taken_of(self._decode[tp.topic], tp, records)
        await self._put_aside(tp, records[0].offset, dead)
        if taken:
            await self._handle(tp, taken)

    async def _put_aside(self, tp: TP, first: int, dead: Sequence[tuple[Record, str]]) -> None:
        # the same records come again and again while the handler behind asks for it
        known = {mark for mark in self._aside.get(tp, ()) if mark[0] >= first}
        fresh = [(record, reason) for record, reason in dead if mark_of(record) not in known]
        if fresh:
            entries: list[Entry] = [dead_letter(tp, record, reason) for record, reason in fresh]
            try:
                await self._log.append({TP(self._topics[tp.topic].dead_letters.name, tp.partition): entries})
            except LogError as error:
                raise Again(PUT_ASIDE_AGAIN_S) from error
            self.dead += len(fresh)
        self._aside[tp] = known | {mark_of(record) for record, _ in fresh}


def _type_of(topic: Topic) -> type:
    if topic.value is None:
        raise ValueError(f"topic {topic.name} has no type to decode to")
    return topic.value
