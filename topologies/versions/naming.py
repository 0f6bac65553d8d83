"""A later version of a topology: the same declarations, under names of its own.

The names of versions are `v` and a number; `v1` is the topology as it is declared.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from streams.errors import MillraceError
from streams.topics import Topic
from tables.publishing import Copy, Publication, Shelf
from tables.table import Source, Table
from topologies.topology import FIRST, Topology

LEGAL: Final = re.compile(r"v[1-9][0-9]{0,5}")


def check_version(version: str) -> None:
    """Raise MillraceError for what is no name of a version."""
    if not LEGAL.fullmatch(version):
        raise MillraceError(f"{version!r} is no version: they are named v1, v2, ...")


def group_name(family: str, version: str) -> str:
    """The group of a version of a topology.

    >>> group_name("clicks", "v1"), group_name("clicks", "v2")
    ('clicks', 'clicks.v2')
    """
    return family if version == FIRST else f"{family}.{version}"


def as_version(declared: Topology, family: str, version: str) -> Topology:
    """The declared topology as a version of the topology named `family`. Raises MillraceError for a bad name."""
    check_version(version)
    if version == FIRST:
        return declared
    names = {topic.name: f"{topic.name}.{version}" for topic in derived_topics(declared)}
    own = _Renaming(group_name(family, version), names)
    sources = [own.source(source) for source in declared.sources.values()]
    copies = [replace(copied, topic=own.topic(copied.topic)) for copied in declared.copies.values()]
    return replace(
        declared,
        name=own.group,
        sources={source.topic.name: source for source in sources},
        rules=[replace(rule, topic=own.topic(rule.topic)) for rule in declared.rules],
        copies={copied.topic.name: copied for copied in copies},
        publications=[own.publication(publication) for publication in declared.publications],
        version=version,
        version_of=family,
        renamed=names,
    )


def derived_topics(topology: Topology) -> list[Topic]:
    """The topics of results that a topology writes, each once; without its changelogs and side topics."""
    sources = topology.sources.values()
    found = [table.finals for source in sources for table in source.tables if table.finals is not None]
    found += [source.forward.topic for source in sources if source.forward is not None]
    found += [rule.topic for rule in topology.rules]
    found += [publication.topic for publication in topology.publications]
    return list({topic.name: topic for topic in found}.values())


def own_topics(topology: Topology) -> list[Topic]:
    """Every topic that only this version of a topology writes: state, results and what it puts aside.

    Of a first version without its dead letters and late events, which other topologies put aside in the same topics.
    """
    sources = {source.topic.name for source in topology.sources.values()}
    derived = {topic.name for topic in derived_topics(topology)}
    others = sources - derived
    if topology.version == FIRST:
        others |= {f"{name}.{suffix}" for name in sources - derived for suffix in ("late", "dead-letters")}
    copied = {copied.topic.name for copied in topology.copies.values()}
    published = {topic.name for publication in topology.publications for topic in publication.copies}
    others |= (copied | published) - derived
    return [topic for topic in topology.topics() if topic.name not in others]


@dataclass(frozen=True)
class _Renaming:
    """What a version's declarations are called: its group, and its derived topics by the names declared."""

    group: str
    names: Mapping[str, str]

    def topic(self, topic: Topic) -> Topic:
        return replace(topic, name=self.names[topic.name]) if topic.name in self.names else topic

    def source(self, source: Source) -> Source:
        forward = source.forward
        return replace(
            source,
            topic=self._read(source.topic),
            tables=tuple(self._table(table) for table in source.tables),
            forward=None if forward is None else replace(forward, topic=self.topic(forward.topic)),
        )

    def _read(self, topic: Topic) -> Topic:
        if topic.name in self.names:
            return self.topic(topic)
        # what this version puts aside must not stand among what the served one does
        return replace(topic, aside=f"{topic.name}.{self.group}")

    def _table(self, table: Table) -> Table:
        return table if table.finals is None else replace(table, finals=self.topic(table.finals))

    def publication(self, publication: Publication) -> Publication:
        return replace(
            publication,
            topic=self.topic(publication.topic),
            copies=tuple(map(self.topic, publication.copies)),
            compute=_Compute(publication.compute, self.names),
        )


@dataclass(frozen=True)
class _Compute:
    """A publication's function, which finds the copies of derived topics by the names that it was declared with."""

    compute: Any
    names: Mapping[str, str]

    def __call__(self, shelf: Shelf, key: str) -> bytes | None:
        found: bytes | None = self.compute(replace(shelf, copies=_Renamed(shelf.copies, self.names)), key)
        return found


@dataclass(frozen=True)
class _Renamed(Mapping[str, Copy]):
    copies: Mapping[str, Copy]
    names: Mapping[str, str]

    def __getitem__(self, name: str) -> Copy:
        return self.copies[self.names.get(name, name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.copies)

    def __len__(self) -> int:
        return len(self.copies)
