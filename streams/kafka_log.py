"""The log of a real cluster: aiokafka outside any consumer group.

Reading has a consumer of its own without a group, so a restore or a look into a gap never touches the worker's
group, its fetch positions or its heartbeats. Both ways go by whole record batches: with aiokafka's own records a
restore takes nearly twice as long. Appending waits for acks=all.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)

from streams.cluster import Cluster
from streams.fetching import WholeBatchConsumer
from streams.log import TP, Entry, LogError, LogRefused, Record, Span, TopicGone

T = TypeVar("T")

# What no second try will change. Everything else may pass: brokers come back, leaders move.
REFUSALS = (
    ClusterAuthorizationFailedError,
    InvalidTopicError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)
# A broker takes 1 MiB a message set by default (message.max.bytes); a little less leaves room for its header.
BATCH_BYTES = 1_000_000
# Restores read far ahead: 4 MiB a partition and fetch keeps aiokafka busy with parsing, not with waiting.
FETCH_BYTES = 4 << 20
READ_RECORDS = 20_000
# Longer than a leader's election on a three-node cluster; a broker that is away longer fails the flush, which is
# tried again with the same bytes.
REQUEST_TIMEOUT_MS = 30_000


# What takes longer than this may wait for a topic that is gone, which aiokafka takes for one that is to come.
LOOK_FOR_TOPICS_S = 3.0
# A broker that is away must not hold up an end: what was not sent is sent again from the source.
STOP_S = 5.0


def _every_topic(topic: str) -> bool:
    return True


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, also one that has lost its broker.

    aiokafka 0.14 lets the cancellation of a fetch that waits before its next try out of `stop`, as if the caller had
    been cancelled, and leaves its client open, which goes on connecting for ever.
    """
    stopped: list[object] = await asyncio.gather(consumer.stop(), return_exceptions=True)
    if stopped != [None]:
        await consumer._client.close()


class KafkaLog:
    """Reads and appends with aiokafka. `start()` before use, `stop()` after; one event loop."""

    def __init__(self, cluster: Cluster, *, client_id: str = "millrace") -> None:
        """Keep the settings; nothing connects before `start`."""
        self._config: dict[str, Any] = {"client_id": client_id, **cluster.aiokafka()}
        self._producer: AIOKafkaProducer | None = None
        self._reader: AIOKafkaConsumer | None = None
        self._reading = asyncio.Lock()

    async def start(self) -> None:
        """Connect. Raises `LogError` when no broker answers."""
        self._producer = AIOKafkaProducer(
            acks="all",
            # Not idempotent: a retry that appends twice is harmless (same stamps, noticed as a foreign record), while
            # an idempotent producer that lost count of itself refuses every send until the process ends.
            enable_idempotence=False,
            # aiokafka sets LZ4 to its slow level 9: 0.5 microseconds an event with all sales tables, zstd takes 0.07
            # and makes less of it (both with a flush each 20,000 events)
            compression_type="zstd",
            max_batch_size=BATCH_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            **self._config,
        )
        self._reader = WholeBatchConsumer(
            whole=_every_topic,
            at_most=READ_RECORDS,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=100,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            **self._config,
        )
        try:
            await asyncio.gather(self._producer.start(), self._reader.start())
        except KafkaError as error:
            await self.stop()
            raise LogError(f"no connection to Kafka: {error}") from error

    async def stop(self) -> None:
        """Send what is still queued and disconnect."""
        producer, self._producer = self._producer, None
        reader, self._reader = self._reader, None
        if producer is not None:
            try:
                async with asyncio.timeout(STOP_S):
                    await producer.stop()
            except TimeoutError:  # it still waits for acknowledgements, and has closed nothing
                await producer._sender.close()
                await producer.client.close()
        if reader is not None:
            await stop_consumer(reader)

    async def start_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        """Each partition's first offset."""
        wanted = [TopicPartition(*tp) for tp in tps]
        if not wanted:
            return {}
        try:
            found = await self._patiently(self._connected_reader().beginning_offsets(wanted), wanted)
        except KafkaError as error:
            raise LogError(f"start offsets: {error!r}") from error
        return {TP(*tp): offset for tp, offset in found.items()}

    async def end_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        """Each partition's end offset."""
        wanted = [TopicPartition(*tp) for tp in tps]
        if not wanted:
            return {}
        try:
            found = await self._patiently(self._connected_reader().end_offsets(wanted), wanted)
        except KafkaError as error:
            raise LogError(f"end offsets: {error!r}") from error
        return {TP(*tp): offset for tp, offset in found.items()}

    async def read(self, spans: Mapping[TP, tuple[int, int]]) -> AsyncIterator[tuple[TP, Sequence[Record]]]:
        """Yield every record of the spans. One read at a time; others wait."""
        left = {tp: end for tp, (start, end) in spans.items() if start < end}
        if not left:
            return
        async with self._reading:
            reader = self._connected_reader()
            try:
                reader.assign([TopicPartition(*tp) for tp in left])
                for tp in left:
                    reader.seek(TopicPartition(*tp), spans[tp][0])
                looked, missing = time.monotonic(), set[str]()
                while left:
                    batches = await reader.getmany(timeout_ms=200)
                    if batches:
                        looked, missing = time.monotonic(), set()
                    elif time.monotonic() - looked > LOOK_FOR_TOPICS_S:
                        looked, missing = time.monotonic(), await self._missing(left, missing)
                    for key, records in batches.items():
                        tp = TP(*key)
                        end = left.get(tp)
                        if end is None:
                            continue
                        if records[-1].offset >= end:
                            records = [r for r in records if r.offset < end]
                        if records:
                            yield tp, records
                    await self._drop_finished(reader, left)
            except KafkaError as error:
                raise LogError(f"reading {sorted(left)}: {error!r}") from error
            finally:
                reader.unsubscribe()

    async def _drop_finished(self, reader: AIOKafkaConsumer, left: dict[TP, int]) -> None:
        # The last record before an end may be gone (compaction), so the position decides, not the records.
        for tp in list(left):
            key = TopicPartition(*tp)
            if await reader.position(key) >= left[tp]:
                del left[tp]
                reader.pause(key)

    async def append(self, appends: Mapping[TP, Sequence[Entry]]) -> dict[TP, list[Span]]:
        """Send every entry as record batches and wait for all acks; on any failure raise `LogError`."""
        try:
            sent = await self._patiently(self._acknowledged(appends), appends)
        except KafkaError as error:
            if isinstance(error, REFUSALS):
                names = ", ".join(sorted({tp.topic for tp in appends}))
                raise LogRefused(f"Kafka refuses records of {names}: {error}") from error
            raise LogError(f"appending: {error!r}") from error
        return {tp: [Span(ack.result().offset, count) for ack, count in pairs] for tp, pairs in sent.items()}

    async def _acknowledged(
        self, appends: Mapping[TP, Sequence[Entry]]
    ) -> dict[TP, list[tuple[asyncio.Future[Any], int]]]:
        sent = {tp: [pair async for pair in self._send(tp, entries)] for tp, entries in appends.items()}
        await asyncio.gather(*(ack for pairs in sent.values() for ack, _ in pairs))
        return sent

    async def _patiently(self, waiting: Awaitable[T], tps: Iterable[TP | TopicPartition]) -> T:
        """What is waited for. Raises `TopicGone` when one of the topics was missing at two looks in a row."""
        task = asyncio.ensure_future(waiting)
        missing: set[str] | None = None
        try:
            while not (await asyncio.wait({task}, timeout=LOOK_FOR_TOPICS_S))[0]:
                missing = await self._missing(tps, missing)
            return task.result()
        finally:
            task.cancel()

    async def _missing(self, tps: Iterable[TP | TopicPartition], before: set[str] | None) -> set[str]:
        """The topics that are missing. Raises `TopicGone` for one that was missing before as well."""
        try:
            metadata = await self._connected_producer().client.fetch_all_metadata()
        except KafkaError:
            return set()  # nobody answers: that is another trouble, and may pass
        missing = {tp.topic for tp in tps} - set(metadata.topics())
        if gone := missing & (before or set()):
            raise TopicGone(min(gone))
        return missing

    async def _send(self, tp: TP, entries: Sequence[Entry]) -> AsyncIterator[tuple[asyncio.Future[Any], int]]:
        producer = self._connected_producer()
        batch = producer.create_batch()
        for key, value, headers in entries:
            if batch.append(key=key, value=value, timestamp=None, headers=list(headers)) is None:
                yield await producer.send_batch(batch, tp.topic, partition=tp.partition), batch.record_count()
                batch = producer.create_batch()
                batch.append(key=key, value=value, timestamp=None, headers=list(headers))
        if batch.record_count():
            batch.close()
            yield await producer.send_batch(batch, tp.topic, partition=tp.partition), batch.record_count()

    def _connected_producer(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise LogError("the log is not started")
        return self._producer

    def _connected_reader(self) -> AIOKafkaConsumer:
        if self._reader is None:
            raise LogError("the log is not started")
        return self._reader
