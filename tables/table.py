"""Declarations: what a source is and what a table remembers of it. Values only; the engine runs them.

A *fold* is a pure function from one event to the rows that it adds: an iterable of flat tuples `(key, value, ...)`,
one value for each aggregate in declared order. It sees neither the state nor the clock, so all updates of an event
are known before any accumulator is touched. Of a `timed` table it is also given the event's time in ms, as the intake
has read it: the record's timestamp where the event itself says none.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from streams.events import event_time_ms
from streams.intake import EventTime, TimeOf
from streams.topics import Topic
from tables.accumulators import RowSpec
from tables.aggregates import Aggregate
from tables.rules import Rule

Fold = Callable[..., Iterable[tuple[Any, ...]]]  # of an event; timed: of an event and its time in ms

DAY_S = 86_400
LEGAL_NAME = re.compile(r"[a-z][a-z0-9_-]{0,99}")


@dataclass(frozen=True)
class Table:
    """What is remembered of one source, for each slice and key: a row of named aggregates.

    Slices are the source's, or of `slice_s` seconds, a multiple of those; hopping and sliding windows are merged from
    them when read. Whether an event is late is decided by the source's slices alone, and a wider slice is closed when
    all of those in it are. A slice is dropped `retention_s` of event time after its end. With `finals`, each closed
    slice's merged result goes to that topic. With `timed` the fold is called with the event and its time.
    """

    name: str
    aggregates: Mapping[str, Aggregate[Any]]
    fold: Fold
    retention_s: int = 2 * DAY_S
    finals: Topic | None = None
    slice_s: int | None = None
    timed: bool = False
    row: RowSpec = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raise ValueError for a name that cannot be part of a topic's, or a table of nothing."""
        if not LEGAL_NAME.fullmatch(self.name):
            raise ValueError(f"table name {self.name!r}: lower-case letters, digits, '_' and '-'")
        if not self.aggregates:
            raise ValueError(f"table {self.name!r} has no aggregates")
        if self.retention_s <= 0:
            raise ValueError(f"table {self.name!r}: retention_s must be above 0")
        object.__setattr__(self, "aggregates", MappingProxyType(dict(self.aggregates)))
        object.__setattr__(self, "row", RowSpec(self.aggregates))

    @property
    def retention_ms(self) -> int:
        """How long after its end a slice is kept, in ms of event time."""
        return self.retention_s * 1000


@dataclass(frozen=True)
class Forward:
    """Hand each applied event on to another topic: `of(event)` gives its records (partition, key, value).

    With `timed` it is called as `of(event, at_ms)`. The values carry an event id that is a function of the event, and
    the topic dedupes, since a crash may repeat them (tables.forwarding).
    """

    topic: Topic
    of: Callable[..., Iterable[tuple[int, bytes, bytes]]]
    timed: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a topic that could not tell a repeat."""
        if not self.topic.dedupes:
            raise ValueError(f"topic {self.topic.name!r} may get records twice: give it dedupe_records or dedupe_s")


@dataclass(frozen=True)
class Source:
    """A topic that tables are fed from, and how its event time is read.

    `decode` replaces the JSON decoder of the topic's value type. `mark` reads from an event how far one of several
    writers of the topic has come (second stage): the highest number of each name is part of the progress.
    """

    topic: Topic
    tables: tuple[Table, ...]
    time: EventTime = field(default_factory=EventTime)
    time_of: TimeOf = event_time_ms
    decode: Callable[[bytes | None], Any] | None = None
    mark: Callable[[Any], tuple[str, int] | None] | None = None
    finals_of: Table | None = None
    forward: Forward | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for what could not be right at run time."""
        if self.topic.value is None and self.decode is None:
            raise ValueError(f"topic {self.topic.name!r} declares no value type, so it cannot feed tables")
        for table in self.tables:
            if table.slice_s is not None and (table.slice_s <= 0 or table.slice_s * 1000 % self.time.slice_ms):
                raise ValueError(
                    f"table {table.name!r}: slice_s must be a multiple of its source's slices of "
                    f"{self.time.slice_ms / 1000:g} s, not {table.slice_s}"
                )
            if self.finals_of is None and table.retention_ms < self.slice_ms(table) + self.time.grace_ms:
                raise ValueError(f"table {table.name!r}: retention_s is shorter than one slice and its grace")
        fields = getattr(self.topic.value, "__struct_fields__", ())
        if self.topic.dedupes and "event_id" not in fields:
            raise ValueError(f"topic {self.topic.name!r} dedupes, but its events have no event_id")

    def slice_ms(self, table: Table) -> int:
        """How long the table's slices are: its own, else the source's."""
        return self.time.slice_ms if table.slice_s is None else table.slice_s * 1000

    def closed_before(self, table: Table, watermark: int) -> int:
        """Slices of the table that start before this (ms) are closed: no event can change them any more."""
        closed = self.time.closed_before(watermark)
        return closed - closed % self.slice_ms(table)


@dataclass(frozen=True)
class Group:
    """A consumer group: its name, its sources and its rules. Names of tables are unique in a group."""

    name: str
    sources: tuple[Source, ...]
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError where names or partitions do not fit together."""
        names = [table.name for table in self.tables]
        if len(set(names)) != len(names):
            raise ValueError(f"group {self.name!r}: table names must be unique, not {sorted(names)}")
        topics = [source.topic.name for source in self.sources]
        if len(set(topics)) != len(topics):
            raise ValueError(f"group {self.name!r}: a topic is one source, with all its tables")
        counts = {source.topic.name: source.topic.partitions for source in self.sources}
        if len(set(counts.values())) > 1:
            # Partition n of every source is kept in one store, which one worker opens; Faust's assignor gives it to
            # one worker only among topics of equally many partitions.
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise ValueError(f"group {self.name!r}: its topics must have equally many partitions, not {told}")
        self._check_rules()

    def _check_rules(self) -> None:
        names = [rule.name for rule in self.rules]
        if len(set(names)) != len(names):
            raise ValueError(f"group {self.name!r}: rule names must be unique, not {sorted(names)}")
        kept = {t.name for source in self.sources if source.finals_of is None for t in source.tables}
        for rule in self.rules:
            unknown = [name for name in rule.tables if name not in kept]
            if unknown:
                raise ValueError(f"rule {rule.name!r}: group {self.name!r} has no table {', '.join(unknown)}")
            self.reach_ms(rule)

    def reach_ms(self, rule: Rule) -> int:
        """How far before a cell's slice (ms) the rule may look. Raises ValueError for tables not kept so long."""
        tables = {table.name: table for table in self.tables}
        slice_ms = self.source_of(rule.table).slice_ms(tables[rule.table])
        return rule.reach_ms(slice_ms, min(tables[name].retention_ms for name in rule.tables))

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables of all sources."""
        return tuple(table for source in self.sources for table in source.tables)

    def source(self, topic: str) -> Source:
        """The source of that topic. Raises KeyError."""
        return next(s for s in self.sources if s.topic.name == topic)

    def source_of(self, table: str) -> Source:
        """The source that feeds the table of that name. Raises KeyError."""
        return self._source_by_table[table]

    @cached_property
    def _source_by_table(self) -> Mapping[str, Source]:
        # a view asks for it some hundred times
        return {table.name: source for source in self.sources for table in source.tables}

    def changelog(self, table: Table) -> Topic:
        """The table's changelog, which is the derived topic of partials that read models consume."""
        return Topic(
            f"{self.name}-{table.name}-changelog",
            key="slice start, key (tables.accumulators)",
            partitions=self.source_of(table.name).topic.partitions,
            retention_s=None,
            cleanup="compact",
            config={"min.compaction.lag.ms": "3600000"},
        )

    @property
    def progress(self) -> Topic:
        """The topic that says, for each source partition, how far its tables are complete."""
        partitions = max(source.topic.partitions for source in self.sources)
        return Topic(
            f"{self.name}-progress",
            key="topic, partition, generation (tables.progress)",
            partitions=partitions,
            retention_s=None,
            cleanup="compact",
            # Every start reads it whole, and Kafka compacts only segments that are full: by default after 1 GiB or a
            # week, which is two million records for a worker that flushes five times a second.
            config={"segment.bytes": str(4 << 20), "segment.ms": "3600000"},
        )

    @property
    def put_aside(self) -> Topic:
        """The topic that says, for each source partition, which records lie among the dead letters."""
        return replace(self.progress, name=f"{self.name}-put-aside", key="topic, partition, chunk (tables.put_aside)")

    def topics(self) -> list[Topic]:
        """Every topic that this group reads or writes."""
        found = [self.progress, self.put_aside]
        found += [table.finals for table in self.tables if table.finals is not None]
        for source in self.sources:
            found += [source.topic, source.topic.dead_letters, source.topic.late]
        found += [self.changelog(table) for table in self.tables]
        found += [rule.topic for rule in self.rules]
        found += [source.forward.topic for source in self.sources if source.forward is not None]
        return found
