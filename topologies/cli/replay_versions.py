"""`millrace replay <topology> --as`, `diff`, `switch`, `rollback`, `drop`, `list`: versions beside the live one."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
import typer

from streams.errors import MillraceError
from streams.log import LogError
from topologies.cli.options import Bootstrap, Home, Json
from topologies.loading import OURS
from topologies.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from topologies.topology import Topology
    from topologies.versions.building import Standing, Wanted
    from topologies.versions.comparing import Compared, Comparison, Differing
    from topologies.versions.listing import Listed
    from topologies.versions.register import Register, Seen
    from topologies.versions.switching import Switched

FOUND: Final = 3
BOUND_S: Final = 1.5

State = Annotated[Path | None, typer.Option("--state", help="State directory; else MILLRACE_STATE, else in the home.")]
Named = Annotated[
    str | None,
    typer.Option("--topology", help="Which topology, where several have versions: analytics, or module:attribute."),
]
Name = Annotated[str, typer.Argument(help="A version, such as v2.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `millrace replay`: under `topologies.cli.replay.BESIDE` the one that takes `--as`."""
    from topologies.cli.replay import BESIDE

    example = "Example: millrace replay"
    app.command(BESIDE, epilog=f"{example} analytics --as v2 --load my_sales:topology")(build)
    app.command("list", epilog=f"{example} list")(list_versions)
    app.command("diff", epilog=f"{example} diff v1 v2")(diff)
    app.command("switch", epilog=f"{example} switch v2")(switch)
    app.command("rollback", epilog=f"{example} rollback")(rollback)
    app.command("drop", epilog=f"{example} drop v1")(drop)


def build(
    topology: Annotated[str, typer.Argument(help=f"One of {', '.join(OURS)}, or yours as module:attribute.")],
    version: Annotated[str, typer.Option("--as", help="The new version's name: v2, v3, ...")],
    load: Annotated[
        str | None,
        typer.Option("--load", help="What it is made of, as module:attribute; else the topology as it is now."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="How many workers build it.", min=1)] = 1,
    bound: Annotated[
        float, typer.Option("--give-way", help="How many seconds the served version may be behind meanwhile.", min=0.2)
    ] = BOUND_S,
    once: Annotated[bool, typer.Option("--once", help="End when it has caught up, instead of following on.")] = False,
    json: Json = False,
    state: State = None,
    bootstrap: Bootstrap = None,
    home: Home = None,
) -> None:
    """Build a second version of a topology beside the one that is served, from the beginning of its sources.

    It has a group, state and topics of its own, and gives way to the served version. When it has caught up it follows
    on until Ctrl-C; the same command goes on where it was.
    """
    from rich.console import Console

    from topologies.cli.ending import INTERRUPTED, ended_by_signals
    from topologies.demo.processes import Children
    from topologies.versions import building

    settings = Settings.from_environment(bootstrap=bootstrap, home=home, state_dir=state)
    console = Console(stderr=True)
    wanted = building.plan(topology, version, settings, load)
    for tp, first in sorted(building.lost_before(wanted).items()):
        console.print(
            f"{tp.topic}\\[{tp.partition}] begins at offset {first:,}: {version} will not have what was before",
            soft_wrap=True,
        )
    building.begin(wanted)
    logs = settings.home / "logs"
    console.print(f"Building {version} of {topology} as group {wanted.topology.name}; logs in {logs}", soft_wrap=True)
    with ended_by_signals(INTERRUPTED), Children(logs, settings.variables()) as children:
        building.start_workers(children, wanted, workers, bound)
        began = time.monotonic()
        standing = _followed(wanted, children, console)
        told = {
            "version": version,
            "group": wanted.topology.name,
            "seconds": round(time.monotonic() - began, 2),
            "records": sum(standing.done(tp) for tp in standing.held),
            "behind": standing.left,
        }
        typer.echo(orjson.dumps(told) if json else _built(told, topology))
        if not once:
            console.print("It follows on; Ctrl-C ends that.")
            with suppress(KeyboardInterrupt):  # how it is meant to end
                while True:
                    time.sleep(1)
                    children.check()


def _followed(wanted: "Wanted", children: Any, console: "Console") -> "Standing":
    """Show how far it is until it has caught up."""
    from topologies.cli.catching_up import CatchingUp
    from topologies.versions.building import watch

    with CatchingUp(console) as shown:
        for standing in watch(wanted):
            children.check()
            shown.show(
                {
                    f"{tp.topic}[{tp.partition}]": (standing.done(tp), one.offsets)
                    for tp, one in sorted(standing.held.items())
                    if tp.topic in wanted.sources
                }
            )
            if standing.caught_up:
                return standing
    raise AssertionError("a version is watched until it has caught up")


def _built(told: Mapping[str, Any], topology: str) -> str:
    version = told["version"]
    return (
        f"{version} has caught up: {told['records']:,} records in {told['seconds']} s, {told['behind']:,} behind now\n"
        f"compare it    millrace replay diff v1 {version}\n"
        f"serve it      millrace replay switch {version}\n"
        f"its workers   millrace worker {topology} --as {version}"
    )


def diff(
    one: Annotated[str, typer.Argument(help="A version, such as v1.")],
    other: Annotated[str, typer.Argument(help="Another one, such as v2.")],
    table: Annotated[list[str] | None, typer.Option("--table", help="Only this table; may be given again.")] = None,
    begin: Annotated[str | None, typer.Option("--from", help="First window, as ISO-8601 or epoch ms.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="End of the last window.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="Show so many differing cells.", min=0)] = 20,
    topology: Named = None,
    json: Json = False,
    bootstrap: Bootstrap = None,
    home: Home = None,
) -> None:
    """Compare every cell of every window that two versions have closed: exit code 3 if any differs."""
    from rich.console import Console

    from topologies.cli.times import moment
    from topologies.versions.comparing import compare_versions

    settings = Settings.from_environment(bootstrap=bootstrap, home=home)
    pair = [_loaded(name, topology, settings)[1] for name in (one, other)]
    span = (None if begin is None else moment(begin, "--from"), None if until is None else moment(until, "--until"))
    with _log_that_answers(), Console(stderr=True).status("Reading both versions") as status:
        found = asyncio.run(
            compare_versions(
                pair[0],
                pair[1],
                settings.cluster,
                tables=table,
                span=span,
                examples=limit,
                tell=lambda records: status.update(f"Reading both versions: {records:,} records"),
            )
        )
    if found.same and not any(table.windows for table in found.tables):
        raise MillraceError(f"no window is closed in both {one} and {other} yet, so nothing was compared")
    if json:
        typer.echo(orjson.dumps({"one": one, "other": other, "same": found.same, **asdict(found)}))
    else:
        _print_comparison(found, one, other)
    if not found.same:
        raise typer.Exit(FOUND)


@contextmanager
def _log_that_answers() -> Iterator[None]:
    try:
        yield
    except LogError as error:
        raise MillraceError(f"Kafka does not answer: {error}; see `millrace doctor`") from error


def _print_comparison(found: "Comparison", one: str, other: str) -> None:
    from topologies.cli.showing import print_table

    rows = [[table.table, *_span(table), table.windows, *table.cells, table.differing] for table in found.tables]
    print_table(["table", "from", "until", "windows", f"cells {one}", f"cells {other}", "differ"], rows)
    sums = [
        [table.table, column, *pair, pair[1] - pair[0]]
        for table in found.tables
        for column, pair in table.sums.items()
        if pair[0] != pair[1]
    ]
    if sums:
        typer.echo("\nsums that differ")
        print_table(["table", "column", one, other, "difference"], sums)
    if found.examples:
        typer.echo(f"\n{len(found.examples)} of {found.differing:,} cells that differ")
        print_table(["table", "window", "key", "column", one, other], list(map(_told, _columns(found.examples))))
    for table in found.tables:
        for name, columns in zip((one, other), table.only, strict=True):
            if columns:
                typer.echo(f"only {name} has {', '.join(columns)} in {table.table}")
    for name, tables in zip((one, other), found.only, strict=True):
        if tables:
            typer.echo(f"only {name} has the table {', '.join(tables)}")
    for note in found.notes:
        typer.echo(f"note: {note}")
    closed = sum(table.cells[0] for table in found.tables)
    typer.echo(f"\n{found.differing:,} cells differ" if found.differing else f"\nall {closed:,} closed cells agree")


def _span(table: "Compared") -> list[str | None]:
    from topologies.cli.times import shown

    return [shown(table.from_ms) if table.from_ms else None, shown(table.until_ms)]


def _columns(examples: "list[Differing]") -> "list[tuple[Differing, str]]":
    return [(cell, column) for cell in examples for column in cell.columns]


def _told(pair: "tuple[Differing, str]") -> list[object]:
    from topologies.cli.times import shown

    cell, column = pair
    values = [None if side is None else side.get(column) for side in (cell.one, cell.other)]
    return [cell.table, shown(cell.start_ms), cell.key, column, *(_short(value) for value in values)]


def _short(value: object) -> object:
    if value is None or isinstance(value, int):
        return value
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


Behind = Annotated[
    bool, typer.Option("--behind", help="Also to a version that has less of the sources than what is served now.")
]
Wait = Annotated[float, typer.Option("--wait", help="Seconds to wait for the view servers.", min=0)]


def switch(
    version: Name,
    behind: Behind = False,
    wait: Wait = 60,
    topology: Named = None,
    json: Json = False,
    bootstrap: Bootstrap = None,
    home: Home = None,
) -> None:
    """Let the view servers answer from a version: each moves when it has all that it needs, between two requests."""
    settings = Settings.from_environment(bootstrap=bootstrap, home=home)
    _, target = _loaded(version, topology, settings)
    _switched(target, settings, behind, wait, json)


def rollback(
    behind: Behind = False,
    wait: Wait = 60,
    topology: Named = None,
    json: Json = False,
    bootstrap: Bootstrap = None,
    home: Home = None,
) -> None:
    """Let the view servers answer from the version that was served before the last switch."""
    from topologies.versions.loading import load_version
    from topologies.versions.switching import previous

    settings = Settings.from_environment(bootstrap=bootstrap, home=home)
    known, first = _first(topology, settings)
    target = load_version(first, previous(known, first.name), settings, known)
    _switched(target, settings, behind, wait, json)


def _switched(target: "Topology", settings: Settings, behind: bool, wait_s: float, json: bool) -> None:
    from rich.console import Console

    from topologies.versions.switching import switch

    with _log_that_answers(), Console(stderr=True).status(f"Switching to {target.version}") as status:

        def tell(servers: "Mapping[str, Seen]") -> None:
            status.update(", ".join(_server(name, seen) for name, seen in servers.items()) or "no view server runs")

        done = switch(target, settings, behind=behind, wait_s=wait_s, tell=tell)
    typer.echo(orjson.dumps(_as_json(done)) if json else _said(done))
    if done.waiting:
        told = "; ".join(_server(name, seen) for name, seen in sorted(done.waiting.items()))
        raise MillraceError(
            f"{len(done.waiting)} of {len(done.servers)} view servers have not moved after {wait_s:g} s, and go on "
            f"trying: {told}. `millrace replay list` shows how far they are"
        )


def _server(name: str, seen: "Seen") -> str:
    waiting = f" ({seen.waiting})" if seen.waiting else ""
    return f"{name} {seen.version}" + (f" -> {seen.moving}{waiting}" if seen.moving else "")


def _as_json(done: "Switched") -> dict[str, Any]:
    servers = {
        name: {"version": seen.version, "moving": seen.moving, "waiting": seen.waiting}
        for name, seen in done.servers.items()
    }
    return {"topology": done.topology, "version": done.version, "before": done.before, "servers": servers}


def _said(done: "Switched") -> str:
    if not done.servers:
        return f"{done.version} of {done.topology} is served, in place of {done.before}; no view server runs now"
    lines = [f"{done.version} of {done.topology} is served, in place of {done.before}"]
    return "\n".join(lines + [f"  {_server(name, seen)}" for name, seen in sorted(done.servers.items())])


def drop(
    version: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    topology: Named = None,
    json: Json = False,
    state: State = None,
    bootstrap: Bootstrap = None,
    home: Home = None,
) -> None:
    """Delete a version's topics, its group and its state on this machine. What is served is not dropped."""
    from topologies.versions import dropping

    settings = Settings.from_environment(bootstrap=bootstrap, home=home, state_dir=state)
    _, target = _loaded(version, topology, settings, dropped=True)
    planned = dropping.plan_drop(target, settings)
    told = {
        "topology": target.family,
        "version": version,
        "topics": list(planned.topics),
        "group": planned.group,
        "directory": None if planned.directory is None else str(planned.directory),
    }
    if not yes:
        typer.echo(f"This deletes {len(planned.topics)} topics of {target.name}, its group and its state.", err=True)
        typer.confirm("Go on?", abort=True, err=True)
    dropping.drop(planned, settings)
    typer.echo(
        orjson.dumps(told) if json else f"{version} of {target.family} is dropped, with {len(planned.topics)} topics"
    )


def list_versions(
    topology: Named = None,
    json: Json = False,
    bootstrap: Bootstrap = None,
    home: Home = None,
) -> None:
    """Show the versions that there are: which is served, how far behind each is, and what view servers say."""
    from topologies.loading import load_topology
    from topologies.versions.listing import listed
    from topologies.versions.register import read_register

    settings = Settings.from_environment(bootstrap=bootstrap, home=home)
    known = read_register(settings.cluster, settings.prefix)
    named = None if topology is None else load_topology(topology, settings).name
    found = listed(known, settings, named)
    if json:
        typer.echo(orjson.dumps({"versions": [asdict(one) for one in found]}))
        return
    _print_versions(found)


def _print_versions(found: "list[Listed]") -> None:
    from topologies.cli.showing import print_table

    if not found:
        typer.echo("no versions but the first ones: `millrace replay analytics --as v2` makes one of analytics")
        return
    rows = [
        [one.topology, one.version, one.state, one.load, one.workers, one.behind, _since(one), ", ".join(one.servers)]
        for one in found
    ]
    print_table(["topology", "version", "state", "made of", "workers", "behind", "since", "view servers"], rows)


def _since(one: "Listed") -> str | None:
    from topologies.cli.times import shown

    return shown(one.made_ms) if one.made_ms else None


def _first(named: str | None, settings: Settings) -> "tuple[Register, Topology]":
    from topologies.versions.loading import first_version
    from topologies.versions.register import read_register

    known = read_register(settings.cluster, settings.prefix)
    return known, first_version(known, named, settings)


def _loaded(
    version: str, named: str | None, settings: Settings, *, dropped: bool = False
) -> "tuple[Register, Topology]":
    from topologies.versions.loading import load_version

    known, first = _first(named, settings)
    return known, load_version(first, version, settings, known, dropped=dropped)
