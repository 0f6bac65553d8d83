"""The groups: somebody works on every partition, the group is not stuck, and the lag does not grow.

Lag is looked at twice, some seconds apart. It grows if a group takes less than what comes and is more behind than what
came meanwhile; a group that catches up from far behind is well, and so is one that is a flush behind.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from streams.admin.connection import Admin
from streams.admin.groups import GroupState, describe_group, list_groups
from streams.log import TP
from topologies.doctor.finding import Finding, Fine, Said
from topologies.doctor.patient import Patient
from topologies.doctor.state import Kept

BETWEEN: Final = ("PREPARING_REBALANCING", "COMPLETING_REBALANCING")


@dataclass(frozen=True)
class Look:
    """A group as it was at one moment; ``at`` is on the monotonic clock, None: there is no such group."""

    at: float
    group: GroupState | None

    def behind(self, topics: Sequence[str]) -> dict[TP, tuple[int, int]]:
        """How far the group is in each partition of these topics that it has, and their ends."""
        positions = self.group.positions if self.group is not None else ()
        mine = (one for one in positions if one.tp.topic in topics)
        return {one.tp: (one.first if one.committed is None else one.committed, one.end) for one in mine}


def ask(admin: Admin, names: Sequence[str]) -> dict[str, Look]:
    """Each of the groups now. Raises MillraceError."""
    there = {one.name for one in list_groups(admin)}
    return {name: Look(time.monotonic(), describe_group(admin, name) if name in there else None) for name in names}


def look_twice(
    admin: Admin, names: Sequence[str], wait_s: float, wait: Callable[[float], object] = time.sleep
) -> dict[str, tuple[Look, Look]]:
    """Each of the groups now and `wait_s` later; groups without members once, since nothing moves there."""
    first = ask(admin, names)
    if not any(one.group is not None and one.group.members for one in first.values()):
        return {name: (one, one) for name, one in first.items()}
    wait(wait_s)
    second = ask(admin, names)
    return {name: (first[name], second[name]) for name in names}


def has_run(look: Look) -> bool:
    """Whether somebody has ever worked in the group, as far as its coordinator knows."""
    return look.group is not None and (bool(look.group.members) or any(p.committed for p in look.group.positions))


def look(patient: Patient, looks: tuple[Look, Look], kept: Sequence[Kept]) -> Iterator[Said]:
    """What is wrong with a group that has run."""
    before, now = looks
    name, sources = patient.name, patient.sources
    yield from _lost(patient, now)
    waiting = sum(end - committed for committed, end in now.behind(sources).values())
    if now.group is None or not now.group.members:
        gone = "has no members" if now.group is not None else "is gone, with what it had committed"
        what = f"group {name} {gone}: nobody works, {waiting:,} records wait"
        yield Finding("groups", "group-empty", "warning" if not waiting else "error", what, patient.worker)
        return
    if now.group.state in BETWEEN and before.group is not None and before.group.state in BETWEEN:
        what = f"group {name} has been rebalancing for {now.at - before.at:.0f} s and more: a member does not answer"
        mend = _stopped(kept, name) or f"millrace groups describe {name}    # restart who has no partitions there"
        yield Finding("groups", "group-stuck", "error", what, mend)
        return
    problems: list[Said] = [*_unowned(patient, now), *_behind(patient, before, now, kept)]
    owners = f"{len(now.group.members)} member(s), {waiting:,} records behind"
    yield from problems or [Fine("groups", f"{name}: {now.group.state.lower()}, {owners}, not growing")]


def _lost(patient: Patient, now: Look) -> Iterator[Finding]:
    """Records that the broker dropped before anybody took them."""
    for one in now.group.positions if now.group is not None else ():
        if one.tp.topic in patient.sources and one.lost:
            what = (
                f"{one.tp.topic}[{one.tp.partition}] begins at {one.first:,}, but {patient.name} has only come to "
                f"{one.committed:,}: {one.lost:,} records were deleted before they were counted"
            )
            yield Finding("groups", "records-lost", "error", what, f"{patient.replay}    # with what is left")


def _unowned(patient: Patient, now: Look) -> Iterator[Finding]:
    assert now.group is not None
    if now.group.state != "STABLE":
        return
    owned = {tp for member in now.group.members for tp in member.partitions}
    for source in patient.topology.group.sources:
        free = [number for number in range(source.topic.partitions) if TP(source.topic.name, number) not in owned]
        if free:
            what = f"{source.topic.name}: nobody in group {patient.name} has partition(s) {', '.join(map(str, free))}"
            yield Finding("groups", "partition-unowned", "error", what, patient.worker)


def _behind(patient: Patient, before: Look, now: Look, kept: Sequence[Kept]) -> Iterator[Finding]:
    assert now.group is not None
    then, later = before.behind(patient.sources), now.behind(patient.sources)
    seconds = max(now.at - before.at, 0.001)
    owners = {tp: member for member in now.group.members for tp in member.partitions}
    both = then.keys() & later.keys()
    still = sorted(tp for tp in both if later[tp][0] == then[tp][0] and then[tp][1] > then[tp][0])
    if still and seconds > 0.5:
        waiting = sum(later[tp][1] - later[tp][0] for tp in still)
        who = ", ".join(sorted({owners[tp].name for tp in still if tp in owners})) or "nobody"
        told = ", ".join(f"{tp.topic}[{tp.partition}]" for tp in still[:4]) + (", ..." if len(still) > 4 else "")
        what = f"{waiting:,} records of {told} wait for {who} of {patient.name}: none was taken in {seconds:.1f} s"
        mend = _stopped(kept, patient.name) or f"millrace groups describe {patient.name}    # then restart {who}"
        yield Finding("lag", "lag-standing", "error", what, mend)
        return
    came = sum(later[tp][1] - then[tp][1] for tp in both)
    taken = sum(later[tp][0] - then[tp][0] for tp in both)
    behind = sum(later[tp][1] - later[tp][0] for tp in both)
    if grows(came, taken, behind):
        what = (
            f"{patient.name} is {behind:,} records behind, and it grows: {came / seconds:,.0f}/s come, "
            f"{taken / seconds:,.0f}/s are taken"
        )
        yield Finding("lag", "lag-growing", "error", what, _faster(patient, now))


def grows(came: int, taken: int, behind: int) -> bool:
    """Whether a lag grows: less is taken than comes, and more is open than what a flush leaves open.

    >>> grows(came=3_000, taken=2_950, behind=150), grows(3_000, 1_000, 20_000), grows(3_000, 9_000, 20_000)
    (False, True, False)
    """
    return taken < 0.9 * came and behind > came


def _faster(patient: Patient, now: Look) -> str:
    assert now.group is not None
    partitions = max(source.topic.partitions for source in patient.topology.sources.values())
    if len(now.group.members) < partitions:
        return f"{patient.worker}    # one more: {len(now.group.members)} share {partitions} partitions"
    return "millrace bench throughput    # each partition has a worker: more needs a faster machine, or more partitions"


def _stopped(kept: Sequence[Kept], group: str) -> str | None:
    """The command that wakes a worker of this machine that was stopped (Ctrl-Z, SIGSTOP), if there is one."""
    pids = sorted({one.holder.pid for one in kept if one.group == group and one.holder and one.holder.stopped})
    return f"kill -CONT {' '.join(map(str, pids))}" if pids else None
