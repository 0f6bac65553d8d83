"""`millrace doctor`: what is wrong with the cluster, the groups, this machine, and what mends it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.text import Text

from streams.cluster import Cluster
from streams.errors import MillraceError
from topologies.cli.completing import topologies
from topologies.cli.options import Bootstrap, DatabaseUrl, Home, Json
from topologies.doctor.database import OrderDatabase
from topologies.doctor.examination import Examination, Tell
from topologies.doctor.finding import Report
from topologies.doctor.patient import Patient
from topologies.loading import OURS, load_topology
from topologies.orders.database import database_url
from topologies.settings import Settings, find_cluster, home_directory

FOUND = 3
# Kafka's own default address; nothing is asked of it, where there is no cluster to ask.
NOWHERE = Cluster("localhost:9092")
COLOURS = {"ok": "green", "skipped": "dim", "error": "red", "warning": "yellow"}

TopologyNames = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TOPOLOGY]...",
        help=f"Which ones: {', '.join(OURS)}, or yours as module:attribute; else those of ours that have run here.",
        autocompletion=topologies,
    ),
]
State = Annotated[Path | None, typer.Option("--state", help="State directory; else MILLRACE_STATE.")]
Port = Annotated[int | None, typer.Option("--port", help="Of the view server; else MILLRACE_VIEWS_PORT, else 8090.")]
Wait = Annotated[
    float,
    typer.Option(
        "--wait",
        help="Seconds between the two looks at the lag and at the outbox.",
        min=0.5,
        max=300,
        show_default=True,
    ),
]


def register(app: typer.Typer) -> None:
    """Add `doctor` to `millrace`."""
    app.command("doctor", epilog="Example: millrace doctor || millrace doctor --json | jq -r '.findings[].mend'")(
        doctor
    )


def doctor(
    topology: TopologyNames = None,
    wait: Wait = 3.0,
    state: State = None,
    port: Port = None,
    database: DatabaseUrl = None,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Look for what is wrong, and name the command that mends it. Exit code 0: nothing was found, 3: something was.

    Brokers, topics, groups and their lag, the state directory, disks, packages, the clock, the order database and its
    outbox, the view server's port. To see the brokers' clock it makes a topic of one record, and deletes it; it changes
    nothing else.
    """
    directory = home or home_directory(os.environ)
    cluster = _cluster(bootstrap, directory)
    settings = Settings.from_environment(cluster=cluster or NOWHERE, home=home, state_dir=state, views_port=port)
    named = [Patient(name, load_topology(name, settings)) for name in topology or ()]
    others = [] if topology else [Patient(name, load_topology(name, settings)) for name in OURS]
    url = database_url(database, os.environ, directory)
    orders = OrderDatabase(url, named=(database or home) is not None)
    console = Console(stderr=True)
    with _shown(console) as tell:
        report = Examination(settings, cluster, named, others, orders, wait, tell).run()
    if json:
        typer.echo(orjson.dumps(report.as_dict()))
    else:
        _print(report)
    if not report.healthy:
        raise typer.Exit(FOUND)


def _cluster(bootstrap: str | None, directory: Path) -> Cluster | None:
    """The cluster that is named or embedded; None where none is named and none runs."""
    try:
        return find_cluster(os.environ, directory, bootstrap)
    except MillraceError:
        if bootstrap or os.environ.get("MILLRACE_BOOTSTRAP"):
            raise
        return None


@contextmanager
def _shown(console: Console) -> Iterator[Tell]:
    with console.status("Looking") as status:
        yield lambda what: status.update(f"Looking at {what}")


def _print(report: Report) -> None:
    console = Console()
    for line in report.lines():
        text = Text(line)
        word = line.split(" ", 1)[0]
        if word in COLOURS:
            text.stylize(COLOURS[word], 0, len(word))
        console.print(text, soft_wrap=True)
