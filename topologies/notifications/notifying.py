"""The group's handlers: events to notices, and dead letters to notices once more."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from streams.codecs import Undecodable, decoder
from streams.consuming import Again
from streams.dead_letters import BLOCK, told
from streams.log import TP, Entry, Log, LogError, Record
from streams.memory_log import MemoryRecord
from streams.taking import Mark, Taken, identity, mark_of, taken_of
from streams.topics import Topic
from topologies.notifications.delivering import CHANNEL_HEADER, LOG_AGAIN_S, REMEMBERED, Delivering, Item
from topologies.notifications.notices import notice_of

logger = logging.getLogger(__name__)

GROUP: Final = "order-notification-group"


@dataclass
class Notifying:
    """Handles events (`streams.taking`). `log` is read for what was told before this process began."""

    delivering: Delivering
    log: Log
    topics: Sequence[Topic]
    currency: str
    _known_to: dict[TP, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the decoders."""
        self._decode = _decoders(self.topics)

    async def __call__(self, tp: TP, taken: Sequence[Taken]) -> None:
        """Tell the customers. Raises `Again` with what is left."""
        first = taken[0].record.offset
        await self._look_back(tp, first)
        self._known_to[tp] = first
        channels = tuple(channel.name for channel in self.delivering.channels)
        items = [
            Item(one.record.offset, notice_of(one, self.currency), tp, one.record, channels, one.id) for one in taken
        ]
        try:
            await self.delivering.deliver(tp, items)
        except Again as again:
            self._known_to[tp] = again.at or first
            raise
        self._known_to[tp] = taken[-1].record.offset + 1

    async def _look_back(self, tp: TP, first: int) -> None:
        """Know the ids of the records before, which others or an earlier life have told."""
        known = self._known_to.get(tp, 0)
        if known >= first:
            return
        try:
            begin = (await self.log.start_offsets([tp]))[tp]
            span = (max(begin, known, first - REMEMBERED), first)
            async for _, records in self.log.read({tp: span}):
                taken, _ = taken_of(self._decode[tp.topic], tp, records)
                self.delivering.remember(tp, ((one.record.offset, one.id) for one in taken))
        except LogError as error:
            raise Again(LOG_AGAIN_S) from error


@dataclass
class Resending:
    """Handles the group's dead letters: each is sent again on the channel that it was for.

    Letters for a channel that this process does not have go to the end of the queue, and are counted in `kept`.
    """

    delivering: Delivering
    log: Log
    topics: Sequence[Topic]
    currency: str
    kept: int = 0
    _moved: dict[TP, set[Mark]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the decoders."""
        self._decode = _decoders(self.topics)
        self._channels = {channel.name for channel in self.delivering.channels}

    async def __call__(self, tp: TP, records: Sequence[Record]) -> None:
        """Send them again. Raises `Again` with what is left."""
        items, others = list[Item](), list[Record]()
        for record in records:
            item = self._item(record)
            if item is None:
                logger.warning("%s[%d] at %d is no dead letter of ours: passed over", *tp, record.offset)
            elif item.channels[0] in self._channels:
                items.append(item)
            else:
                others.append(record)
        await self._move(tp, records[0].offset, others)
        if items:
            await self.delivering.deliver(tp, items)

    async def _move(self, tp: TP, first: int, others: Sequence[Record]) -> None:
        """Put letters at the end of the queue, each once: before an item that waits has what is before it committed."""
        known = {mark for mark in self._moved.get(tp, ()) if mark[0] >= first}
        fresh = [record for record in others if mark_of(record) not in known]
        if fresh:
            try:
                await self.log.append({tp: [Entry(one.key, one.value, one.headers) for one in fresh]})
            except LogError as error:
                raise Again(LOG_AGAIN_S) from error
            self.kept += len(fresh)
        self._moved[tp] = known | {mark_of(record) for record in fresh}

    def _item(self, letter: Record) -> Item | None:
        said = told(letter.headers)
        own = list(letter.headers)[: -len(BLOCK)]
        channel = next(
            (value.decode(errors="replace") for name, value in reversed(own) if name == CHANNEL_HEADER), None
        )
        if said is None or channel is None or said.tp.topic not in self._decode:
            return None
        headers = [pair for pair in own if pair[0] != CHANNEL_HEADER]
        record = MemoryRecord(said.offset, said.at_ms, letter.key, letter.value, headers)
        try:
            event: Any = self._decode[said.tp.topic](record.value)
            notice = notice_of(Taken(record, event, identity(said.tp, record, event.event_id)), self.currency)
        except Undecodable:
            return None
        return Item(letter.offset, notice, said.tp, record, (channel,), said.id)


def _decoders(topics: Sequence[Topic]) -> Mapping[str, Any]:
    return {topic.name: decoder(topic.value) for topic in topics if topic.value is not None}
