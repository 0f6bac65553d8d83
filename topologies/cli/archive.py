"""`millrace archive`: every record of the shop's topics, once, as Parquet files, and questions to them in SQL."""

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.errors import MillraceError
from streams.topics import Topic
from topologies.cli.options import Bootstrap, Home, Json, MemberName, MemberState, PagesHost, PagesPort
from topologies.settings import LOOPBACK, Settings, home_directory

if TYPE_CHECKING:
    from topologies.archive.files import Files

archive = typer.Typer(help="Every record once as Parquet, and questions to it in SQL.", no_args_is_help=True)

Url = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="URL",
        help="A directory, or s3://bucket/path and the like (with its fsspec package); else MILLRACE_ARCHIVE, else "
        "`archive` in the home.",
    ),
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="URL", help="Where it was archived to; else MILLRACE_ARCHIVE, else as for `run`."),
]
Topics = Annotated[
    list[str] | None,
    typer.Option(
        "--topic", help="Only this one, or one of yours, as bytes; may be given again. Else the shop's three."
    ),
]
Once = Annotated[bool, typer.Option("--once", help="Archive what is there now, then end.")]
RollS = Annotated[
    float, typer.Option("--roll", min=0.1, help="Seconds from a file's first record until it is written.")
]
RollRecords = Annotated[
    int, typer.Option("--records", min=1, help="Records after which a file is written before that.")
]
OneTopic = Annotated[str | None, typer.Option("--topic", help="Only this one; else all that are there.")]
Sql = Annotated[str, typer.Argument(help="A query; tables are order_events, order_events_counted, user_activity, ...")]

FOUND = 3


def register(app: typer.Typer) -> None:
    """Add `archive` to `millrace`."""
    app.add_typer(archive, name="archive")


@archive.command(epilog="Example: millrace archive run --to ~/lake --roll 10")
def run(
    to: Url = None,
    topic: Topics = None,
    once: Once = False,
    roll_s: RollS = 60.0,
    roll_records: RollRecords = 25_000,
    name: MemberName = None,
    port: PagesPort = None,
    host: PagesHost = LOOPBACK,
    state: MemberState = None,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Archive what comes, each offset once, until Ctrl-C. Start more of them to share the partitions.

    With --json one object says at its start where its pages are, and one at its end what it did.
    """
    files = _files(to, home)
    from topologies.archive.running import TOPICS, run_archive

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    settings = Settings.from_environment(bootstrap=bootstrap, home=home, name=name, state_dir=state)
    known = {one.name: one for one in TOPICS}
    topics = [known.get(one) or _bytes(one) for one in topic] if topic else TOPICS

    def started(url: str) -> None:
        said = {"url": f"{url}/", "archive": files.url, "pid": os.getpid()}
        typer.echo(
            orjson.dumps(said) if json else f"archiving to {files.url}, metrics at {url}/metrics; Ctrl-C ends it"
        )

    settings_of_run: dict[str, Any] = {"roll_s": roll_s, "roll_records": roll_records, "once": once}
    done = asyncio.run(
        run_archive(files, settings, topics=topics, host=host, port=port, started=started, **settings_of_run)
    )
    counts = done.counts
    said = {"records": counts.records, "files": counts.files}
    typer.echo(orjson.dumps(said) if json else f"archived {counts.records:,} records in {counts.files:,} files")


@archive.command(epilog="Example: millrace archive check --from ~/lake")
def check(url: From = None, topic: OneTopic = None, home: Home = None, json: Json = False) -> None:
    """Read every file and say whether each offset is there once; exits with 3 where something is wrong."""
    files = _files(url, home)
    from topologies.archive.checking import check as checked

    try:
        found = [one for name in ([topic] if topic else files.topics()) for one in checked(files, name)]
    except OSError as error:
        raise MillraceError(f"archive {files.url} cannot be read: {error}") from error
    faults = [fault for one in found for fault in one.faults]
    if json:
        typer.echo(
            orjson.dumps({"archive": files.url, "exact": not faults, "partitions": [one.row() for one in found]})
        )
    else:
        for one in found:
            covered = f"{one.tp.topic}[{one.tp.partition}]  {one.first:,} to {one.end:,}"
            typer.echo(f"{covered}: {one.rows:,} rows in {one.files:,} files")
        typer.echo(
            "\n".join(faults) if faults else "each offset once" if found else f"nothing is archived at {files.url}"
        )
    raise typer.Exit(FOUND if faults else 0)


@archive.command(
    epilog='Example: millrace archive query "SELECT region, sum(amount) FROM order_events_counted GROUP BY region"'
)
def query(sql: Sql, url: From = None, home: Home = None, json: Json = False) -> None:
    """Ask the archive in SQL, by DuckDB. order_events_counted has what the sales tables count, by the same rules.

    Slices, grace and so on are those of the settings (MILLRACE_SLICE_S, ...).
    """
    files = _files(url, home)
    from streams.cluster import Cluster
    from streams.intake import EventTime
    from topologies.archive.querying import Tables

    settings = Settings.from_environment(cluster=Cluster("unused:1"), home=home)
    rules = EventTime(
        round(settings.slice_s * 1000), round(settings.grace_s * 1000), round(settings.max_ahead_s * 1000)
    )
    try:
        with Tables(files, rules, prefix=settings.prefix) as tables:
            answer = tables.query(sql)
    except OSError as error:
        raise MillraceError(f"archive {files.url} cannot be read: {error}") from error
    if json:
        rows = [{name: _plain(value) for name, value in zip(answer.columns, row, strict=True)} for row in answer.rows]
        typer.echo(orjson.dumps({"columns": answer.columns, "rows": rows}, default=str))
        return
    table = Table(box=None, pad_edge=False)
    for column in answer.columns:
        table.add_column(Text(column), overflow="fold")
    for row in answer.rows:
        table.add_row(*(Text(str(_plain(value))) for value in row))
    Console().print(table)


def _plain(value: Any) -> Any:
    return bytes(value).decode(errors="replace") if isinstance(value, (bytes, bytearray, memoryview)) else value


def _bytes(name: str) -> Topic:
    try:
        return Topic(name)
    except ValueError as error:
        raise MillraceError(str(error)) from error


def _files(url: str | None, home: Path | None) -> "Files":
    try:
        from topologies.archive.files import Files
    except ImportError as error:
        raise MillraceError(f"{error.name} is not installed: pip install 'millrace[archive]'") from error
    found = url or os.environ.get("MILLRACE_ARCHIVE") or str((home or home_directory(os.environ)) / "archive")
    return Files(str(Path(found).expanduser()) if "://" not in found and "::" not in found else found)
