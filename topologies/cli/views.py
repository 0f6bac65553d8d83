"""`millrace views`: a view server of a topology."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from topologies.cli.options import Bootstrap, Home
from topologies.loading import load_topology
from topologies.settings import Settings
from topologies.views import run
from topologies.views.server import LOOPBACK

TopologyName = Annotated[
    str, typer.Option("--topology", help="`analytics`, or yours as module:attribute, e.g. clicks:topology.")
]
Port = Annotated[int | None, typer.Option("--port", help="Of the pages; else MILLRACE_VIEWS_PORT, else 8090.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets everybody in.")]
State = Annotated[Path | None, typer.Option("--state", help="State directory; the local copy is kept there.")]


def register(app: typer.Typer) -> None:
    """Add `views` to `millrace`."""
    app.command("views")(views)


def views(
    topology: TopologyName = "analytics",
    port: Port = None,
    host: Host = LOOPBACK,
    state: State = None,
    bootstrap: Bootstrap = None,
    home: Home = None,
) -> None:
    """Answer for a topology's tables over HTTP, from a local copy that follows them. Ctrl-C ends it."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    # its lines on every failed attempt would bury ours, which say once that the cluster is gone or back
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    settings = Settings.from_environment(bootstrap=bootstrap, home=home, state_dir=state, views_port=port)
    run(load_topology(topology, settings), settings, host=host, started=_say)


def _say(url: str) -> None:
    typer.echo(f"views at {url}/, Ctrl-C ends them")
