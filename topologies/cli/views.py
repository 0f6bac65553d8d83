"""`millrace views`: a view server of one or several topologies."""

import logging
import os
from pathlib import Path
from typing import Annotated

import orjson
import typer

from topologies.cli.completing import topologies
from topologies.cli.options import Bootstrap, Home, Json
from topologies.loading import OURS, load_topology
from topologies.real_time import run_first
from topologies.settings import LOOPBACK, Settings

TopologyNames = Annotated[
    list[str] | None,
    typer.Option(
        "--topology",
        help=f"One of {', '.join(OURS)}, or yours as module:attribute, e.g. clicks:topology. Give it again for "
        "several; without it all of ours are served.",
        autocompletion=topologies,
    ),
]
Port = Annotated[int | None, typer.Option("--port", help="Of the pages; else MILLRACE_VIEWS_PORT, else 8090.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets everybody in.")]
RealTime = Annotated[
    bool,
    typer.Option(
        "--real-time", help="Run before everything else on a machine shared with workers; needs root or CAP_SYS_NICE."
    ),
]
State = Annotated[Path | None, typer.Option("--state", help="State directory; the local copy is kept there.")]


def register(app: typer.Typer) -> None:
    """Add `views` to `millrace`."""
    app.command("views", epilog="Example: millrace views --topology analytics --port 8092")(views)


def views(
    topology: TopologyNames = None,
    port: Port = None,
    host: Host = LOOPBACK,
    state: State = None,
    real_time: RealTime = False,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Answer for topologies' tables over HTTP, from local copies that follow them. Ctrl-C ends it.

    With --json the line that says where they are is an object; everything else is log.
    """
    # The server takes most of a second to import, which help and completion need not wait for.
    from topologies.views import run

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    # its lines on every failed attempt would bury ours, which say once that the cluster is gone or back
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    if real_time:
        run_first()
    settings = Settings.from_environment(bootstrap=bootstrap, home=home, state_dir=state, views_port=port)
    run(
        [load_topology(name, settings) for name in topology or OURS],
        settings,
        host=host,
        started=_say_json if json else _say,
    )


def _say(url: str) -> None:
    typer.echo(f"views at {url}/, Ctrl-C ends them")


def _say_json(url: str) -> None:
    typer.echo(orjson.dumps({"url": f"{url}/", "pid": os.getpid()}))
