"""Running rules (tables.rules): which cells a flush decides on, and what it writes of them.

An *agenda* keeps, for a rule with `dues`, which cells fall due when. It is a note and no state: every flush adds the
cells that it is about to write, and after a restart it is made anew from what is stored. What it lists has its time
checked by the decision itself.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streams.errors import MillraceError
from streams.log import TP, Entry
from tables.accumulators import STATES
from tables.cache import Cache, Cell
from tables.forwarding import writable
from tables.rules import EVER, Candidate, Rule, States

if TYPE_CHECKING:
    from tables.partition import Feed, Partition

Place = tuple[int, str]


class RuleFailed(MillraceError):
    """A rule's decision raised, or made what no topic can take. Nothing is lost: it is asked again."""


@dataclass
class Agenda:
    """One rule in one partition. `buckets`: the cells that may fall due by then (ms), in steps of `step_ms`."""

    rule: Rule
    number: int
    feeds: list["Feed"]
    caches: Mapping[str, Cache]
    reach_ms: int
    step_ms: int
    buckets: dict[int, set[Place]] | None = field(default=None)

    @property
    def since(self) -> int:
        """Up to where everything is decided, as of what is durable of all sources."""
        return min(_closed(feed, feed.durable.watermark) if feed.durable else 0 for feed in self.feeds)

    @property
    def until(self) -> int:
        """Up to where all sources have closed their slices by now."""
        return min(_closed(feed, feed.intake.watermark) for feed in self.feeds)

    @property
    def trigger(self) -> Cache:
        """The cells that are decided on."""
        return self.caches[self.rule.table]

    def records(self) -> Iterator[tuple[TP, Entry]]:
        """What the flush that makes `until` durable has to write, by (slice, key); early opinions after it."""
        since, until = self.since, self.until
        self._note(since)
        topic = self.rule.topic
        to = TP(topic.name, self.number % topic.partitions)
        for window, key, cell in self._due(since, until) if until > since else ():
            for entry in self._decide(window, key, cell, since, until):
                yield to, entry
        if self.rule.early:
            changed = sorted(self.trigger.dirty, key=lambda taken: taken[:2])
            for window, key, cell in changed:
                for entry in self._decide(window, key, cell, until, EVER):
                    yield to, entry

    def forget(self) -> None:
        """Drop from the notes what is decided as of what is durable."""
        if self.buckets:
            since = self.since
            for due in [due for due in self.buckets if due <= since]:
                del self.buckets[due]

    def _note(self, since: int) -> None:
        if self.rule.dues is None:
            return
        cells: Iterable[tuple[int, str, Cell]] = self.trigger.dirty
        if self.buckets is None:
            self.buckets, cells = {}, self.trigger.between(self._oldest(since), EVER)
        buckets, dues, step = self.buckets, self.rule.dues, self.step_ms
        for window, key, cell in cells:
            try:
                for due in dues(window, cell[STATES:]):
                    if due > since:
                        buckets.setdefault(-(-due // step) * step, set()).add((window, key))
            except Exception as error:
                raise self._failed(window, key, error) from error

    def _oldest(self, since: int) -> int:
        """The first slice that may hold an event that falls due after `since`."""
        return max(0, since - self.rule.due_ms - self.trigger.slice_ms)

    def _due(self, since: int, until: int) -> Iterator[tuple[int, str, Cell]]:
        trigger = self.trigger
        if self.buckets is None:
            yield from trigger.between(self._oldest(since), until)
            return
        step = self.step_ms
        places = set[Place]().union(*(found for due, found in self.buckets.items() if due - step < until))
        for window, key in sorted(places):
            cell = trigger.look(window, key) if window < until else None
            if cell is not None:
                yield window, key, cell

    def _decide(self, window: int, key: str, cell: Cell, since: int, until: int) -> list[Entry]:
        caches, oldest = self.caches, max(0, window - self.reach_ms)  # nothing is before 1970: no key names it

        def look(table: str, start: int) -> States | None:
            cache = caches[table]
            if start % cache.slice_ms:
                raise ValueError(f"no slice of {table} begins at {start}")
            found = cache.look(start, key) if oldest <= start < until else None
            return None if found is None else found[STATES:]

        try:
            decided = self.rule.decide(Candidate(window, key, cell[STATES:], since, until, look))
            return [writable(name, value) for name, value in decided]
        except Exception as error:
            raise self._failed(window, key, error) from error

    def _failed(self, window: int, key: str, error: Exception) -> RuleFailed:
        return RuleFailed(
            f"rule {self.rule.name} failed on {key!r} at {window} of table {self.rule.table}, partition {self.number}: "
            f"{type(error).__name__}: {error}; nothing is lost: mend the rule and start again"
        )


def _closed(feed: "Feed", watermark: int) -> int:
    return feed.source.time.closed_before(watermark)


def agendas(partition: "Partition") -> list[Agenda]:
    """The partition's rules, each with what it reads; kept until state comes from elsewhere than the own batches."""
    for rule in partition.group.rules:
        if rule.name not in partition.agendas:
            partition.agendas[rule.name] = _agenda(partition, rule)
    return list(partition.agendas.values())


def _agenda(partition: "Partition", rule: Rule) -> Agenda:
    caches = {cache.table.name: cache for feed in partition.feeds.values() for cache in feed.caches}
    feeds = [f for f in partition.feeds.values() if any(cache.table.name in rule.tables for cache in f.caches)]
    reach = partition.group.reach_ms(rule)
    step = min(feed.source.time.slice_ms for feed in feeds)
    return Agenda(rule, partition.number, feeds, {name: caches[name] for name in rule.tables}, reach, step)


def decided_records(partition: "Partition") -> list[tuple[TP, Entry]]:
    """What all rules have to say with the flush that begins now. Changes nothing that matters; raises `RuleFailed`."""
    return [record for agenda in agendas(partition) for record in agenda.records()]


def undecided_from(partition: "Partition", cache: Cache) -> int | None:
    """Up to where (ms) every rule that reads the table has decided, durably; None if none does."""
    return min((a.since for a in agendas(partition) if cache.table.name in a.caches), default=None)


def looked_at_from(partition: "Partition", cache: Cache) -> int | None:
    """From which slice on (ms) rules may well look into the table at their next decisions; None if none reads it.

    What falls due next began so long before; one slice more tells that nothing was there. Decisions may look further
    back, and find what is stored.
    """
    reading = [a for a in agendas(partition) if cache.table.name in a.caches]
    return min((a.since - a.rule.due_ms - 2 * a.trigger.slice_ms - cache.slice_ms for a in reading), default=None)
