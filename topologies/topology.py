"""A topology: a consumer group, its sources, its tables and its views, declared in one place and run in three.

`build_app` runs it on Kafka, `topologies.driver.Driver` in a test without a broker, `topologies.views` serves what
it keeps. A topology is a value under construction: declare everything at import, run it later.

    clicks = Topic("clicks", Click)
    shop = Topology("click-stats")

    @shop.table(clicks, clicks=Count(), visitors=Distinct())
    def clicks_by_page(click: Click) -> Iterator[tuple[str, int, int]]:
        yield click.page, 1, click.user_id
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from streams.events import event_time_ms
from streams.intake import EventTime, TimeOf
from streams.topics import Topic
from tables.aggregates import Aggregate
from tables.finals import partials_topic, with_finals
from tables.publishing import Publication
from tables.rules import Rule
from tables.table import DAY_S, Fold, Forward, Group, Source, Table
from tables.topic_copy import Copied
from tables.topic_copy import TimeOf as TimeOfRecord

if TYPE_CHECKING:  # the view server's own, which imports topologies
    from topologies.views.described import Described

F = TypeVar("F", bound=Fold)
View = Callable[..., Awaitable[Any] | Any]
Background = Callable[[Any], Awaitable[None]]
B = TypeVar("B", bound=Background)
# The version of every topology that is not a version of another one (topologies.versions).
FIRST: Final = "v1"


@dataclass
class Topology:
    """Declarations of one consumer group. `name` is the group's and starts every topic that it makes.

    A later version (topologies.versions) is a `version_of` the first one's name; `renamed` gives the names that its
    derived topics have for those that they were declared with. Every `flush_s` what was counted is made durable and
    shows, unless the settings say otherwise: each time costs workers, brokers and view servers the cells that changed.
    """

    name: str
    sources: dict[str, Source] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    described: "dict[str, Described]" = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    copies: dict[str, Copied] = field(default_factory=dict)
    backgrounds: dict[str, Background] = field(default_factory=dict)
    publications: list[Publication] = field(default_factory=list)
    version: str = FIRST
    version_of: str | None = None
    renamed: dict[str, str] = field(default_factory=dict)
    flush_s: float = 0.2

    @property
    def family(self) -> str:
        """The name of its first version, which all versions share."""
        return self.version_of or self.name

    def source(self, topic: Topic, *, time: EventTime | None = None, time_of: TimeOf | None = None) -> "Topology":
        """Say how a topic's event time is read: slices, grace, and where in the event the time is (ms).

        Without this a topic is read in minute slices with a minute of grace. Without `time_of` an event's time is its
        `occurred_at`, if its type has that field, else the record's timestamp. Call it before the topic's tables are
        declared.
        """
        if topic.name in self.sources:
            raise ValueError(f"topic {topic.name} is declared already; call source() before its tables")
        self.sources[topic.name] = Source(topic, (), time or EventTime(), time_of or _time_of(topic))
        return self

    def table(
        self,
        topic: Topic,
        *,
        name: str | None = None,
        retention_s: int = 2 * DAY_S,
        finals: Topic | None = None,
        slice_s: int | None = None,
        timed: bool = False,
        **aggregates: Aggregate[Any],
    ) -> Callable[[F], F]:
        """Declare a table fed from a topic by the decorated fold; the table's name is the fold's, unless given.

        `slice_s` and `timed` are `tables.table.Table`'s.
        """

        def declare(fold: F) -> F:
            table_name = name or str(getattr(fold, "__name__", ""))
            self.add(topic, Table(table_name, aggregates, fold, retention_s, finals, slice_s, timed))
            return fold

        return declare

    def add(self, topic: Topic, table: Table) -> None:
        """Feed a table from a topic."""
        source = self._source(topic)
        self.sources[topic.name] = replace(source, tables=(*source.tables, table))

    def _source(self, topic: Topic) -> Source:
        source = self.sources.get(topic.name) or Source(topic, (), time_of=_time_of(topic))
        if source.topic != topic:
            raise ValueError(f"topic {topic.name} is declared twice, and differently")
        return source

    def forward(
        self, topic: Topic, to: Topic, of: Callable[..., Iterable[tuple[int, bytes, bytes]]], *, timed: bool = False
    ) -> None:
        """Hand a topic's events on to another one: `of(event)`, or `of(event, at_ms)` if timed, gives the records.

        Each is (partition, key, value); see `tables.table.Forward` for what the receiving topic needs.
        """
        source = self._source(topic)
        if source.forward is not None:
            raise ValueError(f"topic {topic.name} is forwarded already")
        self.sources[topic.name] = replace(source, forward=Forward(to, of, timed))

    def copy(self, topic: Topic, *, time_of: TimeOfRecord | None = None, keep: int | None = None) -> "Topology":
        """Have the view server keep a copy of a compacted derived topic, for the views: `reader.copies[topic.name]`.

        With `time_of(key, value)`, a time in ms or None, its records can be listed newest first; with `keep` only so
        many of them are kept.
        """
        if topic.name in self.copies:
            raise ValueError(f"topic {topic.name} is copied already")
        self.copies[topic.name] = Copied(topic, time_of, keep)
        return self

    def rule(self, rule: Rule) -> None:
        """Decide on the cells of declared tables when their time has come (tables.rules)."""
        self.rules.append(rule)

    def publish(self, publication: Publication) -> None:
        """Keep a compacted topic of results up to date with declared tables (tables.publishing)."""
        self.publications.append(publication)

    def view(self, path: str, described: "Described | None" = None) -> Callable[[View], View]:
        """Serve the decorated function's answer as JSON under a path of the view server, such as `/api/things/{id}`.

        It is called with a reader (`topologies.views.Reader`, which is also all that the read model is) and the
        parameters: one mapping of the query's and the path's, percent-decoded. What it answers gets `freshness`
        beside it, unless it says its own; raise `topologies.views.BadParameter` for parameters that are not right and
        `NotFound` for what is not there.

        `described` (`topologies.views.Described`) says in the API's document what it takes and answers; parameters
        that it does not declare are then refused, and the view reads the declared ones with their `of`.
        """

        def declare(view: View) -> View:
            self.views[path] = view
            if described is not None:
                self.described[path] = described
            return view

        return declare

    def background(self, function: B) -> B:
        """Run the decorated async function beside the view server: it computes for the views what takes long.

        It is called with the same reader as the views, hands over with `reader.post`, and must give way to others
        (`await reader.give_way()`) every few milliseconds. One that raises is started again, at growing intervals.
        """
        name = str(getattr(function, "__name__", ""))
        if name in self.backgrounds:
            raise ValueError(f"there are two background functions {name!r}")
        self.backgrounds[name] = function
        return function

    @property
    def group(self) -> Group:
        """The group with everything declared so far, second stages included."""
        return with_finals(Group(self.name, tuple(self.sources.values()), tuple(self.rules)))

    def topics(self) -> list[Topic]:
        """Every topic that must exist before a worker starts."""
        group = self.group
        partials = [partials_topic(group, table) for table in group.tables if table.finals is not None]
        published = [topic for p in self.publications for topic in (p.topic, *p.copies)]
        copied = [copied.topic for copied in self.copies.values()]
        return list({topic.name: topic for topic in [*group.topics(), *partials, *published, *copied]}.values())


def _time_of(topic: Topic) -> TimeOf:
    fields = getattr(topic.value, "__struct_fields__", ())
    return event_time_ms if "occurred_at" in fields else record_time_ms


def record_time_ms(event: Any, record_timestamp_ms: int) -> int:
    """The record's own timestamp, for events that carry no time."""
    return record_timestamp_ms
