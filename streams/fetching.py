"""aiokafka's fetcher, handing over whole record batches of batched topics.

aiokafka makes a record of 11 fields for each message, one by one in Python: half of the fetching thread's time. What
its C parser gives already has all that a batch needs (`streams.log.Record`), so it is taken as it is, a record batch
of the log at a time. Nothing else of the fetcher changes; positions move as they did, to where a record batch ends.

It reads uncommitted (`isolation_level`), as the worker does: aborted transactions are not looked at.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any
from weakref import proxy

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import CorruptRecordException

from streams.errors import MillraceError
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
    """What `take` gives. Raises MillraceError for a batch that aiokafka cannot read for the name of a header in it."""
    parsed = result._partition_records
    try:
        return take(result, fetched)
    except UnicodeDecodeError as error:
        topic, partition = result._topic_partition
        raise MillraceError(
            f"{topic}[{partition}]: a record at {parsed.next_fetch_offset}, or of the same batch behind it, has a "
            "header whose name is not UTF-8, and its batch cannot be read: see that nobody sends such names, and set "
            f"the group behind it: `millrace groups reset ... --topic {topic}:{partition} --to-offset ... --execute`"
        ) from error


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
