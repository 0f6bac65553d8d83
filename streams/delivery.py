"""Batched delivery through Faust's own extension points, and the commit that an engine's flush is part of.

What is overridden, and why:

- `Consumer.getmany` yields one message for each partition of a batched topic, whose value is the list of records and
  whose offset is the last one's; the original's checks of generation, flow and active partitions stay. Faust's cost
  of an event is then paid once for thousands. Unbatched topics pass through as they did.
- `ConsumerThread` fetches with `streams.fetching`: raw records in whole record batches, not one object each.
- Faust's acks of batched topics are thrown away: it acks a batch also when its agent raised or was cancelled, and
  its gap logic can commit one before it is processed. What is committed is the engine's own durable position.
- `Consumer.force_commit` flushes the engine first and commits what the flush made durable.
- `Consumer.on_partitions_revoked` flushes before `super()`, which forgets acked offsets before it waits; then the
  engine lets every partition go. `on_stop` does the same for the end.
- `Recovery` and `TableManager` bring the engine's partitions back between an assignment and the first record.
  Faust's own tables, where an app has some, still recover beside them.
- The consumer always uses Faust's co-partitioning assignor: partition n of every source goes to one worker.

The engine stays behind the `Processor` protocol, so another fetcher can take `getmany`'s place.
"""

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, Protocol, cast

import aiokafka
import faust
from aiokafka.errors import KafkaError
from faust.assignor import PartitionAssignor
from faust.events import Event
from faust.serializers.schemas import Schema
from faust.tables.manager import TableManager as FaustTableManager
from faust.tables.recovery import Recovery as FaustRecovery
from faust.transport.drivers import aiokafka as driver
from faust.types import TP as FaustTP
from faust.types.tuples import ConsumerMessage, Message
from mode import Service

from streams.calm_logs import calm_logs
from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.fetching import WholeBatchConsumer
from streams.log import TP, LogError, Record
from streams.membership import commit_as_member_only, leave_for_good

logger = logging.getLogger(__name__)

# One huge batch starves everything else on the loop, heartbeats of the main thread included: some 40 ms of work.
MAX_POLL_RECORDS = 5_000
# Batches that may wait in an agent's queue: each holds thousands of records, Faust's default of 4,096 would be
# gigabytes.
QUEUED_BATCHES = 4
FETCH_BYTES = 1 << 20
# A batch waits a tenth of a second for its turn at most; one that nobody applied in this long is lost.
UNAPPLIED_S = 3.0
# The last flush and the farewell to the group take half a second; without a broker each of them waits for a minute.
END_S = 10.0


class Processor(Protocol):
    """What delivery needs of the engine."""

    @property
    def topics(self) -> frozenset[str]:
        """Source topics that are delivered in batches."""
        ...

    async def start(self) -> None:
        """Connect what the processor needs, before the group is joined."""
        ...

    async def stop(self) -> None:
        """Let go of everything."""
        ...

    async def restore(self, numbers: Sequence[int], generation: int, starts: Mapping[TP, int | None]) -> dict[TP, int]:
        """Bring exactly these partition numbers back; returns where to read on from.

        `starts` holds the group's committed offsets, for sources that have nothing kept yet.
        """
        ...

    async def flush(self) -> dict[TP, int]:
        """Make what was applied durable; returns what may be committed, and is not."""
        ...

    def positions(self) -> dict[TP, int]:
        """Where each source partition goes on; those that start anew are left out."""
        ...

    def committed(self, offsets: Mapping[TP, int]) -> None:
        """Hear what the group has committed."""
        ...

    def pausing(self) -> None:
        """Hear that a rebalance has begun."""
        ...

    async def release(self) -> None:
        """Let all partitions go."""
        ...

    def check_committed(self, offsets: Mapping[TP, int | None]) -> None:
        """Hear what the group had committed before; raises where an operator has moved it behind the state."""
        ...


class Batch(list[Record]):
    """Consecutive records of one partition. `base` is where delivery stood before, None right after a seek."""

    def __init__(self, tp: TP, records: Iterable[Record], base: int | None, generation: int) -> None:
        """Wrap the records."""
        super().__init__(records)
        self.tp = tp
        self.base = base
        self.generation = generation


class BatchSchema(Schema[Any, Any]):
    """Passes a batch through undecoded."""

    def compile(self, app: Any, **kwargs: Any) -> Callable[..., Any]:
        """Make the decode function of a channel."""

        async def decode(message: Message, *, propagate: bool = False) -> Any:
            return Event(app, None, message.value, message.headers, message)

        return decode


class Assignor(PartitionAssignor):
    """Faust's co-partitioning assignor, for static members too."""

    def on_assignment(self, assignment: Any) -> None:
        """Take over an assignment, also one that was made for an earlier life of this worker."""
        # A static member that is back gets its former assignment, with the URL that it had then. Faust compares the
        # URLs last, when all else is done, and its assertion would leave the worker standing for ever.
        try:
            super().on_assignment(assignment)
        except AssertionError:
            numbers = sorted(self._assignment.kafka_protocol_assignment(self._table_manager))
            if sorted(assignment.assignment) != numbers:
                raise


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread with our choice of assignor, instance name, and of which errors are fatal."""

    app: "BatchApp"

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf: Any = self.app.conf
        self._assignor = self.app.assignor
        return WholeBatchConsumer(
            whole=self.app.processor.topics.__contains__,
            at_most=conf.broker_max_poll_records,
            client_id=f"{conf.broker_client_id}-{self.app.instance_name or 'worker'}",
            group_id=conf.id,
            group_instance_id=self.app.instance_name,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_interval_ms=int((conf.broker_max_poll_interval or 300) * 1000),
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_wait_ms=100,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            check_crcs=conf.broker_check_crcs,
            **self.app.cluster.aiokafka(),
        )

    async def on_start(self) -> None:
        """Connect, and end the process should the group's coordination ever fail: it would wait for ever."""
        await super().on_start()
        consumer = self._ensure_consumer()
        if (coordinator := consumer._coordinator) is not None:
            commit_as_member_only(consumer)
            coordinator._coordination_task.add_done_callback(self._on_coordination_end)

    def _log_slow_processing_commit(self, msg: str, *args: Any) -> None:
        """Nothing: Faust looks at commits of its own, and would warn of each quiet partition that wakes up."""

    def _on_coordination_end(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.app.fail(MillraceError(f"membership in the consumer group failed: {error}; start the worker again"))

    async def _commit(self, offsets: Mapping[Any, int]) -> bool:
        # A commit that fails is no harm: the progress records, not the group's offsets, say what is applied. Faust
        # would end the worker.
        consumer = self._ensure_consumer()
        mine = {tp: offset for tp, offset in offsets.items() if tp in self.assignment()}
        try:
            await consumer.commit({aiokafka.TopicPartition(*tp): offset for tp, offset in mine.items()})
        except (KafkaError, aiokafka.errors.IllegalStateError) as error:
            logger.info("commit put off: %r", error)
            return False
        return bool(mine)

    async def committed(self, tps: Iterable[TP]) -> dict[TP, int | None]:
        """The group's committed offsets."""
        return cast(dict[TP, int | None], await self.call_thread(self._committed, list(tps)))

    async def _committed(self, tps: list[TP]) -> dict[TP, int | None]:
        consumer = self._ensure_consumer()
        found = await asyncio.gather(*(consumer.committed(aiokafka.TopicPartition(*tp)) for tp in tps))
        return dict(zip(tps, found, strict=True))

    def fetch_position(self, tp: TP) -> int | None:
        """Where the fetcher goes on in a partition; None while that is not known."""
        consumer = self._consumer
        subscription = consumer._subscription.subscription if consumer is not None else None
        assignment = subscription.assignment if subscription is not None else None
        state = assignment.state_value(aiokafka.TopicPartition(*tp)) if assignment is not None else None
        if state is None or not state.has_valid_position:
            return None
        return int(state.position)

    async def on_thread_stop(self) -> None:
        """Leave the group for good, so that the partitions move at once."""
        # a worker that is killed does not say so, and finds its partitions when it is back in time
        if self._consumer is not None and not self.app.stays_in_group:
            leave_for_good(self._consumer)
        await super().on_thread_stop()


class Consumer(driver.Consumer):
    """Faust's consumer, delivering batches and committing the engine's positions."""

    app: "BatchApp"
    _thread: ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Nothing delivered yet."""
        super().__init__(*args, **kwargs)
        self._delivered: dict[TP, int] = {}
        self._handing_over = asyncio.Lock()

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[Any, Any]]:
        """Yield one message for each partition of a batched topic, and single ones for the others."""
        if self.app.take_turns is not None:
            await self.app.take_turns()
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if records is None or self.should_stop:
            return
        if not self.flow_active:
            await self.perform_seek()
            return
        batched = self.app.processor.topics
        for tp, found in records.items():
            if self._interrupted(generation):
                return
            if active is not None and tp not in active and tp not in self._buffered_partitions:
                continue
            if tp.topic not in batched:
                for record in found:
                    yield tp, self._to_message(tp, record)
                continue
            yield tp, self._batch_message(tp, found, generation)

    def _interrupted(self, generation: int) -> bool:
        return not self.flow_active or self.app.consumer_generation_id != generation

    def _batch_message(self, tp: Any, records: list[Any], generation: int) -> ConsumerMessage:
        key, last = TP(*tp), records[-1]
        batch = Batch(key, records, self._delivered.get(key), generation)
        self._delivered[key] = last.offset + 1
        return ConsumerMessage(
            tp.topic, tp.partition, last.offset, last.timestamp / 1000, last.timestamp_type, [], None, cast(Any, batch),
            None, 0, 0, tp, generation_id=generation,
        )  # fmt: skip

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[Any]:
        # Faust's streams put acks into these lists themselves, past `ack`.
        for tp in [tp for tp in self._acked if tp.topic in self.app.processor.topics]:
            self._acked[tp].clear()
            self._acked_index[tp].clear()
        return (tp for tp in super()._filter_tps_with_pending_acks(topics) if self._acked[tp])

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        if tp.topic not in self.app.processor.topics:
            await super()._add_gap(tp, offset_from, offset_to)

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Flush the engine, then commit its durable positions, then what Faust has for unbatched topics."""
        committed = await self._commit_engine()
        if committed and self.should_stop:
            await self._commit_engine()  # the last flush: it says what the one before it has committed
        return await super().force_commit(topics, start_new_transaction) or committed

    async def _commit_engine(self) -> bool:
        async with self._handing_over:
            try:
                durable = await self.app.processor.flush()
            except MillraceError as error:
                self.app.fail(error)
            if not durable:  # a worker may end before its consumer has begun, which then knows of no assignment
                return False
            assigned = self.assignment()
            fresh = {FaustTP(*tp): offset for tp, offset in durable.items() if FaustTP(*tp) in assigned}
            if not fresh or not await self._commit_offsets(fresh, start_new_transaction=False):
                return False
            self.app.processor.committed({TP(*tp): offset for tp, offset in fresh.items()})
            return True

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Flush and commit while the partitions are still ours, then let them all go."""
        self.app.processor.pausing()
        self.stop_flow()
        try:
            await self._commit_engine()
        finally:
            async with self._handing_over:
                await self.app.processor.release()
        await super().on_partitions_revoked(revoked)

    async def on_stop(self) -> None:
        """Flush and commit, then let everything go."""
        await super().on_stop()
        async with self._handing_over:
            await self.app.processor.release()
        await self.app.processor.stop()

    @Service.task
    async def _commit_handler(self) -> None:
        # Faust's own timer warns of each flush that takes longer than the interval, as it may when catching up.
        while not self.should_stop:
            await self.sleep(self.commit_interval)
            await self.commit()

    @Service.task
    async def _watch_delivery(self) -> None:
        """Go back to what was fetched and never applied.

        A batch that is lost between fetcher and engine shows as a gap before the next one; on a quiet partition there
        is no next one, and it would wait for ever. Fetched beyond the position and still there after a while, twice
        the same: read it again. Once only for the same two offsets: a log may end in records that nobody sees
        (transaction markers).
        """
        before: dict[TP, tuple[int, int]] = {}
        settled: dict[TP, tuple[int, int]] = {}
        while not self.should_stop:
            await self.sleep(UNAPPLIED_S)
            if not self.flow_active or self.app.in_recovery:
                before = {}
                continue
            ahead = self._fetched_beyond(self.app.processor.positions())
            lost = {tp: at[0] for tp, at in ahead.items() if before.get(tp) == at != settled.get(tp)}
            if lost:
                logger.warning("fetched and not applied, reading again: %s", lost)
                settled |= {tp: ahead[tp] for tp in lost}
                await self.read_on_from(lost)
            before = ahead

    def _fetched_beyond(self, positions: Mapping[TP, int]) -> dict[TP, tuple[int, int]]:
        """Position and fetch position where the fetcher is ahead."""
        found: dict[TP, tuple[int, int]] = {}
        for tp, position in positions.items():
            fetched = self._thread.fetch_position(tp)
            if fetched is not None and fetched > position:
                found[tp] = (position, fetched)
        return found

    async def perform_seek(self) -> None:
        """Go on from the engine's positions, and for unbatched topics from the committed offsets."""
        with _reassigned():
            await super().perform_seek()
        self._delivered.clear()
        await self.read_on_from(self.app.processor.positions())

    async def read_on_from(self, positions: Mapping[TP, int]) -> None:
        """Seek source partitions to the engine's positions."""
        assigned = self.assignment()
        wanted = {FaustTP(*tp): offset for tp, offset in positions.items() if FaustTP(*tp) in assigned}
        for tp in wanted:
            self._delivered.pop(TP(*tp), None)
        if wanted:
            with _reassigned():
                await self.seek_wait({aiokafka.TopicPartition(*tp): offset for tp, offset in wanted.items()})
        for tp, offset in wanted.items():
            self._delivered.pop(TP(*tp), None)
            self._read_offset[tp] = offset or None

    async def committed_offsets(self, tps: Iterable[TP]) -> dict[TP, int | None]:
        """What the group has committed, None where nothing is."""
        return await self._thread.committed(tps)


@contextlib.contextmanager
def _reassigned() -> Iterator[None]:
    """A partition may go to another worker while its offset is asked for: the next assignment seeks again."""
    try:
        yield
    except aiokafka.errors.IllegalStateError as error:  # Faust would end the worker
        logger.info("seek left to the next assignment: %s", error)


class Transport(driver.Transport):
    """Faust's aiokafka transport with the batching consumer."""

    Consumer = Consumer


class Recovery(FaustRecovery):
    """Faust's recovery, which brings the engine's partitions back before anything is delivered."""

    app: "BatchApp"

    async def _resume_streams(self, generation_id: int = 0) -> None:
        await self._restore(generation_id)
        await super()._resume_streams(generation_id=generation_id)

    async def on_recovery_completed(self, generation_id: int = 0) -> None:
        """Restore, then resume as Faust does."""
        await self._restore(generation_id)
        await super().on_recovery_completed(generation_id)

    async def _restore(self, generation: int) -> None:
        try:
            await self._restore_engine(generation)
        except (MillraceError, LogError) as error:
            self.app.fail(error)

    async def _restore_engine(self, generation: int) -> None:
        consumer, processor = cast(Consumer, self.app.consumer), self.app.processor
        mine = [TP(*tp) for tp in consumer.assignment() if tp.topic in processor.topics]
        committed = await consumer.committed_offsets(mine)
        await self._wait(processor.restore(sorted({tp.partition for tp in mine}), generation, committed))
        processor.check_committed(committed)


class TableManager(FaustTableManager):
    """Faust's table manager with our recovery, and without its pause of a second at every start."""

    app: "BatchApp"

    @property
    def recovery(self) -> Recovery:
        """The recovery service."""
        if self._recovery is None:
            self._recovery = Recovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return cast(Recovery, self._recovery)

    async def on_start(self) -> None:
        """Start recovery."""
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()


class BatchApp(faust.App):
    """A Faust app that delivers the processor's topics in batches."""

    processor: Processor
    cluster: Cluster
    instance_name: str | None = None
    stays_in_group: bool = False
    # Waited for before anything else, by a worker that may have to come later.
    admitted: Callable[[], Awaitable[None]] | None = None
    prepare: Callable[[], None] | None = None
    # Waited for before each read, by a worker that holds itself back.
    take_turns: Callable[[], Awaitable[None]] | None = None

    async def on_first_start(self) -> None:
        """Wait until `admitted`, let `prepare` run, which may name the worker, connect the engine, start as Faust does.

        First, since Faust's own clients say with a traceback that no broker answers.
        """
        calm_logs()
        try:
            if self.admitted is not None:
                await self.admitted()
            if self.prepare is not None:
                self.prepare()
            await self.processor.start()
        except (MillraceError, LogError) as error:
            self.fail(error)
        await super().on_first_start()

    async def stop(self) -> None:
        """End in good order; without a broker that answers, end all the same after a while."""
        giving_up = threading.Timer(END_S, self._give_up)
        giving_up.daemon = True
        giving_up.start()
        try:
            await super().stop()
        finally:
            giving_up.cancel()

    def _give_up(self) -> NoReturn:
        self.fail(
            MillraceError(
                f"Kafka does not answer, so this worker ends without a last flush after {END_S:g} s: what is not "
                "flushed is applied after the next start"
            )
        )

    def fail(self, error: Exception) -> NoReturn:
        """End the process with one line that says why.

        At once, as `kill -9` would: what is applied and not flushed is applied again after the next start, while
        Faust's orderly end from inside a rebalance may wait for itself.
        """
        # Faust's worker has made a logger of sys.stderr, which would say it with a time stamp and as a warning.
        stderr = sys.__stderr__ or sys.stderr
        stderr.write(f"error: {error}\n")
        stderr.flush()
        os._exit(1)
