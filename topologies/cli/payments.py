"""`millrace payments`: asks a gateway for what orders cost, and pays or cancels them."""

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from streams.errors import MillraceError
from topologies.cli.options import Bootstrap, DatabaseUrl, Home, Json, MemberName, MemberState, PagesHost, PagesPort
from topologies.settings import LOOPBACK, Settings

if TYPE_CHECKING:
    from topologies.payments.gateway import Gateway

GatewayName = Annotated[
    str | None,
    typer.Option(
        "--gateway",
        help="Yours as module:attribute, a function from settings to a Gateway; else one of this machine that behaves "
        "as the next options say.",
    ),
]
Latency = Annotated[float, typer.Option("--latency", help="Seconds that the local gateway mostly takes.", min=0)]
Declines = Annotated[float, typer.Option("--declines", help="Share of payments that it declines.", min=0, max=1)]
Timeouts = Annotated[float, typer.Option("--timeouts", help="Share of its answers that are lost.", min=0, max=1)]
Duplicates = Annotated[float, typer.Option("--duplicates", help="Share that reaches it twice.", min=0, max=1)]
Seed = Annotated[int, typer.Option("--seed", help="Decides which payments it declines.")]
AtOnce = Annotated[int, typer.Option("--at-once", help="Payments that are asked for side by side.", min=1)]


def register(app: typer.Typer) -> None:
    """Add `payments` to `millrace`."""
    app.command("payments", epilog="Example: millrace payments --declines 0.1 --timeouts 0.05")(payments)


def payments(
    gateway: GatewayName = None,
    latency: Latency = 0.02,
    declines: Declines = 0.05,
    timeouts: Timeouts = 0.02,
    duplicates: Duplicates = 0.02,
    seed: Seed = 1,
    at_once: AtOnce = 32,
    name: MemberName = None,
    port: PagesPort = None,
    host: PagesHost = LOOPBACK,
    state: MemberState = None,
    database: DatabaseUrl = None,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Ask a gateway for what placed orders cost; then they are paid, or cancelled and given back. Ctrl-C ends it.

    Start more of them to share the partitions. With --json the line that says where its pages are is an object;
    everything else is log.
    """
    from topologies.orders.database import database_url
    from topologies.payments.local_gateway import LocalGateway, Manners
    from topologies.payments.running import run_payments

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    settings = Settings.from_environment(bootstrap=bootstrap, home=home, name=name, state_dir=state)
    url = database_url(database, os.environ, Path(settings.home))
    manners = Manners(latency, declines, timeouts, duplicates, seed=seed)
    chosen = _gateway(gateway, settings) if gateway else LocalGateway(settings.home / "gateway.db", manners)

    def started(at: str) -> None:
        said = {"url": f"{at}/", "pid": os.getpid()}
        typer.echo(orjson.dumps(said) if json else f"payments run, metrics at {at}/metrics; Ctrl-C ends them")

    asyncio.run(run_payments(settings, url, chosen, at_once=at_once, host=host, port=port, started=started))


def _gateway(name: str, settings: Settings) -> "Gateway":
    from topologies.loading import attribute_named

    try:
        found: Gateway = attribute_named(name, "gateway")(settings)
    except TypeError as error:
        raise MillraceError(f"gateway {name!r} is no function from settings to a gateway: {error}") from error
    for request in ("charge", "give_back", "close"):
        if not callable(getattr(found, request, None)):
            raise MillraceError(f"gateway {name!r} cannot {request}: see topologies/payments/gateway.py for what it is")
    return found
