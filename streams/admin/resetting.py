"""Setting a group's positions: planned first, so that one sees what would be done, then done.

Targets are those of Kafka's own tool, and what lies outside of a partition is moved to its nearer end, as there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import OffsetSpec

from streams.admin.connection import ANSWER_S, Admin, answer
from streams.admin.groups import committed_offsets, members_of, no_group
from streams.admin.topics import Stretch, partitions_of, stretches
from streams.errors import MillraceError
from streams.log import TP


@dataclass(frozen=True)
class Target:
    """Where to. `number` is the time in ms of `datetime`, the offset of `offset`, the distance of `shift`."""

    to: Literal["earliest", "latest", "datetime", "offset", "shift"]
    number: int = 0

    def of(self, held: Stretch, committed: int | None) -> int:
        """The offset that a partition is set to. A shift goes from where the group is: raises MillraceError without.

        >>> Target("shift", -5).of(Stretch(TP("t", 0), first=10, end=20), committed=12)
        10
        """
        if self.to == "earliest":
            return held.first
        if self.to == "latest":
            return held.end
        if self.to == "datetime":
            return held.end if held.at is None else held.at
        if self.to == "offset":
            return min(max(self.number, held.first), held.end)
        if committed is None:
            raise MillraceError(
                f"the group has no position in {held.tp.topic}[{held.tp.partition}] that could be shifted: give "
                "--to-earliest, --to-latest, --to-datetime or --to-offset"
            )
        return min(max(committed + self.number, held.first), held.end)


@dataclass(frozen=True)
class Move:
    """What happens to one partition; `before` is None where the group had no position."""

    tp: TP
    before: int | None
    after: int
    end: int

    @property
    def again(self) -> int:
        """Offsets that will be read once more; negative: that will be passed over."""
        return 0 if self.before is None else self.before - self.after


def plan(admin: Admin, group: str, target: Target, chosen: Mapping[str, Sequence[int] | None]) -> list[Move]:
    """What a reset would do, by partition.

    `chosen` names topics, each with some of its partitions or None for all; without any, it is all that the group has
    committed. Raises MillraceError while the group has members, and for what is not there.
    """
    refuse_members(admin, group)
    committed = committed_offsets(admin, group)
    if not chosen and not committed:
        raise no_group(admin, group)
    tps = _named(admin, chosen) if chosen else _still_there(admin, committed)
    at = OffsetSpec.for_timestamp(target.number) if target.to == "datetime" else None
    held = stretches(admin, tps, at)
    return [Move(tp, committed.get(tp), target.of(held[tp], committed.get(tp)), held[tp].end) for tp in sorted(held)]


def execute(admin: Admin, group: str, moves: Sequence[Move]) -> None:
    """Commit what was planned. Raises MillraceError; a member that came meanwhile is one reason."""
    refuse_members(admin, group)
    offsets = [TopicPartition(*move.tp, move.after) for move in moves]
    asked = ConsumerGroupTopicPartitions(group, offsets)
    futures = admin.client.alter_consumer_group_offsets([asked], request_timeout=ANSWER_S)
    what = f"group {group!r} cannot be reset"
    for tp in answer(futures[group], what).topic_partitions:
        if tp.error is not None:
            raise MillraceError(f"{what} in {tp.topic}[{tp.partition}]: {tp.error.str()}")


def refuse_members(admin: Admin, group: str) -> None:
    """Raise MillraceError while somebody is in the group: they would commit over what is set."""
    admin.metadata()
    members = members_of(admin, group)
    if members:
        named = ", ".join(f"{one.name} at {one.host}" for one in members[:3]) + (", ..." if len(members) > 3 else "")
        raise MillraceError(
            f"group {group!r} has {len(members)} member(s), {named}: stop them first, since they would go on from "
            "where they are"
        )


def _named(admin: Admin, chosen: Mapping[str, Sequence[int] | None]) -> list[TP]:
    there = partitions_of(admin, chosen)
    for topic, numbers in chosen.items():
        for number in numbers or ():
            if number not in there[topic]:
                raise MillraceError(f"topic {topic!r} has no partition {number}; it has 0 to {there[topic][-1]}")
    return [TP(topic, one) for topic, numbers in chosen.items() for one in (numbers or there[topic])]


def _still_there(admin: Admin, tps: Iterable[TP]) -> list[TP]:
    there = admin.metadata().topics
    return [tp for tp in tps if tp.topic in there]
