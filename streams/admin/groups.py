"""Consumer groups: who is in them, which partitions each member has, and how far behind they are.

Lag is the end offset less the committed one, as Kafka's own tools define it; a partition that was assigned and never
committed has none.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka.admin import ConsumerGroupDescription

from streams.admin.connection import ANSWER_S, Admin, answer, reason
from streams.admin.topics import stretches
from streams.errors import MillraceError
from streams.log import TP

GONE: Final = (KafkaError.GROUP_ID_NOT_FOUND,)
PASSING: Final = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError._TIMED_OUT,
)
POLL_S: Final = 0.05
# The client's own answer that there is none comes first.
GRACE_S: Final = 5.0


@dataclass(frozen=True)
class Member:
    """One member. `instance` is its static name, None for members that have none."""

    id: str
    client: str
    host: str
    instance: str | None
    partitions: tuple[TP, ...]

    @property
    def name(self) -> str:
        """What an operator would call it."""
        return self.instance or self.client or self.id


@dataclass(frozen=True)
class Position:
    """How far a group has come in a partition. `committed` and `lag` are None where it never committed."""

    tp: TP
    committed: int | None
    first: int
    end: int
    owner: Member | None = None

    @property
    def lag(self) -> int | None:
        """Records that it has not got yet."""
        return None if self.committed is None else self.end - self.committed

    @property
    def lost(self) -> int:
        """Offsets below the partition's first one that it never got: retention was quicker."""
        return 0 if self.committed is None else max(0, self.first - self.committed)


@dataclass(frozen=True)
class GroupLine:
    """One group in a list."""

    name: str
    state: str
    kind: str
    members: int


@dataclass(frozen=True)
class GroupState:
    """One group. `state` is Kafka's: STABLE, EMPTY, PREPARING_REBALANCING, ..."""

    name: str
    state: str
    kind: str
    assignor: str
    coordinator: str
    members: tuple[Member, ...]
    positions: tuple[Position, ...]

    @property
    def lag(self) -> int:
        """Of all partitions that it has committed in."""
        return sum(one.lag or 0 for one in self.positions)


def list_groups(admin: Admin) -> list[GroupLine]:
    """All groups of the cluster, by name. Raises BrokerUnreachable, MillraceError."""
    admin.metadata()
    listed = answer(admin.client.list_consumer_groups(request_timeout=ANSWER_S), "groups cannot be listed")
    if not listed.valid and listed.errors:
        raise MillraceError(f"groups cannot be listed: {reason(listed.errors[0])}")
    names = sorted(one.group_id for one in listed.valid)
    found = _described(admin, names)
    return [_line(found[name]) for name in names if name in found]


def describe_group(admin: Admin, name: str) -> GroupState:
    """A group with its members and positions. Raises MillraceError if there is none of that name."""
    admin.metadata()
    found = _described(admin, [name]).get(name)
    committed = committed_offsets(admin, name)
    if (found is None or state_of(found) == "DEAD") and not committed:
        raise no_group(admin, name)
    members = _members(found)
    return GroupState(
        name=name,
        state="EMPTY" if found is None else state_of(found),
        kind="" if found is None else _kind(found),
        assignor=str(found.partition_assignor or "") if found is not None else "",
        coordinator=_address(found),
        members=members,
        positions=tuple(_positions(admin, committed, members)),
    )


def no_group(admin: Admin, name: str) -> MillraceError:
    """What to say of a group that is not there; one whose name contains this one is named."""
    alike = [one.name for one in list_groups(admin) if name in one.name]
    hint = f"did you mean {alike[0]!r}?" if len(alike) == 1 else "`millrace groups list` shows those that are there"
    return MillraceError(f"there is no group {name!r}; {hint}")


def members_of(admin: Admin, name: str) -> tuple[Member, ...]:
    """Who is in a group now; nobody where there is none. Raises MillraceError."""
    return members_and_state(admin, name)[0]


def members_and_state(admin: Admin, name: str) -> tuple[tuple[Member, ...], str]:
    """Who is in a group now, and its state; nobody and DEAD where there is none. Raises MillraceError.

    Only in a group that is STABLE is what members have shared out among those who are there.
    """
    found = _described(admin, [name]).get(name)
    return _members(found), "DEAD" if found is None else state_of(found)


def committed_offsets(admin: Admin, name: str, tps: Sequence[TP] | None = None) -> dict[TP, int]:
    """What a group has committed, everywhere or in these partitions; those without are left out."""
    asked = ConsumerGroupTopicPartitions(name)
    future = admin.client.list_consumer_group_offsets([asked], request_timeout=ANSWER_S)[name]
    try:
        found: Any = future.result(ANSWER_S)
    except KafkaException as failure:
        if failure.args[0].code() in GONE:
            return {}
        raise MillraceError(f"offsets of group {name!r} cannot be read: {reason(failure)}") from failure
    offsets = {TP(tp.topic, tp.partition): tp.offset for tp in found.topic_partitions if tp.offset >= 0}
    return offsets if tps is None else {tp: offset for tp, offset in offsets.items() if tp in set(tps)}


def state_of(found: ConsumerGroupDescription) -> str:
    """Kafka's name of the state."""
    return str(found.state.name)


def _described(admin: Admin, names: Sequence[str]) -> dict[str, ConsumerGroupDescription]:
    """Those of the groups that there are. A coordinator that has just come up is waited for."""
    found: dict[str, ConsumerGroupDescription] = {}
    left, deadline = list(names), time.monotonic() + 2 * ANSWER_S
    while left:
        asked = admin.client.describe_consumer_groups(left, request_timeout=ANSWER_S)
        left = []
        for name, future in asked.items():
            try:
                found[name] = future.result(ANSWER_S + GRACE_S)
            except KafkaException as failure:
                code = failure.args[0].code()
                if code in PASSING and time.monotonic() < deadline:
                    left.append(name)
                elif code not in GONE:
                    raise MillraceError(f"group {name!r} cannot be described: {reason(failure)}") from failure
        if left:
            time.sleep(POLL_S)
    return found


def _line(found: ConsumerGroupDescription) -> GroupLine:
    return GroupLine(found.group_id, state_of(found), _kind(found), len(found.members))


def _kind(found: ConsumerGroupDescription) -> str:
    return str(getattr(found.type, "name", "")).lower()


def _address(found: ConsumerGroupDescription | None) -> str:
    node = None if found is None else found.coordinator
    return "" if node is None else f"{node.host}:{node.port}"


def _members(found: ConsumerGroupDescription | None) -> tuple[Member, ...]:
    if found is None:
        return ()
    made = (
        Member(
            one.member_id,
            one.client_id,
            one.host.removeprefix("/"),
            one.group_instance_id or None,
            tuple(sorted(TP(tp.topic, tp.partition) for tp in one.assignment.topic_partitions)),
        )
        for one in found.members
    )
    return tuple(sorted(made, key=lambda member: (member.name, member.id)))


def _positions(admin: Admin, committed: dict[TP, int], members: Iterable[Member]) -> list[Position]:
    owners = {tp: member for member in members for tp in member.partitions}
    # a topic that was deleted leaves its offsets behind for a while
    there = admin.metadata().topics
    tps = [tp for tp in owners.keys() | committed.keys() if tp.topic in there]
    held = stretches(admin, tps)
    return [Position(tp, committed.get(tp), held[tp].first, held[tp].end, owners.get(tp)) for tp in sorted(held)]
