"""`millrace simulate`: a seeded shop that sends events, at a pace or flat out, with a ledger of the answers."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event as Flag
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from streams.errors import MillraceError
from streams.producers import Producer
from streams.simulator.ledger import Ledger
from streams.simulator.run import Sent, iso, plan_run, run
from streams.simulator.settings import TOPICS, ShopSettings
from streams.topics import ORDER_EVENTS, PAYMENT_NOTIFICATIONS, USER_ACTIVITY, ensure_topics
from topologies.cli.options import Bootstrap, Home, Json
from topologies.settings import Settings

DECLARED = {topic.name: topic for topic in (ORDER_EVENTS, USER_ACTIVITY, PAYMENT_NOTIFICATIONS)}

Events = Annotated[int | None, typer.Option("--events", "-n", help="Stop after so many; else at Ctrl-C.")]
Rate = Annotated[float, typer.Option("--rate", help="Events per second; 0 is flat out.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed and start give the same events.")]
Speed = Annotated[
    float, typer.Option("--speed", help="Seconds of event time in a second; 1440 runs through a day in a minute.")
]
Start = Annotated[
    str | None,
    typer.Option("--start", help="Event time to begin at, ISO-8601 or epoch ms; else so that it ends now."),
]
TopicNames = Annotated[
    str | None, typer.Option("--topics", help=f"Only these, with commas between: {', '.join(TOPICS)}.")
]
LedgerFile = Annotated[
    Path | None,
    typer.Option("--ledger", help="Write the exact sales of what was sent to this file, as JSON."),
]
Shown = Annotated[
    bool | None,
    typer.Option("--progress/--no-progress", help="Show how far it is; else only on a terminal."),
]


def register(app: typer.Typer) -> None:
    """Add `simulate` to `millrace`."""
    app.command("simulate")(simulate)


def simulate(
    events: Events = None,
    rate: Rate = 0.0,
    seed: Seed = 1,
    speed: Speed = 1.0,
    start: Start = None,
    topics: TopicNames = None,
    bootstrap: Bootstrap = None,
    home: Home = None,
    ledger: LedgerFile = None,
    progress: Shown = None,
    json: Json = False,
) -> None:
    """Send what customers of a seeded shop do: visits, carts, orders, payments, some late, twice or out of order."""
    chosen = tuple(name.strip() for name in topics.split(",")) if topics else TOPICS
    shop = ShopSettings(seed=seed, topics=chosen, currency=_currency(bootstrap, home))
    settings = Settings.from_environment(bootstrap=bootstrap, home=home)
    ensure_topics(settings.cluster, [DECLARED[name].with_partitions(settings.partitions) for name in chosen])
    book = ledger_for(settings) if ledger else None
    stop = Flag()
    with Producer(settings.cluster) as producer, stopped_by_signal(stop), _progress_shown(events, progress) as report:
        plan = plan_run(
            shop, now_ms=time.time_ns() // 1_000_000, events=events, rate=rate, speed=speed, start_ms=moment(start)
        )
        sent = run(plan, producer, ledger=book, stop=stop, report=report)
    if book is not None and ledger is not None:
        book.write(ledger)
    typer.echo(orjson.dumps(as_dict(sent)) if json else str(sent))
