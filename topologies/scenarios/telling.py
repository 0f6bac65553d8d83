"""A scenario as text and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from topologies.scenarios.acts import Act, Closing, Death, Opening, Spreading, Stage
from topologies.scenarios.ownership import Ownership
from topologies.scenarios.plan import Plan


def count(number: int, what: str) -> str:
    """A number of things.

    >>> count(1, "consumer"), count(1_200, "record")
    ('1 consumer', '1,200 records')
    """
    return f"{number:,} {what}{'s' * (number != 1)}"


def lines(act: Act, plan: Plan) -> list[str]:
    """What an act says; spreads are a table, and have a row instead."""
    if isinstance(act, Opening):
        who = f"{count(plan.producers, 'producer')}, {count(plan.partitions, 'partition')}"
        return [f"{plan.name}: {who}, {count(plan.consumers, 'consumer')}; {act.topic} on {act.bootstrap}"]
    if isinstance(act, Stage):
        head = f"{count(act.consumers, 'consumer')}, {count(act.partitions, 'partition')}: {act.relation}"
        return ["", f"{head} (settled in {act.seconds:.1f} s)", *owned(act.ownership)]
    if isinstance(act, Death):
        return ["", *_died(act)]
    if isinstance(act, Closing):
        return ["", f"topic and group {act.topic} are deleted"]
    return []


def owned(found: Ownership) -> list[str]:
    """Who owns what, one line a member."""
    width = max((len(name) for name in found.owners), default=0)
    told = [f"  {name:<{width}}  {_listed(numbers)}" for name, numbers in found.working.items()]
    return told + [f"  {name:<{width}}  idle: each partition has one owner, and all have one" for name in found.idle]


def columns(plan: Plan) -> tuple[str, ...]:
    """The heads of the spreads' table: partitions one by one while there is room."""
    parts = tuple(f"p{number}" for number in range(plan.partitions)) if _fits(plan) else ("least", "most")
    return ("partitioner", *parts, "keys", "in one partition", "read in order")


def row(act: Spreading, plan: Plan) -> tuple[object, ...]:
    """One spread in that table."""
    counts = act.spread.counts if _fits(plan) else (min(act.spread.counts), max(act.spread.counts))
    return (act.partitioner.rpartition(":")[2], *counts, act.spread.keys, act.spread.in_one, act.spread.in_order)


def readers(acts: Sequence[Spreading]) -> list[str]:
    """How many records each consumer read in all."""
    if not acts:
        return []
    sums = {name: sum(act.read_by[name] for act in acts) for name in acts[0].read_by}
    return ["read by " + ", ".join(f"{name} {number:,}" for name, number in sums.items())]


def as_dict(act: Act) -> dict[str, Any]:
    """An act as JSON has it."""
    if isinstance(act, Stage):
        told = {"consumers": act.consumers, "partitions": act.partitions, "relation": act.relation}
        return {**told, **_ownership(act.ownership), "seconds": round(act.seconds, 3)}
    if isinstance(act, Spreading):
        spread = act.spread
        lay = {
            "counts": spread.counts,
            "keys": spread.keys,
            "inOnePartition": spread.in_one,
            "inOrder": spread.in_order,
        }
        return {"partitioner": act.partitioner, "sent": act.sent, **lay, "readBy": dict(act.read_by)}
    if isinstance(act, Death):
        told = {name: value for name, value in asdict(act).items() if name not in ("ownership", "out_of_order")}
        told["keysOutOfOrder"] = act.out_of_order
        rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in told.items()}
        return {**rounded, **_ownership(act.ownership), "moved": {str(p): owner for p, owner in act.moved.items()}}
    return asdict(act)


def _ownership(found: Ownership) -> dict[str, Any]:
    return {"owners": {name: list(numbers) for name, numbers in sorted(found.owners.items())}, "idle": found.idle}


def _died(act: Death) -> list[str]:
    moved = ", ".join(f"{partition} to {owner}" for partition, owner in act.moved.items())
    return [
        f"{act.consumer} (process {act.pid}), owner of {_listed(act.owned)}, is killed while records come",
        f"  {act.noticed_s:4.1f} s  the broker takes it for dead; until then nobody reads {_listed(act.owned)}",
        f"  {act.settled_s:4.1f} s  its partitions have moved: {moved}",
        *owned(act.ownership),
        f"  of {act.sent:,} records {act.lost:,} are lost, {act.again:,} were read twice; "
        f"keys out of order: {act.out_of_order:,}",
        f"  longest wait: {act.waited_s:.1f} s in its partitions, {act.others_waited_s:.1f} s in the others",
    ]


def _fits(plan: Plan) -> bool:
    return plan.partitions <= 12


def _listed(numbers: Sequence[int]) -> str:
    """Partitions, runs of them shortened.

    >>> _listed((0, 1, 2, 5))
    '0-2 5'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return " ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else " ".join(map(str, run)) for run in runs)
