"""`millrace db`: the tables of the command side, and what a shop begins with."""

import asyncio
import os
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from topologies.cli.options import DatabaseUrl, Home, Json

if TYPE_CHECKING:
    from sqlalchemy import URL

    from topologies.orders.seeding import Seeded, Stock

Users = Annotated[int, typer.Option("--users", help="How many users, beside the test user 123.", min=0)]
Products = Annotated[int, typer.Option("--products", help="How many products.", min=1)]
Points = Annotated[int, typer.Option("--points", help="What each user has.", min=0)]
Pieces = Annotated[int, typer.Option("--stock", help="How many pieces there are of each product.", min=0)]


def register(app: typer.Typer) -> None:
    """Add `db` to `millrace`."""
    db = typer.Typer(help="The order database: make its tables, and fill them.", no_args_is_help=True)
    db.command("migrate", epilog="Example: millrace db migrate")(migrate)
    db.command("seed", epilog="Example: millrace db seed --products 100")(seed)
    app.add_typer(db, name="db")


def migrate(database: DatabaseUrl = None, home: Home = None, json: Json = False) -> None:
    """Bring the database to the tables of this version. Run it again whenever there is a newer one."""
    from topologies.orders.database import shown_url

    url = _url(database, home)
    before, after = asyncio.run(_migrate(url))
    shown = shown_url(url)
    if json:
        typer.echo(orjson.dumps({"database": shown, "before": before, "after": after}))
    elif before == after:
        typer.echo(f"{shown} is at {after} already")
    else:
        typer.echo(f"{shown} is at {after}, it was {'empty' if before is None else f'at {before}'}")


def seed(
    users: Users = 0,
    products: Products = 20,
    points: Points = 100_000,
    stock: Pieces = 1_000,
    database: DatabaseUrl = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Put in a test user with 100,000 points, and products. What is there already stays as it is."""
    from topologies.orders.seeding import Stock

    found = asyncio.run(_seed(_url(database, home), Stock(users, products, points, stock)))
    if json:
        typer.echo(orjson.dumps({"users": found.users, "products": found.products}))
    else:
        typer.echo(f"{found.users:,} users and {found.products:,} products are new; user 123 is there to order")


def _url(given: str | None, home: "os.PathLike[str] | None") -> "URL":
    from pathlib import Path

    from topologies.orders.database import database_url
    from topologies.settings import home_directory

    return database_url(given, os.environ, Path(home or home_directory(os.environ)))


async def _migrate(url: "URL") -> tuple[str | None, str]:
    from topologies.orders.database import Database
    from topologies.orders.migrating import migrate as bring

    async with Database.open(url) as opened:
        return await bring(opened)


async def _seed(url: "URL", wanted: "Stock") -> "Seeded":
    from topologies.orders.database import Database
    from topologies.orders.migrating import check
    from topologies.orders.seeding import seed as fill

    async with Database.open(url) as opened:
        await check(opened)
        return await fill(opened, wanted)
