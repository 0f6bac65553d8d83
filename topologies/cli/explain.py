"""`millrace explain`: what a number comes from, and with `--recount` whether the log still says so."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import msgspec
import typer

from streams.errors import MillraceError
from streams.log import LogError
from streams.rereading import Rereader
from tables.recount import Recount, Wanted, recount
from tables.table import Group
from topologies.cli.completing import topologies
from topologies.cli.options import Bootstrap, Home, Json
from topologies.demo.client import Client
from topologies.loading import OURS, load_topology
from topologies.recounting import AGREE, DIFFER, Verdict, how, overall, verdicts
from topologies.settings import Settings
from topologies.versions.loading import load_version
from topologies.versions.register import read_register
from topologies.views.hosting import read_group

By = Annotated[str | None, typer.Option("--by", help="Of which sales table: total, category, region or product.")]
TableName = Annotated[str | None, typer.Option("--table", help="Of which table, instead of --by.")]
Key = Annotated[str, typer.Option("--key", help="Whose number, such as books.")]
Window = Annotated[str, typer.Option("--window", help="When the window begins, as ISO-8601 or epoch ms.")]
Size = Annotated[str | None, typer.Option("--size", help="How long it is, such as 5m; else the table's slice.")]
SampleSize = Annotated[int, typer.Option("--sample", help="Show so many events of each partition.", min=0, max=100)]
Again = Annotated[bool, typer.Option("--recount", help="Read the source again and compare.")]
Url = Annotated[str | None, typer.Option("--url", help="The view server; else the one on this machine.")]
TopologyNames = Annotated[
    list[str] | None,
    typer.Option("--topology", help=f"Yours, as module:attribute; else {', '.join(OURS)}.", autocompletion=topologies),
]


def register(app: typer.Typer) -> None:
    """Add `explain` to `millrace`."""
    app.command(
        "explain", epilog="Example: millrace explain --by category --key books --window 2026-01-01T12:00:00Z --recount"
    )(explain)


def explain(
    key: Key,
    window: Window,
    by: By = None,
    table: TableName = None,
    size: Size = None,
    sample: SampleSize = 3,
    again: Again = False,
    url: Url = None,
    topology: TopologyNames = None,
    json: Json = False,
    bootstrap: Bootstrap = None,
    home: Home = None,
) -> None:
    """Tell which partitions, offsets and events a number comes from, as a view server has it.

    With --recount the source is read again, from where it is certain what was late, seen before or sent back, and
    counted by the same rules: exit code 1 if that differs, 3 if the log does not tell any more.
    """
    settings = Settings.from_environment(bootstrap=bootstrap, home=home)
    asked = {"by": by, "table": table, "key": key, "window": window, "size": size, "sample": sample}
    found = ask(url or f"http://127.0.0.1:{settings.views_port}", settings.read_token, asked)
    started = time.perf_counter()
    result: dict[str, Any] | None = None
    said: list[Verdict] = []
    if again:
        group = _group(found["topology"], topology or list(OURS), settings)
        said = _recounted(group, found, settings)
        result = {
            "verdict": overall(said),
            "partitions": [asdict(one) for one in said],
            "compared": how(group, found["table"]),
            "seconds": round(time.perf_counter() - started, 2),
        }
    if json:
        typer.echo(msgspec.json.encode({**found, **({"recount": result} if result else {})}))
    else:
        for line in [*told(found), *told_again(said, result)]:
            typer.echo(line)
    if result and result["verdict"] != AGREE:
        raise typer.Exit(1 if result["verdict"] == DIFFER else 3)


def ask(url: str, token: str | None, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the view server answers. Raises MillraceError for a problem, or when none answers."""
    try:
        found = Client(url.rstrip("/"), token).get(
            "/api/explain", **{name: value for name, value in asked.items() if value is not None}
        )
    except OSError as error:
        raise MillraceError(
            f"no view server answers at {url}: start one with `millrace views`, or give --url"
        ) from error
    if "partials" not in found:
        raise MillraceError(str(found.get("detail", found)))
    return found


def _group(name: str, topologies: Sequence[str], settings: Settings) -> Group:
    for one in topologies:
        found = load_topology(one, settings)
        if found.name == name:
            return read_group(found)
        if name.startswith(f"{found.name}."):
            register = read_register(settings.cluster, settings.prefix)
            return read_group(load_version(found, name.removeprefix(f"{found.name}."), settings, register))
    raise MillraceError(f"the number is of topology {name}, which is none of these here: name it with --topology")


def _recounted(group: Group, explained: Mapping[str, Any], settings: Settings) -> list[Verdict]:
    try:
        with Rereader(settings.cluster) as reader:

            def count(wanted: Wanted) -> Recount:
                return recount(reader, wanted)

            return verdicts(group, explained, count)
    except LogError as error:
        raise MillraceError(f"the source cannot be read: {error}") from error


def told(found: Mapping[str, Any]) -> list[str]:
    """An explained number, for people."""
    kind = "provisional: events may still come" if found["provisional"] else "final"
    lines = [
        f"{found['table']} {found['key']!r}, {found['start']} to {found['end']}, {kind}",
        f"  {_results(found['results'])}, of {found['events']:,} events",
    ]
    for part in found["partials"]:
        lines.append(
            f"{part['topic']}[{part['partition']}] offsets {part['firstOffset']} to {part['lastOffset']}, "
            f"{part['events']:,} events: {_results(part['results'])}"
        )
        for one in part["sample"]:
            lines.append(f"  {one['offset']}  {one['time']}  {msgspec.json.encode(one['value']).decode()}")
    return lines + ([f"no samples: {found['sampleProblem']}"] if found["sampleProblem"] else [])


def told_again(said: Sequence[Verdict], result: Mapping[str, Any] | None) -> list[str]:
    """What counting again came to, for people."""
    if result is None:
        return []
    lines = []
    for one in said:
        if one.reason:
            lines.append(f"recounted [{one.partition}]: unknown, {one.reason}")
            continue
        read = f"{one.records:,} records read from offset {one.began}"
        if one.what:
            counted = "nothing" if one.counted is None else _results(one.counted["results"])
            lines.append(f"recounted [{one.partition}]: DIFFERS in {', '.join(one.what)}, counted {counted}; {read}")
        else:
            lines.append(f"recounted [{one.partition}]: agrees; {read}")
    inexact = [f"{name} {way}" for name, way in result["compared"].items() if way != "exact"]
    exact = "; every column exact" if not inexact else f"; exact, but {', '.join(inexact)}"
    return [*lines, f"recount: {result['verdict']} ({result['seconds']} s{exact})"]


def _results(results: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{name} {_short(value)}" for name, value in results.items())
    return shown or "nothing"


def _short(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 120 else f"{text[:117]}..."
