"""aiokafka's fetcher, handing over whole record batches of batched topics.

aiokafka makes a record of 11 fields for each message, one by one in Python: half of the fetching thread's time. What
its C parser gives already has all that a batch needs (`streams.log.Record`), so it is taken as it is, a record batch
of the log at a time. Nothing else of the fetcher changes; positions move as they did, to where a record batch ends.

That parser gives a whole batch up over one header whose name is not UTF-8, which Kafka takes and Python clients refuse
to send. Such a batch is read here, name and all: nobody's record must stop a group for good.

It reads uncommitted (`isolation_level`), as the worker does: aborted transactions are not looked at.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any
from weakref import proxy

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecord, DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy
from aiokafka.record.util import decode_varint_py

from streams.log import Record


class WholeBatchConsumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka is untyped
    """A consumer that hands over up to `at_most` records of a partition at a poll, and of all together `in_all`.

    Those of some topics come raw and in whole record batches, so there may be one batch more; `in_all` counts these
    only. It may be changed at any time; None: there is no such limit.
    """

    def __init__(
        self, *args: Any, whole: Callable[[str], bool], at_most: int, in_all: int | None = None, **kwargs: Any
    ) -> None:
        """Take aiokafka's arguments; `whole` says of which topics."""
        # aiokafka's own limit is one over all partitions, and an assertion
        super().__init__(*args, **{**kwargs, "max_poll_records": None})
        self.in_all = in_all
        self._whole = whole
        self._at_most = at_most

    async def start(self) -> None:
        """Connect, then listen to what is fetched."""
        await super().start()
        self._fetcher._records = _Fetched(self._whole, self._at_most)

    async def getmany(self, *args: Any, **kwargs: Any) -> Any:
        """Poll as aiokafka's own does, within the limits."""
        self._fetcher._records.left = self.in_all if self.in_all is not None else inf
        return await super().getmany(*args, **kwargs)


class _Fetched(OrderedDict[Any, Any]):
    """The fetcher's results by partition; those of batched topics are told to hand over whole batches."""

    def __init__(self, whole: Callable[[str], bool], at_most: int) -> None:
        super().__init__()
        self._whole = whole
        self.at_most = at_most
        self.left = inf

    def __setitem__(self, tp: Any, result: Any) -> None:
        if type(result) is FetchResult:
            # The fetcher asks for the exact type, so the instance is changed. It must not hold itself: its megabytes
            # would stay until Python's collector looks, and so would those whose iterator nobody goes through.
            whole = self._whole(tp.topic)
            result.getall = partial(_take, _take_whole if whole else _take_some, proxy(result), proxy(self))
            if whole:
                result._partition_records._records_iterator = None
        super().__setitem__(tp, result)


def _take(
    take: Callable[[FetchResult, _Fetched], list[Any]], result: FetchResult, fetched: _Fetched, max_records: None = None
) -> list[Any]:
    """What `take` gives, also where aiokafka's parser gives a batch up for the name of a header in it."""
    parsed = result._partition_records
    try:
        return take(result, fetched)
    except UnicodeDecodeError:
        # nothing was handed over: from the position on once more
        parsed.next_fetch_offset = result._assignment.state_value(result._topic_partition).position
        parsed._records = _Legible(parsed._records, parsed.next_fetch_offset)
        parsed._records_iterator = None if take is _take_whole else parsed._unpack_records()
        return take(result, fetched)


class _Legible:
    """The batches of a fetch that reach beyond an offset; those that the parser cannot read are read without it."""

    def __init__(self, records: Any, position: int) -> None:
        # The parser keeps the bytes to itself, but for its pickled state: they and how far it has gone through them.
        fetched = _MemoryRecordsPy(next(part for part in records.__reduce__()[2] if isinstance(part, bytes)))
        self._batches: deque[Any] = deque()
        while fetched.has_next():
            raw = fetched._next_slice
            batch = fetched.next_batch()
            if batch.next_offset > position:
                self._batches.append(_readable(batch, raw))

    def has_next(self) -> bool:
        return bool(self._batches)

    def next_batch(self) -> Any:
        return self._batches.popleft()


def _readable(batch: Any, raw: memoryview) -> Any:
    """The batch, or another reader of it. What is wrong with its sum or its shape is told when it is taken."""
    if isinstance(batch, DefaultRecordBatch) and batch.validate_crc():
        try:
            list(DefaultRecordBatch(raw))
        except UnicodeDecodeError:
            return _AnyNames(raw)
        except CorruptRecordException:
            pass
    return batch


# `decode_varint_py`: its twin in C trusts what it reads, to beyond the end of the buffer.
class _AnyNames(_DefaultRecordBatchPy):  # type: ignore[misc]  # aiokafka is untyped
    r"""A record batch, read slowly; in names of headers, bytes that are not UTF-8 are escaped, as in `\xf1`."""

    _pos: int

    def _read_msg(self) -> DefaultRecord:
        length, start = decode_varint_py(self._buffer, self._pos)
        _, pos = decode_varint_py(self._buffer, start)  # attributes, of which there are none
        later, pos = decode_varint_py(self._buffer, pos)
        further, pos = decode_varint_py(self._buffer, pos)
        key, pos = self._read_bytes(pos)
        value, pos = self._read_bytes(pos)
        count, pos = decode_varint_py(self._buffer, pos)
        headers = []
        for _ in range(count):
            name, pos = self._read_bytes(pos)
            content, pos = self._read_bytes(pos)
            headers.append(((name or b"").decode(errors="backslashreplace"), content))
        if pos != start + length:
            raise CorruptRecordException(f"a record of {length} bytes holds {pos - start}")
        self._pos = pos
        appended = self.timestamp_type == self.LOG_APPEND_TIME
        at = self.max_timestamp if appended else self.first_timestamp + later
        return DefaultRecord(self.base_offset + further, at, self.timestamp_type, key, value, headers)

    def _read_bytes(self, pos: int) -> tuple[bytes | None, int]:
        size, pos = decode_varint_py(self._buffer, pos)
        return (None, pos) if size < 0 else (bytes(self._buffer[pos : pos + size]), pos + size)


def _take_some(result: FetchResult, fetched: _Fetched) -> list[Any]:
    taken: list[Any] = FetchResult.getall(result, fetched.at_most)
    return taken


def _take_whole(result: FetchResult, fetched: _Fetched) -> list[Record]:
    """What `FetchResult.getall` gives, but raw and in whole record batches: until there are enough, or all."""
    tp, parsed = result._topic_partition, result._partition_records
    if fetched.left <= 0 or not result.check_assignment(tp) or not result.has_more():
        return []
    found: list[Record] = []
    batches, enough = parsed._records, min(fetched.at_most, fetched.left)
    while batches.has_next() and len(found) < enough:
        batch = batches.next_batch()
        if parsed._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {tp}")
        if not batch.is_control_batch:
            found += _from(parsed.next_fetch_offset, list(batch))
        parsed.next_fetch_offset = batch.next_offset
    result._update_position()
    if not batches.has_next():
        result._partition_records = None
    fetched.left -= len(found)
    return found


def _from(offset: int, records: list[Record]) -> list[Record]:
    """Without the records before an offset: a fetch begins with the whole batch that holds it."""
    if records and records[0].offset < offset:
        return [record for record in records if record.offset >= offset]
    return records
