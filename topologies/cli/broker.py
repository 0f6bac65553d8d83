"""`millrace broker`: the embedded Apache Kafka, started, found, read, stopped and wiped."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from streams.broker import Broker, BrokerStatus, Download
from streams.broker.jars import KAFKA_VERSION, Report, classpath
from streams.cluster import Cluster
from streams.errors import MillraceError
from topologies.cli.options import Home, Json
from topologies.settings import home_directory

broker = typer.Typer(
    help="Start, find, stop and wipe the embedded Apache Kafka: the real one, from Python packages alone.",
    no_args_is_help=True,
)

Nodes = Annotated[
    int | None, typer.Option("--nodes", help="1, or 3 with every topic on all of them; else as it was, or 1.")
]
Node = Annotated[int, typer.Option("--node", help="Which node's log, from 1.")]
Lines = Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")]
Wipe = Annotated[bool, typer.Option("--wipe", help="Also delete its topics, offsets, logs and addresses.")]


def register(app: typer.Typer) -> None:
    """Add `broker` to `millrace`."""
    app.add_typer(broker, name="broker")


@broker.command(epilog="Example: millrace broker up --nodes 3 --home ~/three")
def up(nodes: Nodes = None, home: Home = None, json: Json = False) -> None:
    """Start it, or what of it does not run, and return when it answers. Data of the last time is kept."""
    embedded = _embedded(home, nodes)
    began = time.monotonic()
    bring_up(embedded)
    _print_status(embedded, json, seconds=round(time.monotonic() - began, 2))


@broker.command(epilog="Example: millrace broker fetch")
def fetch(json: Json = False) -> None:
    """Download what `up` needs, if it is not on this machine yet."""
    with _download_shown() as report:
        jars = classpath(report)
    if json:
        typer.echo(orjson.dumps({"kafka": KAFKA_VERSION, "jars": [str(jar) for jar in jars]}))


@broker.command(epilog="Example: millrace broker status --json")
def status(home: Home = None, json: Json = False) -> None:
    """Say where it listens, which processes it is, and how much it keeps."""
    _print_status(_embedded(home), json)


@broker.command(epilog="Example: millrace broker logs --follow")
def logs(node: Node = 1, lines: Lines = 50, follow: Follow = False, home: Home = None, json: Json = False) -> None:
    """Print the end of a node's log; with --json one object a line."""
    path = _embedded(home).log_path(node)
    if not path.exists():
        raise MillraceError(f"there is no log {path}: start the broker with `millrace broker up`")
    with path.open(errors="replace") as log:
        for line in log.readlines()[-lines:]:
            _print_line(node, line, json)
        while follow:
            for line in iter(log.readline, ""):
                _print_line(node, line, json)
            time.sleep(0.2)


def _print_line(node: int, line: str, json: bool) -> None:
    typer.echo(orjson.dumps({"node": node, "line": line.rstrip("\n")}) if json else line, nl=json)


@broker.command(epilog="Example: millrace broker down --wipe")
def down(wipe: Wipe = False, home: Home = None, json: Json = False) -> None:
    """Stop it. Its data stays for the next start, unless --wipe is given."""
    embedded = _embedded(home)
    embedded.down(wipe=wipe)
    _print_status(embedded, json)
    state = Path(os.environ.get("MILLRACE_STATE") or (home or home_directory(os.environ)) / "state")
    if wipe and state.exists():
        typer.echo(f"What workers kept of its topics is in their way now: rm -r {state}", err=True)


def bring_up(embedded: Broker) -> Cluster:
    """Start a broker, showing on stderr what is downloaded if this is the machine's first start."""
    with _download_shown() as report:
        return embedded.up(report)


def _embedded(home: Path | None, nodes: int | None = None) -> Broker:
    return Broker(home or home_directory(os.environ), nodes)


@contextmanager
def _download_shown() -> Iterator[Report]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[mb]} MB"))
    console = Console(stderr=True)
    progress = Progress(*columns, TimeElapsedColumn(), console=console)
    task = progress.add_task("Finding files", total=None, mb="0")

    def report(download: Download) -> None:
        if not download.files:
            console.print("Downloading Apache Kafka (45 MB) from Maven Central, once.", highlight=False)
            progress.start()
            return
        progress.update(
            task,
            description=f"{download.files_done} of {download.files} files",
            total=download.files,
            completed=download.files_done,
            mb=f"{download.bytes_done / 1e6:.0f}",
        )

    try:
        yield report
    finally:
        progress.stop()


def _print_status(embedded: Broker, json: bool, **more: Any) -> None:
    found = embedded.status()
    if json:
        typer.echo(orjson.dumps({**_as_dict(found), **more}))
        return
    running = sum(node.pid is not None for node in found.nodes)
    if not found.nodes:
        typer.echo("There is no broker; `millrace broker up` starts one.")
    elif not running:
        typer.echo(f"Stopped, {found.data_bytes / 1e6:.1f} MB kept in {found.directory}.")
    else:
        took = f", up in {more['seconds']} s" if "seconds" in more else ""
        typer.echo(f"Apache Kafka {found.kafka} at {found.bootstrap}{took}")
        typer.echo(f"{running} of {len(found.nodes)} node(s) run, {found.data_bytes / 1e6:.1f} MB kept.")
        for node in found.nodes:
            what = f"pid {node.pid}, {node.resident_bytes / 1e6:.0f} MB" if node.pid else "does not run"
            typer.echo(f"  node {node.node}  {node.address}  {what}")


def _as_dict(found: BrokerStatus) -> dict[str, Any]:
    return {
        "kafka": found.kafka,
        "bootstrap": found.bootstrap,
        "running": found.bootstrap is not None,
        "directory": str(found.directory),
        "data_bytes": found.data_bytes,
        "nodes": [
            {
                "node": node.node,
                "address": node.address,
                "pid": node.pid,
                "resident_bytes": node.resident_bytes,
            }
            for node in found.nodes
        ],
    }
