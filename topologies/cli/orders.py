"""`millrace orders`: the order API."""

import logging
import os
from pathlib import Path
from typing import Annotated

import orjson
import typer

from topologies.cli.options import Bootstrap, DatabaseUrl, Home, Json
from topologies.settings import LOOPBACK, Settings

Port = Annotated[int | None, typer.Option("--port", help="To answer at; else MILLRACE_ORDERS_PORT, else 8080.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 lets everybody in.")]
PublishWait = Annotated[
    float,
    typer.Option(
        "--publish-wait", help="Seconds that an answer waits to say where its event lies in Kafka.", min=0, max=25
    ),
]
NoRelay = Annotated[
    bool, typer.Option("--no-relay", help="Publish nothing from here: `millrace relay` does, in a process of its own.")
]


def register(app: typer.Typer) -> None:
    """Add `orders` to `millrace`."""
    app.command("orders", epilog="Example: millrace orders --database mysql://shop:secret@db-1/shop")(orders)


def orders(
    port: Port = None,
    host: Host = LOOPBACK,
    publish_wait: PublishWait = 1.0,
    no_relay: NoRelay = False,
    database: DatabaseUrl = None,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Take orders over HTTP, into a database; publish what happened. Ctrl-C ends it.

    Its tables are made by `millrace db migrate`. With --json the line that says where it is is an object; everything
    else is log.
    """
    # The server takes most of a second to import, which help and completion need not wait for.
    from topologies.orders.api.server import run
    from topologies.orders.database import database_url

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    # its lines on every failed attempt would bury ours, which say once that the cluster is gone or back
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    settings = Settings.from_environment(bootstrap=bootstrap, home=home, orders_port=port)
    run(
        settings,
        database_url(database, os.environ, Path(settings.home)),
        host=host,
        relay=not no_relay,
        publish_wait_s=publish_wait,
        started=_say_json if json else _say,
    )


def _say(url: str) -> None:
    typer.echo(f"orders are taken at {url}/api/orders (how: {url}/docs), Ctrl-C ends it")


def _say_json(url: str) -> None:
    typer.echo(orjson.dumps({"url": f"{url}/", "pid": os.getpid()}))
