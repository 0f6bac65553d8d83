"""Which topics and directories a replay in place concerns. A function of the declarations alone."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streams.log import TP
from streams.topics import Topic
from tables.finals import partials_topic
from topologies.kept_topics import kept_topics
from topologies.topology import Topology
from topologies.versions.naming import derived_topics

_STORE: Final = re.compile(r"\d+(\..+)?")


@dataclass(frozen=True)
class Concerned:
    """Names of topics by what becomes of them, each topic once.

    `sources` are read, and stay; `state` and `inner` (what the group writes for itself) are dropped, and so are
    `streams`, results that do not replace each other by key; `upserted` results are said again in place.
    """

    sources: tuple[Topic, ...]
    inner: tuple[Topic, ...]
    state: tuple[str, ...]
    streams: tuple[str, ...]
    upserted: tuple[str, ...]
    aside: tuple[str, ...]

    @property
    def dropped(self) -> list[str]:
        """Everything that is deleted and made anew."""
        return [*(topic.name for topic in self.inner), *self.streams, *self.state]


def concerned(topology: Topology) -> Concerned:
    """What a replay of the topology drops and keeps."""
    group, derived = topology.group, derived_topics(topology)
    own = {topic.name for topic in derived}
    own |= {partials_topic(group, table).name for table in group.tables if table.finals is not None}
    read = [source.topic for source in group.sources]
    inner = tuple(topic for topic in read if topic.name in own)
    beyond = [topic for topic in derived if topic not in inner]
    sources = tuple(topic for topic in read if topic.name not in own)
    return Concerned(
        sources,
        inner,
        tuple(kept_topics(group)),
        tuple(topic.name for topic in beyond if topic.cleanup != "compact"),
        tuple(topic.name for topic in beyond if topic.cleanup == "compact"),
        tuple(name for topic in sources for name in (topic.dead_letters.name, topic.late.name)),
    )


def partitions(topics: Iterable[Topic]) -> list[TP]:
    """Every partition of these topics."""
    return [TP(topic.name, number) for topic in topics for number in range(topic.partitions)]


def stores(state_dir: Path, group: str) -> list[Path]:
    """The local state of the group's partitions on this host; copies of topics and locks are not."""
    directory = Path(state_dir) / group
    found = directory.iterdir() if directory.is_dir() else iter(())
    return sorted(path for path in found if path.is_dir() and _STORE.fullmatch(path.name))
