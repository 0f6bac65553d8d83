"""`millrace relay`: publishes what the command side has committed."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Annotated

import orjson
import typer

from topologies.cli.options import Bootstrap, DatabaseUrl, Home, Json, PagesHost, PagesPort
from topologies.settings import LOOPBACK, Settings

Keep = Annotated[
    float, typer.Option("--keep", help="Seconds that published rows stay in the outbox, to be asked for.", min=0)
]
State = Annotated[Path | None, typer.Option("--state", help="State directory: ports of this host.")]


def register(app: typer.Typer) -> None:
    """Add `relay` to `millrace`."""
    app.command("relay", epilog="Example: millrace relay --database mysql://shop:secret@db-1/shop")(relay)


def relay(
    keep: Keep = 86_400.0,
    port: PagesPort = None,
    host: PagesHost = LOOPBACK,
    state: State = None,
    database: DatabaseUrl = None,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Publish the outbox of the order database to Kafka, until Ctrl-C; `millrace orders` does so itself by default.

    Start more of them: one works, the others take over when it ends or dies. With --json the line that says where its
    pages are is an object; everything else is log.
    """
    from topologies.orders.database import database_url
    from topologies.orders.relay_running import run_relay

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    settings = Settings.from_environment(bootstrap=bootstrap, home=home, state_dir=state)
    url = database_url(database, os.environ, Path(settings.home))

    def started(at: str) -> None:
        said = {"url": f"{at}/", "pid": os.getpid()}
        typer.echo(orjson.dumps(said) if json else f"relaying, metrics at {at}/metrics; Ctrl-C ends it")

    asyncio.run(run_relay(settings, url, keep_s=keep, host=host, port=port, started=started))
