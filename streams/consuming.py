"""A consumer group whose work is a side effect: records of a partition in order, each at least once, then a commit.

`consume` is the loop of payments, notifications and the archive. Every assigned partition has a lane of its own:

    fetch -> gather -> await handle(tp, records) -> commit the offset after them -> fetch ...

- **At least once.** An offset is committed when everything before it took effect, never earlier. Whatever dies in
  between, the records come again; `handle` must make a repeat harmless.
- **In order.** Within a partition nothing overtakes. A lane that waits (`Again`) holds up its own partition only, and
  fetches nothing meanwhile: Kafka is the queue.
- **Rebalances.** Before a partition goes, a handler that is at work has `HAND_OVER_S` to end and have its work
  committed; one that waits is ended at once. The new owner begins where that left off.
- **Outages.** A broker that is away is waited for, with one line when that is noticed and one when it is back. What
  took effect and could not be committed is remembered, and committed with the next.
- **Nothing is passed over silently.** Where retention has deleted what this group has not read, that is told; also
  where a log ends before what was read already (a broker lost its tail, or the topic was made anew). A member to which
  that happens begins with the partition as it would at a start.

What `handle` raises other than `Again` ends the loop: a `MillraceError` for the operator, anything else as a mistake
in the handler. What one record brings about must therefore be decided by the handler; `streams.taking` has the usual
first step, which decodes and puts aside what does not.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError

from streams.calm_logs import calm_logs
from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.fetching import WholeBatchConsumer
from streams.kafka_log import REFUSALS, stop_consumer
from streams.log import TP, Record
from streams.membership import commit_as_member_only, leave_for_good
from streams.topics import Topic, ensure_topics

logger = logging.getLogger(__name__)

# A rebalance holds up the whole group: long enough for a request that is on its way, not for one that hangs.
HAND_OVER_S: Final = 5.0
# The broker waits so long for a member that a handler holds up.
REBALANCE_S: Final = 30.0
POLL_S: Final = 0.25
COMMIT_S: Final = 10.0
STOP_S: Final = 5.0
WATCH_S: Final = 3.0
FETCH_BYTES: Final = 1 << 20
# A handler may wait for hours where the other side is away, and its heartbeats go on meanwhile.
MAX_POLL_INTERVAL_S: Final = 86_400.0

Handle = Callable[[TP, Sequence[Record]], Awaitable[None]]
# A partition, its first offset and its end offset; where to begin, None where the group left off.
Starts = Callable[[TP, int, int], Awaitable[int | None]]
Tell = Callable[[str], None]


class Again(Exception):
    """What a handler raises to be called again after so many seconds.

    `at` is the offset before which everything took effect: it is committed, and the next call begins there. Without
    it the next call has the same records.
    """

    def __init__(self, after_s: float, at: int | None = None) -> None:
        super().__init__(f"again in {after_s:g} s")
        self.after_s = after_s
        self.at = at


@dataclass
class Backoff:
    """Seconds before each further try: doubled from `first_s` up to `most_s`, and between half and all of that.

    The jitter keeps those who failed together from trying together.

    >>> [Backoff(1, 60, Random(1)).after(tries) <= most for tries, most in ((1, 1), (2, 2), (3, 4), (50, 60))]
    [True, True, True, True]
    """

    first_s: float = 0.5
    most_s: float = 60.0
    chance: Random = field(default_factory=Random)

    def after(self, tries: int) -> float:
        """How long to wait after so many tries in vain, at least one."""
        whole = min(self.most_s, self.first_s * 2.0 ** min(tries - 1, 60))
        return whole * self.chance.uniform(0.5, 1.0)


@dataclass
class Meter:
    """What a group's loop has done in this process, by partition; for metrics and tests.

    `gathered` are the records that are read and wait for more, or for their turn.
    """

    gathered: dict[TP, int] = field(default_factory=dict)
    handled: dict[TP, int] = field(default_factory=dict)
    again: dict[TP, int] = field(default_factory=dict)
    position: dict[TP, int] = field(default_factory=dict)
    end: dict[TP, int] = field(default_factory=dict)
    assigned: frozenset[TP] = frozenset()
    connected: bool = False

    def lag(self) -> dict[TP, int]:
        """Records of the assigned partitions that are not handled, as of the last fetch."""
        return {tp: max(0, self.end[tp] - at) for tp, at in self.position.items() if tp in self.end}


@dataclass(frozen=True)
class Reading:
    """How a group reads. `max_records` and `max_bytes` bound what a handler is given (one record may be larger).

    With `linger_s` a lane gathers until it has that much, or so long after the first record. `instance` is the
    member's static name, with which a killed one is back at once instead of after `session_s`.
    """

    max_records: int = 500
    max_bytes: int = 16 << 20
    linger_s: float = 0.0
    session_s: float = 10.0
    instance: str | None = None
    starts: Starts | None = None


async def consume(
    cluster: Cluster,
    group: str,
    topics: Sequence[Topic],
    handle: Handle,
    *,
    stop: asyncio.Event,
    reading: Reading | None = None,
    meter: Meter | None = None,
    tell: Tell = logger.info,
) -> None:
    """Be a member of the group until `stop` is set; creates the topics that are missing.

    Raises PartitionMismatch, BrokerUnreachable if no broker answers at the beginning, MillraceError if Kafka refuses
    the group, and what `handle` raises.
    """
    calm_logs()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it warns of is told below, once
    await asyncio.to_thread(ensure_topics, cluster, topics)
    names = [topic.name for topic in topics]
    work = _Work(group, names, handle, stop, reading or Reading(), meter or Meter(), tell)
    backoff, tries = Backoff(0.5, 10.0), 0
    while not stop.is_set():
        member = _Member(cluster, work)
        try:
            await member.run()
        except (*REFUSALS, GroupAuthorizationFailedError) as error:
            raise MillraceError(f"Kafka refuses group {group}: {error}; see what its user may do") from error
        except (KafkaError, OSError) as error:
            tries = 1 if member.worked else tries + 1
            work.connected(False, f"{error}" or type(error).__name__)
            await waited(stop, backoff.after(tries))


async def waited(stop: asyncio.Event, seconds: float) -> bool:
    """Wait so long, or until `stop` is set; returns whether it was."""
    # not wait_for, here and below: it forgets that it was cancelled when what it waits for comes at that moment
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()


class _Cut(Exception):
    """The log has lost, at its beginning or at its end, what was to be read next."""


@dataclass
class _Work:
    """What a member is to do, and where it says how it fares."""

    group: str
    topics: Sequence[str]
    handle: Handle
    stop: asyncio.Event
    reading: Reading
    meter: Meter
    tell: Tell

    def connected(self, yes: bool, why: str = "no answer") -> None:
        """Note whether Kafka answers, and tell when that changes."""
        if self.meter.connected and not yes:
            self.tell(f"{self.group}: Kafka is away ({why}); waiting for it")
        elif not self.meter.connected and yes:
            self.tell(f"{self.group}: connected to Kafka")
        self.meter.connected = yes


class _Member(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """One membership: from joining the group until it is left or the connection fails."""

    def __init__(self, cluster: Cluster, work: _Work) -> None:
        self.work, reading, group = work, work.reading, work.group
        self.worked = False  # whether anything was assigned: then the connection was there
        self.failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._lanes: list[_Lane] = []
        self._leaving = False
        self.consumer = WholeBatchConsumer(
            whole=lambda _: True,
            at_most=reading.max_records,
            client_id=f"{group}-{reading.instance or 'member'}",
            group_id=group,
            group_instance_id=reading.instance,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=100,
            session_timeout_ms=round(reading.session_s * 1000),
            heartbeat_interval_ms=round(reading.session_s * 1000 / 5),
            rebalance_timeout_ms=round(REBALANCE_S * 1000),
            max_poll_interval_ms=round(MAX_POLL_INTERVAL_S * 1000),
            metadata_max_age_ms=30_000,
            **cluster.aiokafka(),
        )

    async def run(self) -> None:
        """Work until the loop's `stop`. Raises what a lane raised, KafkaError where the membership failed."""
        stopping: asyncio.Future[Any] = asyncio.ensure_future(self.work.stop.wait())
        watching = asyncio.ensure_future(self._watch())
        try:
            await self.consumer.start()
            commit_as_member_only(self.consumer)
            self.consumer.subscribe(self.work.topics, listener=self)
            await asyncio.wait([stopping, self.failed, *self._coordination()], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            watching.cancel()
            self._leaving = True  # a rebalance may be under way, which would begin with new lanes
            await self._let_go(finish=self.work.stop.is_set())
            self.work.meter.assigned = frozenset()
            await self._leave()
        for one in (self.failed, *self._coordination()):
            if one.done() and not one.cancelled():
                one.result()

    async def _watch(self) -> None:
        """Tell when the cluster does not answer: aiokafka itself tries for ever, and says nothing."""
        while True:
            await asyncio.sleep(WATCH_S)
            if not self.worked:
                continue
            try:
                async with asyncio.timeout(WATCH_S):
                    await self.consumer._client.fetch_all_metadata()
            except (KafkaError, OSError, TimeoutError) as error:
                self.work.connected(False, f"{error}" or type(error).__name__)
            else:
                self.work.connected(True)

    async def _leave(self) -> None:
        leave_for_good(self.consumer)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await stop_consumer(self.consumer)

    def _coordination(self) -> "list[asyncio.Future[Any]]":
        task = getattr(self.consumer._coordinator, "_coordination_task", None)
        return [] if task is None else [task]

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Let handlers end and commit what they did, before somebody else begins there."""
        await self._let_go(finish=False)

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Begin with each partition; what takes long is done in its lane."""
        await self._let_go(finish=False)
        if self._leaving:
            return
        self.worked, meter = True, self.work.meter
        self.work.connected(True)
        meter.assigned = frozenset(TP(*tp) for tp in assigned)
        for known in (meter.gathered, meter.position, meter.end):
            known.clear()
        self._lanes = [_Lane(self, TP(*tp)) for tp in sorted(assigned)]

    async def _let_go(self, *, finish: bool) -> None:
        """End all lanes: those that handle or commit have a while, and with `finish` also those that gather."""
        lanes = self._lanes  # kept until they have ended: a rebalance and the member's end may both wait for them
        for lane in lanes:
            lane.end(finish=finish)
        if lanes:
            _, late = await asyncio.wait([lane.task for lane in lanes], timeout=HAND_OVER_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*(lane.task for lane in lanes), return_exceptions=True)
        self._lanes = [lane for lane in self._lanes if lane not in lanes]

    def ended(self, task: "asyncio.Task[None]") -> None:
        """Hear that a lane has ended."""
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)


class _Lane:
    """One assigned partition: fetches, gathers, hands over, commits, one after the other."""

    def __init__(self, member: _Member, tp: TP) -> None:
        self.tp = tp
        self._work, self._consumer = member.work, member.consumer
        self._key = TopicPartition(*tp)
        self._ending = asyncio.Event()
        self._busy = False  # handling or committing
        self._position = self._committed = -1  # a group's first position is committed, too: lag is known from then on
        self.task = asyncio.ensure_future(self._run())
        self.task.add_done_callback(member.ended)

    def end(self, *, finish: bool) -> None:
        """End soon. One that has only fetched drops that, unless it is to `finish`."""
        self._ending.set()
        if not self._busy and not finish:
            self.task.cancel()

    async def _run(self) -> None:
        while not self._ending.is_set():
            self._position = await self._begin()
            with contextlib.suppress(_Cut):
                await self._go_on()

    async def _go_on(self) -> None:
        pending: list[Record] = []
        while not self._ending.is_set():
            pending = await self._gather(pending)
            if pending:
                taken = self._slice(pending)
                await self._handle(taken)
                pending = pending[len(taken) :]
                self._work.meter.gathered[self.tp] = len(pending)
            elif not self._ending.is_set():  # else the partition may be somebody else's by now
                await self._follow()
            if self._position != self._committed:
                await self._commit()

    async def _begin(self) -> int:
        """Where to go on; tells where that passes something over."""
        consumer, starts = self._consumer, self._work.reading.starts
        first = (await consumer.beginning_offsets([self._key]))[self._key]
        end = (await consumer.end_offsets([self._key]))[self._key]
        at = await starts(self.tp, first, end) if starts is not None else None
        committed = await consumer.committed(self._key)
        self._committed = -1 if committed is None else committed
        at = committed if at is None else at
        was = max(-1 if at is None else at, self._position)
        at = first if at is None else min(max(at, first), end)
        if was > end:
            self._work.tell(f"{self._named()} ends at {end}, before {was}, where this group was: it goes on at {at}")
        elif -1 < was < first:
            self._tell_lost(was, first)
        consumer.seek(self._key, at)
        self._work.meter.gathered[self.tp] = 0
        self._measure(at, end)
        return int(at)

    async def _gather(self, records: list[Record]) -> list[Record]:
        """Some records: at once what there is, or with `linger_s` until there are enough; none after a while."""
        consumer, reading, loop = self._consumer, self._work.reading, asyncio.get_running_loop()
        until = loop.time() + reading.linger_s
        size = sum(map(_size, records))
        while not self._ending.is_set():
            wait_s = min(POLL_S, max(0.0, until - loop.time())) if records else POLL_S
            if records and (wait_s == 0.0 or len(records) >= reading.max_records or size >= reading.max_bytes):
                break
            found = (await consumer.getmany(self._key, timeout_ms=round(wait_s * 1000))).get(self._key, [])
            if not found and not records:
                break
            if found:
                expected = records[-1].offset + 1 if records else self._position
                try:
                    await self._look_for_gap(expected, found[0].offset)
                except _Cut:
                    if not records or found[0].offset < expected:
                        raise
                    consumer.seek(self._key, expected)  # comes again when those are handled, which only we have now
                    break
                until = until if records else loop.time() + reading.linger_s
                records = records + found
                size += sum(map(_size, found))
                self._work.meter.gathered[self.tp] = len(records)
        return records

    async def _follow(self) -> None:
        """Go on to where the consumer stands: with nothing gathered, it has only passed markers of transactions."""
        at = self._position
        with contextlib.suppress(TimeoutError):  # while it is looked up where the log begins
            async with asyncio.timeout(POLL_S):
                at = await self._consumer.position(self._key)
        await self._look_for_gap(self._position, at)
        self._position = at

    async def _look_for_gap(self, expected: int, found: int) -> None:
        """Raise _Cut where the log ends before what was expected next, or begins after it: aiokafka starts it anew."""
        if found == expected:
            return
        if found > expected and (await self._consumer.beginning_offsets([self._key]))[self._key] <= expected:
            return  # compacted, or a transaction's marker
        raise _Cut

    def _slice(self, records: list[Record]) -> list[Record]:
        reading, size = self._work.reading, 0
        for count, record in enumerate(records[: reading.max_records]):
            size += _size(record)
            if count and size > reading.max_bytes:
                return records[:count]
        return records[: reading.max_records]

    async def _handle(self, records: list[Record]) -> None:
        """Have the records handled, again and again where the handler asks for it, until all are or the lane ends."""
        meter, after = self._work.meter, records[-1].offset + 1
        while records:
            self._busy = True
            try:
                await self._work.handle(self.tp, records)
                done, wait_s = after, 0.0
            except Again as again:
                done = min(max(self._position, again.at or 0), after)
                wait_s = max(again.after_s, 0.0)
                meter.again[self.tp] = meter.again.get(self.tp, 0) + 1
            left = [record for record in records if record.offset >= done]
            meter.handled[self.tp] = meter.handled.get(self.tp, 0) + len(records) - len(left)
            records = left
            self._position = max(self._position, done)
            if self._position != self._committed:
                await self._commit()
            self._busy = False
            if records and await waited(self._ending, wait_s):
                return

    async def _commit(self) -> None:
        """Commit the position; what fails is committed with the next."""
        self._busy, at = True, self._position
        try:
            async with asyncio.timeout(COMMIT_S):
                await self._consumer.commit({self._key: at})
            self._committed = at
        except (KafkaError, TimeoutError) as error:
            logger.info("commit of %s put off: %r", self._named(), error)
        finally:
            self._busy = False
        self._measure(at, None)

    def _measure(self, at: int, end: int | None) -> None:
        end = self._consumer.highwater(self._key) if end is None else end
        self._work.meter.position[self.tp] = at
        self._work.meter.end[self.tp] = max(at, end or 0)

    def _tell_lost(self, at: int, first: int) -> None:
        self._work.tell(
            f"{self._named()} begins at {first}: up to {first - at} record(s) from {at} on were deleted before "
            f"{self._work.group} had read them; give the topic a longer retention"
        )

    def _named(self) -> str:
        return f"{self.tp.topic}[{self.tp.partition}]"


def _size(record: Any) -> int:
    return len(record.value or b"") + len(record.key or b"")
