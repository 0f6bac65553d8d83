"""`GET /api/operations`: workers and what they own, how far behind tables are, how fast they go on, what was put aside.

What the coordinators and the brokers know is asked for at most every two seconds, in a thread, whoever asks here. What
they do not tell, since they cannot be reached or may not be asked, is null, and `problem` says why.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from aiohttp import web
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.cluster import Cluster
from topologies.views.answers import SERVED, Views, answer
from topologies.views.endpoints import OPERATIONS
from topologies.views.freshness import iso

EVERY_S: Final = 2.0
ANSWER_S: Final = 5.0
# Throughput is that of the last so many seconds; what is older was seen by somebody who looked before.
PACE_S: Final = 10.0
FORGET_S: Final = 60.0
UNSEEN: Final = "the cluster was not asked"

Offsets = dict[tuple[str, int], int]
Member = dict[str, Any]


@dataclass(frozen=True)
class GroupSeen:
    """What a coordinator knows of a group; `problem` says why it is nothing."""

    state: str | None = None
    members: Sequence[Member] | None = None
    owners: Mapping[tuple[str, int], str] = field(default_factory=dict)
    committed: Mapping[tuple[str, int], int] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class Seen:
    """What the cluster said at one time (epoch s): groups by name, and how many records topics keep."""

    at: float
    groups: Mapping[str, GroupSeen]
    kept: Mapping[str, int] | None


@dataclass
class Pace:
    """How fast the tables of each partition go on, from how far they were when somebody looked."""

    _looks: deque[tuple[float, Offsets]] = field(default_factory=deque)

    def look(self, at: float, covered: Offsets) -> dict[tuple[str, int], float]:
        """Records a second of each partition, since ten seconds ago or the look nearest to it."""
        while self._looks and (self._looks[0][0] < at - FORGET_S or self._settled(at)):
            self._looks.popleft()
        before = self._looks[0] if self._looks else None
        self._looks.append((at, covered))
        if before is None or at - before[0] < 1:
            return {}
        return {tp: max(0, offset - before[1].get(tp, 0)) / (at - before[0]) for tp, offset in covered.items()}

    def _settled(self, at: float) -> bool:
        return len(self._looks) > 1 and self._looks[1][0] <= at - PACE_S


@dataclass
class Lookout:
    """Asks the cluster, at most every two seconds, and only when somebody wants to know; None: there is none to ask."""

    cluster: Cluster | None = None
    pace: Pace = field(default_factory=Pace)
    _seen: Seen | None = None
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _admin: Any = None

    async def look(self, groups: Sequence[str], topics: Sequence[str]) -> Seen:
        """What is known of groups and topics, two seconds old at most."""
        async with self._asking:
            if self._seen is None or time.time() - self._seen.at > EVERY_S:
                self._seen = await asyncio.to_thread(self._look, groups, topics)
            return self._seen

    def _look(self, groups: Sequence[str], topics: Sequence[str]) -> Seen:
        if self.cluster is None:
            return Seen(time.time(), dict.fromkeys(groups, GroupSeen(problem=UNSEEN)), None)
        if self._admin is None:
            self._admin = AdminClient(self.cluster.librdkafka(log_level=0))
        seen = {group: _told(partial(self._group, group), _unknown) for group in groups}
        return Seen(time.time(), seen, _told(partial(self._kept, topics), lambda _: None))

    def _group(self, name: str) -> GroupSeen:
        described = _result(self._admin.describe_consumer_groups([name], request_timeout=ANSWER_S)[name])
        asked = [ConsumerGroupTopicPartitions(name)]
        listed = _result(self._admin.list_consumer_group_offsets(asked, request_timeout=ANSWER_S)[name])
        members, owners = [], {}
        for one in sorted(described.members, key=lambda one: (one.group_instance_id or "", one.member_id)):
            named = one.group_instance_id or one.client_id
            owned = [(tp.topic, tp.partition) for tp in one.assignment.topic_partitions]
            owners.update(dict.fromkeys(owned, named))
            host = one.host.lstrip("/")
            members.append({"name": named, "member": one.member_id, "host": host, "owned": owned})
        committed = {(tp.topic, tp.partition): tp.offset for tp in listed.topic_partitions if tp.offset >= 0}
        return GroupSeen(described.state.name.lower(), members, owners, committed)

    def _kept(self, topics: Sequence[str]) -> dict[str, int]:
        """How many records each of the topics that there are holds, those that compaction took included."""
        present = self._admin.list_topics(timeout=ANSWER_S).topics
        tps = [TopicPartition(name, p) for name in topics if name in present for p in present[name].partitions]
        if not tps:
            return {}
        first: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # published without types
        last: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        starts, ends = (
            self._admin.list_offsets(dict.fromkeys(tps, spec), request_timeout=ANSWER_S) for spec in (first, last)
        )
        kept = {tp.topic: 0 for tp in tps}
        for tp in tps:
            kept[tp.topic] += _result(ends[tp]).offset - _result(starts[tp]).offset
        return kept


def _result(future: "Future[Any]") -> Any:
    return future.result(ANSWER_S)


def _told(ask: Callable[[], Any], otherwise: Callable[[str], Any]) -> Any:
    try:
        return ask()
    except KafkaException as error:
        return otherwise(error.args[0].str())
    except TimeoutError:
        return otherwise("the cluster does not answer")


def _unknown(problem: str) -> GroupSeen:
    return GroupSeen(problem=problem)


LOOKOUT = web.AppKey("lookout", Lookout)


async def operations(request: web.Request) -> web.Response:
    """`GET /api/operations`: groups, partitions, throughput, what was put aside, freshness."""
    OPERATIONS.read(request.query)
    served = request[SERVED]
    sources = {s.topic.name: s.topic for views in served.all for s in views.topology.sources.values()}
    aside = {name: (topic.late.name, topic.dead_letters.name) for name, topic in sorted(sources.items())}
    fresh = served.freshness()
    groups = [views.topology.name for views in served.all]
    lookout = request.app[LOOKOUT]
    seen = await lookout.look(groups, [name for pair in aside.values() for name in pair])
    paces = lookout.pace.look(time.time(), _covered(served.all))
    letters = [
        {"topic": topic, "late": _count(seen, late), "deadLetters": _count(seen, dead)}
        for topic, (late, dead) in aside.items()
    ]
    told = [_topology(views, seen.groups[views.topology.name], paces) for views in served.all]
    return answer({"at": iso(round(seen.at * 1000)), "topologies": told, "letters": letters, "freshness": fresh})


def _count(seen: Seen, topic: str) -> int | None:
    return None if seen.kept is None else seen.kept.get(topic, 0)


def _covered(served: Iterable[Views]) -> Offsets:
    """How far each topology is with each partition, under the topology's name and the topic's."""
    return {
        (f"{views.topology.name} {topic}", partition): offset
        for views in served
        for topic in views.tracker.sources
        for partition, offset in views.model.covered(topic).items()
    }


def _topology(views: Views, group: GroupSeen, paces: Mapping[tuple[str, int], float]) -> dict[str, Any]:
    name = views.topology.name
    fresh = views.freshness()
    partitions: list[dict[str, Any]] = []
    for topic, source in sorted(views.tracker.sources.items()):
        covered = views.model.covered(topic)
        lag = source.lag(covered)
        for number in sorted(source.ends.keys() | covered.keys()):
            pace = paces.get((f"{name} {topic}", number))
            partitions.append(
                {
                    "topic": topic,
                    "partition": number,
                    "owner": group.owners.get((topic, number)),
                    "end": source.ends.get(number),
                    "committed": group.committed.get((topic, number)),
                    "covered": covered.get(number, 0),
                    "lag": lag.get(number),
                    "perSecond": None if pace is None else round(pace, 2),
                }
            )
    known = [one["perSecond"] for one in partitions if one["perSecond"] is not None]
    return {
        "name": name,
        "state": group.state,
        "problem": group.problem,
        "members": None if group.members is None else [_member(one, views) for one in group.members],
        "perSecond": round(sum(known), 2) if known else None,
        "partitions": partitions,
        "freshness": fresh,
    }


def _member(member: Member, views: Views) -> Member:
    """A worker as it is told; of what it owns the partitions of sources count, not those of tables."""
    owned = [topic for topic, _ in member["owned"] if topic in views.tracker.sources]
    return {name: value for name, value in member.items() if name != "owned"} | {"partitions": len(owned)}
