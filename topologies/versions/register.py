"""What versions there are, which of them are served, and how far the view servers are: one compacted topic.

`<prefix>versions`, one partition. Keys are JSON lists, values JSON; the last record of a key counts, a tombstone
removes it. Times are ms since the epoch, a topology is named by its first version's group.

- `["version", topology, version]`: `Version`, written when a version is made; the first version has none until it is
  dropped.
- `["served", topology]`: `Served`, written by a switch and a rollback. Without it the first version is served.
- `["server", topology, server]`: `Seen`, written by each view server now and then and whenever it has something new to
  say, and removed when it ends in order.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.log import TP, Entry, Log, LogError, Record
from streams.producers import Producer
from streams.rereading import Rereader
from streams.topics import Topic, ensure_topics, missing_topics
from topologies.topology import FIRST

NAME: Final = "versions"
# A view server that has not said anything for so long is not there any more.
SILENT_S: Final = 15.0
_encode = msgspec.json.Encoder().encode
_key = msgspec.json.Decoder(list[str]).decode


class Version(msgspec.Struct, frozen=True, rename="camel"):
    """How a version is loaded: the name of its topology (topologies.loading), and the settings that shape it.

    `first` is the name by which the first version is loaded. `dropped`: it is not there any more, and nobody is to
    make its topics anew.
    """

    load: str = ""
    first: str = ""
    settings: dict[str, Any] = {}
    at_ms: int = 0
    dropped: bool = False


class Served(msgspec.Struct, frozen=True, rename="camel"):
    """Which version is served, and which one was before (where a rollback leads to).

    `behind`: view servers are to go there even if it has less of the sources than what they serve.
    """

    version: str
    before: str | None = None
    at_ms: int = 0
    behind: bool = False


class Seen(msgspec.Struct, frozen=True, rename="camel"):
    """What a view server says of a topology: what it serves, where it is moving, and what it is waiting for."""

    version: str
    moving: str | None = None
    waiting: str | None = None
    at_ms: int = 0


FIRST_SERVED: Final = Served(FIRST)
_KINDS: Final[Mapping[str, Any]] = {"version": Version, "served": Served, "server": Seen}


def topic_of(prefix: str) -> Topic:
    """The topic of an installation."""
    # everybody reads it whole, and Kafka compacts only segments that are full
    config = {"segment.bytes": str(1 << 20), "segment.ms": "3600000"}
    return Topic(prefix + NAME, key="JSON list", partitions=1, retention_s=None, cleanup="compact", config=config)


@dataclass
class Register:
    """What the topic says, as far as it was read."""

    versions: dict[tuple[str, str], Version] = field(default_factory=dict)
    served_of: dict[str, Served] = field(default_factory=dict)
    servers: dict[tuple[str, str], Seen] = field(default_factory=dict)

    def apply(self, records: Iterable[Record]) -> None:
        """Take records in order. What later releases may write besides is passed over."""
        for record in records:
            try:
                kind, *names = _key(record.key or b"[]")
                value = None if record.value is None else msgspec.json.decode(record.value, type=_KINDS[kind])
                self._put(kind, names, value)
            except (msgspec.DecodeError, msgspec.ValidationError, KeyError, ValueError):
                continue

    def _put(self, kind: str, names: list[str], value: Any) -> None:
        if kind == "served":
            (topology,) = names
            _put(self.served_of, topology, value)
            return
        topology, name = names
        _put(self.versions if kind == "version" else self.servers, (topology, name), value)

    def served(self, topology: str) -> Served:
        """What is served of a topology."""
        return self.served_of.get(topology, FIRST_SERVED)

    def known(self, topology: str, *, dropped: bool = False) -> dict[str, Version]:
        """All versions of a topology that are not dropped, or those as well; the oldest first."""
        found = {FIRST: Version(), **{name: one for (of, name), one in self.versions.items() if of == topology}}
        return {name: found[name] for name in sorted(found, key=number) if dropped or not found[name].dropped}

    def first_of(self, topology: str) -> str | None:
        """The name by which the first version of a topology is loaded."""
        return next((one.first for (of, _), one in self.versions.items() if of == topology and one.first), None)

    @property
    def topologies(self) -> list[str]:
        """Every topology that anything is said of."""
        return sorted({*(of for of, _ in self.versions), *self.served_of, *(of for of, _ in self.servers)})

    def serving(self, topology: str, now_ms: int) -> dict[str, Seen]:
        """The view servers of a topology that have been heard of lately."""
        since = now_ms - SILENT_S * 1000
        return {name: seen for (of, name), seen in self.servers.items() if of == topology and seen.at_ms >= since}


def _put(where: dict[Any, Any], key: Any, value: Any) -> None:
    if value is None:
        where.pop(key, None)
    else:
        where[key] = value


def number(version: str) -> int:
    """What versions are ordered by."""
    return int(version[1:])


def now_ms() -> int:
    """The time in ms since the epoch."""
    return time.time_ns() // 1_000_000


def entry(kind: str, *names: str, value: Version | Served | Seen | None) -> Entry:
    """The record of something."""
    return Entry(_encode([kind, *names]), None if value is None else _encode(value))


@dataclass
class Follower:
    """Reads the topic on, from its beginning, over a log that is started."""

    log: Log
    topic: Topic
    register: Register = field(default_factory=Register)
    position: int = 0

    @property
    def tp(self) -> TP:
        """The topic's partition."""
        return TP(self.topic.name, 0)

    async def read(self) -> bool:
        """Read what is there now; returns whether there was anything new. Raises LogError."""
        end = (await self.log.end_offsets([self.tp]))[self.tp]
        if end < self.position:  # made anew
            self.register.versions.clear()
            self.register.served_of.clear()
            self.register.servers.clear()
            self.position = 0
        if end == self.position:
            return False
        first = (await self.log.start_offsets([self.tp]))[self.tp]
        async for _, records in self.log.read({self.tp: (max(first, self.position), end)}):
            self.register.apply(records)
        self.position = end
        return True

    async def write(self, *entries: Entry) -> None:
        """Write records, and wait until they are safe. Raises LogError."""
        await self.log.append({self.tp: list(entries)})


def read_register(cluster: Cluster, prefix: str) -> Register:
    """What the topic says now; nothing where there is none. Raises MillraceError."""
    topic, found = topic_of(prefix), Register()
    if missing_topics(cluster, [topic.name]):
        return found
    try:
        with Rereader(cluster) as reader:
            first, end = reader.bounds(TP(topic.name, 0))
            for records in reader.read(TP(topic.name, 0), first, end) if first < end else ():
                found.apply(records)
    except LogError as error:
        raise MillraceError(f"what versions there are cannot be read: {error}; see `millrace doctor`") from error
    return found


def write_register(cluster: Cluster, prefix: str, *entries: Entry) -> None:
    """Write records into the topic, which is made if need be. Raises MillraceError."""
    topic = topic_of(prefix)
    ensure_topics(cluster, [topic])
    with Producer(cluster) as producer:
        for key, value, _ in entries:
            producer.produce(topic.name, key, value, 0)
