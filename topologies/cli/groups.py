"""`millrace groups`: who reads what, how far behind, and setting a group that stands still to another place."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import orjson
import typer

from streams.admin.connection import Admin
from streams.admin.groups import GroupState, Member, Position, describe_group, list_groups
from streams.admin.resetting import Move, Target, execute, plan
from streams.admin.topics import describe_topics, topic_names
from streams.errors import MillraceError
from topologies.cli.completing import groups as known_groups
from topologies.cli.options import Bootstrap, Home, Json
from topologies.cli.showing import print_table
from topologies.cli.times import moment_or_ago
from topologies.loading import OURS, load_topology
from topologies.settings import Settings

groups = typer.Typer(help="Consumer groups: list and describe them, and set their positions.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="GROUP", help="Its name.", autocompletion=known_groups)]
Names = Annotated[list[str], typer.Argument(metavar="GROUP...", help="Their names.", autocompletion=known_groups)]
Topics = Annotated[
    list[str] | None,
    typer.Option("--topic", help="Only this topic, or `topic:0,2` of its partitions; may be given again."),
]
Earliest = Annotated[bool, typer.Option("--to-earliest", help="To the first offset that is there.")]
Latest = Annotated[bool, typer.Option("--to-latest", help="To the end: what is there is passed over.")]
AtTime = Annotated[
    str | None, typer.Option("--to-datetime", help="To the first record of this time: ISO-8601, epoch ms, 15m (ago).")
]
AtOffset = Annotated[int | None, typer.Option("--to-offset", min=0, help="To this offset, or the nearest there is.")]
Shift = Annotated[
    int | None, typer.Option("--shift-by", help="So many offsets forward; back if negative: --shift-by=-100.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done; it is so without this, too.")]
Execute = Annotated[bool, typer.Option("--execute", help="Do it.")]


def register(app: typer.Typer) -> None:
    """Add `groups` to `millrace`."""
    app.add_typer(groups, name="groups")


@groups.command("list", epilog="Example: millrace groups list")
def list_(bootstrap: Bootstrap = None, home: Home = None, json: Json = False) -> None:
    """Show every consumer group, its state and how many members it has."""
    found = list_groups(Admin(Settings.from_environment(bootstrap=bootstrap, home=home).cluster))
    if json:
        rows = [{"group": g.name, "state": g.state, "kind": g.kind, "members": g.members} for g in found]
        typer.echo(orjson.dumps({"groups": rows}))
        return
    print_table(("group", "state", "kind", "members"), [(g.name, g.state.lower(), g.kind, g.members) for g in found])


@groups.command(epilog="Example: millrace groups describe order-analytics-group")
def describe(names: Names, bootstrap: Bootstrap = None, home: Home = None, json: Json = False) -> None:
    """Show a group's members, and for each partition who has it, how far it has come and how far behind it is."""
    admin = Admin(Settings.from_environment(bootstrap=bootstrap, home=home).cluster)
    found = [describe_group(admin, name) for name in names]
    if json:
        typer.echo(orjson.dumps({"groups": [_group(one) for one in found]}))
        return
    tables = {name for name in names if keeps_own_positions(admin, name)}
    for number, one in enumerate(found):
        typer.echo("\n" * bool(number) + _headline(one))
        rows = [
            (*p.tp, p.committed, p.end, p.lag, p.owner.name if p.owner else None, p.owner.host if p.owner else None)
            for p in one.positions
        ]
        print_table(("topic", "partition", "committed", "end", "lag", "member", "host"), rows)
        for line in _remarks(one, one.name in tables):
            typer.echo(line)


@groups.command(epilog="Example: millrace groups reset reports --topic order-events --to-datetime 2h --execute")
def reset(
    group: Name,
    topic: Topics = None,
    to_earliest: Earliest = False,
    to_latest: Latest = False,
    to_datetime: AtTime = None,
    to_offset: AtOffset = None,
    shift_by: Shift = None,
    dry_run: DryRun = False,
    do: Execute = False,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Set where a group goes on: in all topics that it reads, or in those named. It must have no members."""
    target = _target(to_earliest, to_latest, to_datetime, to_offset, shift_by)
    if dry_run and do:
        raise typer.BadParameter("give one of --dry-run and --execute")
    settings = Settings.from_environment(bootstrap=bootstrap, home=home)
    admin = Admin(settings.cluster)
    if keeps_own_positions(admin, group):
        raise MillraceError(
            f"group {group!r} keeps its positions with its tables (in {progress_topic(group)}), and would refuse to "
            f"start elsewhere: set both back with `millrace replay {topology_of(group, settings)} --from ...`"
        )
    moves = plan(admin, group, target, _chosen(topic))
    if do:
        execute(admin, group, moves)
    if json:
        rows = [{"topic": m.tp.topic, "partition": m.tp.partition, "before": m.before, "after": m.after} for m in moves]
        typer.echo(orjson.dumps({"group": group, "executed": do, "offsets": rows}))
        return
    print_table(("topic", "partition", "before", "after", "end"), [(*m.tp, m.before, m.after, m.end) for m in moves])
    typer.echo(_said(group, moves, do))


def topology_of(group: str, settings: Settings) -> str:
    """What `millrace replay` calls the topology of a group; of one that is not ours, what is to be put there."""
    ours = (name for name in OURS if load_topology(name, settings).group.name == group)
    return next(ours, "TOPOLOGY")


def progress_topic(group: str) -> str:
    """The topic in which a group of ours says how far its tables are complete (`tables.table.Group.progress`)."""
    return f"{group}-progress"


def keeps_own_positions(admin: Admin, group: str) -> bool:
    """Whether a group's tables say themselves what they contain, so that its offsets alone must not be set."""
    name = progress_topic(group)
    if name not in topic_names(admin):
        return False
    # somebody else's topic may be called so; what says the newest position of each partition is compacted
    return describe_topics(admin, [name])[0].config.get("cleanup.policy") == "compact"


def _target(earliest: bool, latest: bool, at: str | None, offset: int | None, shift: int | None) -> Target:
    given = [
        *([Target("earliest")] if earliest else []),
        *([Target("latest")] if latest else []),
        *([Target("datetime", moment_or_ago(at, "--to-datetime"))] if at is not None else []),
        *([Target("offset", offset)] if offset is not None else []),
        *([Target("shift", shift)] if shift is not None else []),
    ]
    if len(given) != 1:
        raise typer.BadParameter("give one of --to-earliest, --to-latest, --to-datetime, --to-offset and --shift-by")
    return given[0]


def _chosen(topics: Iterable[str] | None) -> dict[str, Sequence[int] | None]:
    chosen: dict[str, Sequence[int] | None] = {}
    for text in topics or ():
        name, colon, numbers = text.partition(":")
        try:
            chosen[name] = [int(one) for one in numbers.split(",")] if colon else None
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not a topic, or topic:0,2 for some of its partitions") from None
    return chosen


def _said(group: str, moves: Sequence[Move], done: bool) -> str:
    again = sum(max(0, move.again) for move in moves)
    passed = sum(max(0, -move.again) for move in moves)
    what = f"{again:,} offsets come again, {passed:,} are passed over"
    return f"group {group} is set: {what}" if done else f"nothing is changed ({what}): add --execute to do it"


def _headline(one: GroupState) -> str:
    parts = [one.state.lower(), f"{len(one.members)} member(s)", f"lag {one.lag:,}"]
    return f"{one.name}  {', '.join(parts)}" + (f", assigned by {one.assignor}" if one.assignor else "")


def _remarks(one: GroupState, with_tables: bool) -> Iterable[str]:
    idle = [member.name for member in one.members if not member.partitions]
    if idle:
        yield f"without a partition: {', '.join(idle)}"
    for position in one.positions:
        if position.lost:
            yield f"{position.tp.topic}[{position.tp.partition}]: {position.lost:,} offsets were let go before it came"
    if one.lag:
        yield f"{one.lag:,} records behind: `millrace doctor` looks twice, and tells whether that grows"
    if with_tables:
        yield f"its tables keep positions of their own in {progress_topic(one.name)}: `millrace replay` sets both back"


def _group(one: GroupState) -> dict[str, Any]:
    return {
        "group": one.name,
        "state": one.state,
        "kind": one.kind,
        "assignor": one.assignor,
        "coordinator": one.coordinator,
        "lag": one.lag,
        "members": [_member(member) for member in one.members],
        "positions": [_position(position) for position in one.positions],
    }


def _member(one: Member) -> dict[str, Any]:
    return {
        "id": one.id,
        "instance": one.instance,
        "client": one.client,
        "host": one.host,
        "partitions": [{"topic": tp.topic, "partition": tp.partition} for tp in one.partitions],
    }


def _position(one: Position) -> dict[str, Any]:
    return {
        "topic": one.tp.topic,
        "partition": one.tp.partition,
        "committed": one.committed,
        "first": one.first,
        "end": one.end,
        "lag": one.lag,
        "member": one.owner.id if one.owner else None,
    }
