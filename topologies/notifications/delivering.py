"""From a partition's notices to channels: in order for each customer, tried again, put aside at last.

One call is one pass over what is left of a batch: whatever is due is tried once, many customers at a time, and if
something is left, the call ends with `Again`, which commits what is done and comes back when the next try is due. So
nothing here sleeps, and a rebalance or an end never waits for a channel that hangs in its back-off.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from streams.consuming import Again, Backoff, Tell
from streams.dead_letters import dead_letter
from streams.log import TP, Log, LogError, Record
from streams.memory_log import MemoryRecord
from streams.taking import Mark, mark_of
from topologies.notifications.channels import Away, Channel, NotNow, Refused
from topologies.notifications.notices import Notice

logger = logging.getLogger(__name__)

CHANNEL_HEADER: Final = "channel"
# A duplicate comes soon after: what a producer that died repeats is what it had under way.
REMEMBERED: Final = 20_000
LOG_AGAIN_S: Final = 1.0

# A record (`streams.taking.mark_of`) and a channel.
Key = tuple[Mark, str]


@dataclass(frozen=True)
class Item:
    """A notice on its way: the record it came from and where that lies, and the channels that are to have it.

    `offset` is its place in the partition that is being read. Of two with the same `once` only the first is told.
    """

    offset: int
    notice: Notice
    source: TP
    record: Record
    channels: tuple[str, ...]
    once: str

    def key(self, channel: str) -> Key:
        """What a channel's part in it is known by."""
        return (self.offset, *mark_of(self.record)[1:]), channel


@dataclass
class Told:
    """What this process has done, by channel."""

    sent: dict[str, int] = field(default_factory=dict)
    tried_again: dict[str, int] = field(default_factory=dict)
    put_aside: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0

    def counts(self) -> dict[str, float]:
        """As counters: `notify_sent_log` and the like."""
        found: dict[str, float] = {"notify_duplicates": self.duplicates}
        for name in ("sent", "tried_again", "put_aside"):
            for channel, count in getattr(self, name).items():
                found[f"notify_{name}_{channel}"] = count
        return found


@dataclass
class _Lane:
    """What is known of a partition: what is done of the batch, how often the rest was tried and when it is due.

    `away` has when a channel was away for one first and last. `sent` counts what a channel has taken of this partition.
    `seen` has where what was told first lay, by `once` and channel, for the last `REMEMBERED` of each channel.
    """

    done: set[Key] = field(default_factory=set)
    tries: dict[Key, int] = field(default_factory=dict)
    away: "dict[Key, tuple[_Seen, _Seen]]" = field(default_factory=dict)
    due: dict[Key, float] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    seen: dict[str, dict[str, int]] = field(default_factory=dict)

    def is_repeat(self, once: str, offset: int, channel: str) -> bool:
        return self.seen.get(channel, {}).get(once, offset) < offset

    def remember(self, once: str, offset: int, channel: str) -> None:
        seen = self.seen.setdefault(channel, {})
        seen.setdefault(once, offset)
        if len(seen) > REMEMBERED:
            del seen[next(iter(seen))]

    def forget_before(self, offset: int) -> None:
        self.done = {key for key in self.done if key[0][0] >= offset}
        self.tries = {key: tries for key, tries in self.tries.items() if key[0][0] >= offset}
        self.away = {key: seen for key, seen in self.away.items() if key[0][0] >= offset}
        self.due = {key: at for key, at in self.due.items() if key[0][0] >= offset}


class _Seen(NamedTuple):
    """When a channel was away: how often it had been found so, and how much it had taken of the partition."""

    found: int
    sent: int


@dataclass
class _Absence:
    """A channel that is away: since how many tries, and when it is tried again.

    `found` counts how often it was found away at all, which tells before from after: `through` is the highest count at
    which something was begun that got through, `for_all` the last at which it was so for one that was not suspected.
    """

    tries: int = 0
    until: float = 0.0
    found: int = 0
    through: int = -1
    for_all: int = 0


@dataclass
class Delivering:
    """Delivers items by `channels`; `log` writes the dead letters to the topic `aside`, one partition for another.

    A notice is tried `tries` times; `at_once` bounds how many are under way in the process.
    """

    channels: Sequence[Channel]
    log: Log
    aside: str
    tries: int = 6
    at_once: int = 16
    backoff: Backoff = field(default_factory=lambda: Backoff(1.0, 30.0))
    patience: Backoff = field(default_factory=lambda: Backoff(1.0, 60.0))
    tell: Tell = logger.warning
    told: Told = field(default_factory=Told)
    clock: Callable[[], float] = time.monotonic
    _lanes: dict[TP, _Lane] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take the channels by name."""
        self._by_name = {channel.name: channel for channel in self.channels}
        self._absent = {channel.name: _Absence() for channel in self.channels}
        self._room = asyncio.Semaphore(self.at_once)

    def remember(self, tp: TP, onces: Iterable[tuple[int, str]]) -> None:
        """Know what was told on every channel before this process began: offsets and `once`, in order."""
        lane = self._lanes.setdefault(tp, _Lane())
        for offset, once in onces:
            for channel in self._by_name:
                lane.remember(once, offset, channel)

    async def deliver(self, tp: TP, items: Sequence[Item]) -> None:
        """Make one pass. Raises `Again` with the first offset that is not done; returns where all are."""
        lane = self._lanes.setdefault(tp, _Lane())
        lane.forget_before(items[0].offset)
        chains: dict[tuple[str, str], list[Item]] = {}
        for item in items:
            for channel in item.channels:
                chains.setdefault((channel, item.notice.user), []).append(item)
        # those for whom the channel was away come last: whether it is so for others, too, tells what is wrong
        ordered = sorted(chains.items(), key=lambda one: any(item.key(one[0][0]) in lane.away for item in one[1]))
        waits: list[float] = []
        try:
            async with asyncio.TaskGroup() as group:
                for (channel, _), chain in ordered:
                    group.create_task(self._chain(lane, self._by_name[channel], chain, waits))
        except ExceptionGroup as failed:  # such as a dead letter that Kafka refuses: the operator reads one line
            raise failed.exceptions[0] from failed
        left = [item for item in items if any(item.key(channel) not in lane.done for channel in item.channels)]
        if left:
            raise Again(max(0.0, min(waits, default=LOG_AGAIN_S)), at=left[0].offset)

    async def _chain(self, lane: _Lane, channel: Channel, chain: Sequence[Item], waits: list[float]) -> None:
        """One customer's notices on one channel, in order, as far as it goes now."""
        for item in chain:
            key = item.key(channel.name)
            if key in lane.done:
                continue
            if lane.is_repeat(item.once, item.offset, channel.name):
                lane.done.add(key)
                self.told.duplicates += 1
                continue
            async with self._room:
                due = max(lane.due.get(key, 0.0), self._absent[channel.name].until)
                if (wait_s := due - self.clock()) > 0:
                    waits.append(wait_s)
                    return
                if not await self._try(lane, channel, item, waits):
                    return
            lane.done.add(key)
            lane.remember(item.once, item.offset, channel.name)

    async def _try(self, lane: _Lane, channel: Channel, item: Item, waits: list[float]) -> bool:
        """Whether the item needs no more tries on the channel."""
        absent = self._absent[channel.name]
        begun = absent.found
        try:
            await channel.send(item.notice)
        except Away as error:
            if self._is_its_own(lane, channel, item):
                return await self._not_now(lane, channel, item, str(error), waits)
            self._wait_for(channel, error)
            waits.append(absent.until - self.clock())
            return False
        except Refused as error:
            return await self._put_aside(channel, item, f"refused: {error}", waits)
        except NotNow as error:
            return await self._not_now(lane, channel, item, str(error), waits)
        except Exception as error:  # a mistake of ours about this one must not stop all others
            logger.exception("notice %s on %s failed", item.notice.id, channel.name)
            return await self._not_now(lane, channel, item, f"{type(error).__name__}: {error}", waits)
        absent.through = max(absent.through, begun)
        _count(lane.sent, channel)
        if absent.tries:
            absent.tries = 0
            self.tell(f"notices go out again: {channel.name} is back")
        _count(self.told.sent, channel)
        return True

    def _is_its_own(self, lane: _Lane, channel: Channel, item: Item) -> bool:
        """Whether it is this one's fault that the channel was away for it, so that it was a try.

        One is suspected when others got through that were begun after it was away for this one. It is this one's fault
        if since the last time nobody else found it away, who is not suspected, and if it took nothing of the partition:
        one that takes only so many a second takes the next ones first.
        """
        key, absent = item.key(channel.name), self._absent[channel.name]
        absent.found += 1
        now = _Seen(absent.found, lane.sent.get(channel.name, 0))
        first, last = lane.away.get(key, (now, now))
        lane.away[key] = (first, now)
        if absent.through < first.found:
            absent.for_all = absent.found
            return False
        return last.sent == now.sent and absent.for_all <= last.found

    def _wait_for(self, channel: Channel, error: Away) -> None:
        absent = self._absent[channel.name]
        if self.clock() < absent.until:  # another one was quicker to find out
            return
        absent.tries += 1
        wait_s = error.after_s if error.after_s is not None else self.patience.after(absent.tries)
        absent.until = self.clock() + wait_s
        if absent.tries == 1:
            self.tell(f"notices wait: {channel.name} is away ({error})")

    async def _not_now(self, lane: _Lane, channel: Channel, item: Item, why: str, waits: list[float]) -> bool:
        key = item.key(channel.name)
        tries = lane.tries[key] = lane.tries.get(key, 0) + 1
        if tries >= self.tries:
            return await self._put_aside(channel, item, f"not delivered in {tries} tries: {why}", waits)
        _count(self.told.tried_again, channel)
        wait_s = self.backoff.after(tries)
        lane.due[key] = self.clock() + wait_s
        waits.append(wait_s)
        return False

    async def _put_aside(self, channel: Channel, item: Item, reason: str, waits: list[float]) -> bool:
        """Write its dead letter; whether that is done, else it is tried again with the notice."""
        record, headers = item.record, [*item.record.headers, (CHANNEL_HEADER, channel.name.encode())]
        whole = MemoryRecord(record.offset, record.timestamp, record.key, record.value, headers)
        entry = dead_letter(item.source, whole, f"{channel.name}: {reason}", "effect")
        try:
            await self.log.append({TP(self.aside, item.source.partition): [entry]})
        except LogError as error:
            logger.info("dead letter put off: %r", error)
            waits.append(LOG_AGAIN_S)
            return False
        _count(self.told.put_aside, channel)
        self.tell(f"notice {item.notice.id} put aside: {channel.name}: {reason}")
        return True


def _count(counts: dict[str, int], channel: Channel) -> None:
    counts[channel.name] = counts.get(channel.name, 0) + 1
