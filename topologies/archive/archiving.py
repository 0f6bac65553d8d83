"""What the group does with records: a file for each stretch of a partition, named by where the archive stands."""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from streams.consuming import Again, Backoff, Tell
from streams.errors import MillraceError
from streams.log import TP, Record
from streams.topics import Topic
from topologies.archive.files import Files, Footer
from topologies.archive.layout import day_of, path_of
from topologies.archive.rows import Rows

logger = logging.getLogger(__name__)

GROUP: Final = "data-platform-group"
# Tables are made in threads: what they take beside the records is bounded by this.
AT_ONCE: Final = 2


@dataclass
class Counts:
    """What this process has archived."""

    records: int = 0
    files: int = 0
    overtaken: int = 0
    failures: int = 0


@dataclass
class Archive:
    """A handler for `streams.consuming` and its `starts`. `ids` has the topics' own ids, where the brokers have any.

    `next` is where the archive of a partition stands, `begins` where its log began when that was last looked for: what
    is between them was deleted before it was archived, and the next file's footer says so.
    """

    files: Files
    topics: Sequence[Topic]
    ids: Mapping[str, str] = field(default_factory=dict)
    tell: Tell = logger.info
    counts: Counts = field(default_factory=Counts)
    next: dict[TP, int] = field(default_factory=dict)
    begins: dict[TP, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the columns of each topic."""
        self._rows = {topic.name: Rows(topic) for topic in self.topics}
        self._backoff, self._tries = Backoff(0.5, 30.0), dict[TP, int]()
        self._room = asyncio.Semaphore(AT_ONCE)

    async def starts(self, tp: TP, first: int, end: int) -> int:
        """Where the archive stands: after the newest file, else where the partition begins.

        Waits while the storage does not answer. Raises MillraceError where the files are of another topic of that name.
        """
        tries = 0
        while True:
            try:
                found = await asyncio.to_thread(self.files.newest, tp)
                break
            except OSError as error:
                tries += 1
                self._failed(tp, tries, error)
                await asyncio.sleep(self._backoff.after(tries))
        self.begins[tp] = first
        if found is None:
            self.next[tp] = first
            return first
        path, footer = found
        topic_id = self.ids.get(tp.topic, "")
        anew = bool(topic_id and footer.topic_id and topic_id != footer.topic_id)
        if anew or footer.end > end:
            raise MillraceError(
                f"{path} is of another topic {tp.topic} than the one that is there (up to {footer.end}, this one ends "
                f"at {end}): move {self.files.url} away, or give another --to"
            )
        self.next[tp] = footer.end
        return footer.end

    async def __call__(self, tp: TP, records: Sequence[Record]) -> None:
        """Archive what is not archived yet. Raises `Again` where the storage fails."""
        left = [record for record in records if record.offset >= self.next[tp]]
        while left:
            # parted anew each time: what is archived already had a say in where a day begins
            await self._write(tp, next(runs(left)))
            left = [record for record in left if record.offset >= self.next[tp]]

    async def reaches(self, tp: TP, end: int) -> bool:
        """Whether everything before an offset is archived, by whomever; False while the storage does not answer."""
        if self.next.get(tp, -1) >= end:
            return True
        try:  # also of a partition that was ours: another one may have it now
            found = await asyncio.to_thread(self.files.newest, tp)
        except OSError:
            return False
        return found is not None and found[1].end >= end

    async def _write(self, tp: TP, records: Sequence[Record]) -> None:
        first, lost = self.next[tp], max(0, self.begins[tp] - self.next[tp])
        footer = Footer(first, records[-1].offset + 1, len(records), self.ids.get(tp.topic, ""), lost)
        path = path_of(tp, first, day_of(records[0].timestamp))
        try:
            async with self._room:
                self.next[tp] = await asyncio.to_thread(self._create, tp, path, records, footer)
        except OSError as error:
            self._tries[tp] = tries = self._tries.get(tp, 0) + 1
            self._failed(tp, tries, error)
            raise Again(self._backoff.after(tries), at=first) from error
        self._tries.pop(tp, None)
        if self.next[tp] == footer.end:
            self.counts.records += len(records)
            self.counts.files += 1

    def _create(self, tp: TP, path: str, records: Sequence[Record], footer: Footer) -> int:
        """Write a file; returns where the archive then stands: where somebody else's ends, if that was quicker."""
        try:
            self.files.create(path, self._rows[tp.topic].table(tp, records, footer.metadata()))
        except FileExistsError:
            self.counts.overtaken += 1
            theirs = self.files.footer(f"{self.files.root}/{path}").end
            self.tell(f"{tp.topic}[{tp.partition}]: {path} is there already; going on from {theirs}")
            return theirs
        return footer.end

    def _failed(self, tp: TP, tries: int, error: OSError) -> None:
        self.counts.failures += 1
        if tries == 1:
            self.tell(f"{tp.topic}[{tp.partition}]: {self.files.url} fails ({error}); trying until it does not")


def runs(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Consecutive records for one file each: a later day than the first record's begins a new one."""
    begin, day = 0, day_of(records[0].timestamp)
    for place, record in enumerate(records):
        if (this := day_of(record.timestamp)) > day:
            yield records[begin:place]
            begin, day = place, this
    yield records[begin:]
