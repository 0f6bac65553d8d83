"""`millrace worker`: a Faust worker of a topology."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from topologies.cli.completing import topologies
from topologies.cli.options import Bootstrap, Home, Json, PagesHost, PagesPort
from topologies.loading import OURS, load_topology
from topologies.names import claim_port
from topologies.settings import LOOPBACK, Settings

if TYPE_CHECKING:
    from topologies.topology import Topology

TopologyName = Annotated[
    str,
    typer.Argument(
        help=f"One of {', '.join(OURS)}, or yours as module:attribute (a Topology), e.g. clicks:topology.",
        autocompletion=topologies,
    ),
]
Name = Annotated[
    str | None,
    typer.Option("--name", help="The worker's name, which brings it back at once; else the first free of w0, w1, ..."),
]
State = Annotated[Path | None, typer.Option("--state", help="State directory; workers of one host share it.")]
Version = Annotated[
    str | None, typer.Option("--as", help="Work for this version (`millrace replay`), such as v2; else for the first.")
]
GiveWay = Annotated[
    float | None,
    typer.Option(
        "--give-way", help="Take the less of a core the nearer what is served comes to being so many seconds behind."
    ),
]
Loglevel = Annotated[str, typer.Option("--loglevel", "-l", help="debug, info, warning or error.")]


def register(app: typer.Typer) -> None:
    """Add `worker` to `millrace`."""
    app.command("worker", epilog="Example: millrace worker analytics --name w1")(worker)


def worker(
    topology: TopologyName = "analytics",
    name: Name = None,
    port: PagesPort = None,
    host: PagesHost = LOOPBACK,
    state: State = None,
    version: Version = None,
    give_way: GiveWay = None,
    loglevel: Loglevel = "info",
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Consume, keep the tables, emit derived topics. Start more of them to share the partitions; Ctrl-C ends one.

    With --json one object says at its start where its pages are; everything else is log.
    """
    # Faust takes most of a second to import, which help and completion need not wait for.
    from topologies.app import build_app
    from topologies.chaos.points import install_from
    from topologies.versions import giving_way
    from topologies.versions.loading import refuse_dropped

    install_from(os.environ)
    settings = Settings.from_environment(bootstrap=bootstrap, home=home, name=name, state_dir=state)
    web_port = port if port is not None else claim_port(settings.state_dir, settings.worker_port)
    found = load_topology(topology, settings)
    if version is None:
        refuse_dropped(found, topology, settings)
    else:
        found, settings = _version(found, version, settings)
    at_a_time = {} if give_way is None else {"broker_max_poll_records": giving_way.RECORDS}
    app = build_app(found, settings, web_port=web_port, web_bind=host, **at_a_time)
    if give_way is not None:
        giving_way.give_way(app, found, settings, give_way)
    app.finalize()
    if json:
        typer.echo(orjson.dumps({"group": found.name, "url": f"http://{LOOPBACK}:{web_port}/", "pid": os.getpid()}))
    app.Worker(loglevel=loglevel).execute_from_commandline()


def _version(first: "Topology", version: str, settings: Settings) -> "tuple[Topology, Settings]":
    from topologies.versions.loading import load_version, shaped
    from topologies.versions.register import read_register

    register = read_register(settings.cluster, settings.prefix)
    found = load_version(first, version, settings, register)
    return found, shaped(settings, register.known(first.name)[version].settings)
