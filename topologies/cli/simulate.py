"""`millrace simulate`: a seeded shop that sends events, at a pace or flat out, with a ledger of the answers."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from streams.errors import MillraceError
from streams.simulator.ledger import Ledger
from streams.simulator.run import Sent, iso, plan_run, run
from streams.simulator.settings import TOPICS, ShopSettings
from streams.topics import ORDER_EVENTS, PAYMENT_NOTIFICATIONS, USER_ACTIVITY, ensure_topics
from topologies.cli.ending import stopped_by_signal
from topologies.cli.options import Bootstrap, Home, Json
from topologies.cli.times import moment
from topologies.demo.run import PrefixedProducer
from topologies.sales import own_topic
from topologies.settings import Settings

DECLARED = {topic.name: topic for topic in (ORDER_EVENTS, USER_ACTIVITY, PAYMENT_NOTIFICATIONS)}

Events = Annotated[int | None, typer.Option("--events", "-n", help="Stop after so many; else at Ctrl-C.")]
Rate = Annotated[float, typer.Option("--rate", help="Events per second; 0 is flat out.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed and start give the same events.")]
Speed = Annotated[
    float,
    typer.Option("--speed", help="Event time that passes in a second, in seconds; 1440: a day in a minute."),
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
    typer.Option("--progress/--no-progress", help="Show how far it is; by default on a terminal."),
]


def register(app: typer.Typer) -> None:
    """Add `simulate` to `millrace`."""
    app.command("simulate", epilog="Example: millrace simulate --rate 1000 --events 100000 --ledger sales.json")(
        simulate
    )


def simulate(
    events: Events = None,
    rate: Rate = 0.0,
    seed: Seed = 1,
    speed: Speed = 1.0,
    start: Start = None,
    topics: TopicNames = None,
    ledger: LedgerFile = None,
    bootstrap: Bootstrap = None,
    home: Home = None,
    progress: Shown = None,
    json: Json = False,
) -> None:
    """Send what the customers of a seeded shop do: visits, carts, orders, payments, with a network's faults."""
    begin_ms = None if start is None else moment(start)
    if ledger is not None and not ledger.absolute().parent.is_dir():
        raise MillraceError(f"the ledger cannot be written to {ledger}: create its directory first")
    settings = Settings.from_environment(bootstrap=bootstrap, home=home)
    shop = ShopSettings(seed=seed, currency=settings.currency, topics=topic_names(topics))
    ensure_topics(settings.cluster, [own_topic(DECLARED[name], settings) for name in shop.topics])
    book = None if ledger is None else ledger_for(settings)
    opened = PrefixedProducer(settings.cluster, settings.prefix)
    with stopped_by_signal() as stop, shown(events, progress) as report, opened as producer:
        now_ms = time.time_ns() // 1_000_000
        plan = plan_run(shop, now_ms=now_ms, events=events, rate=rate, speed=speed, start_ms=begin_ms)
        sent = run(plan, producer, ledger=book, stop=stop, report=report)
    if ledger is not None and book is not None:
        book.write(ledger)
    typer.echo(orjson.dumps(as_dict(sent)) if json else str(sent))


def ledger_for(settings: Settings) -> Ledger:
    """An empty ledger with the rules by which the sales tables of these settings count."""
    return Ledger(
        settings.partitions,
        currency=settings.currency,
        slice_ms=round(settings.slice_s * 1000),
        grace_ms=round(settings.grace_s * 1000),
        dedupe_ms=round(ORDER_EVENTS.dedupe_s * 1000),
    )


def topic_names(listed: str | None) -> tuple[str, ...]:
    """The topics that were listed, without repeats; all if none were."""
    return tuple(dict.fromkeys(name.strip() for name in listed.split(","))) if listed else TOPICS


def as_dict(sent: Sent) -> dict[str, Any]:
    """A run as one JSON object."""
    return {
        "events": sent.events,
        "seconds": round(sent.seconds, 3),
        "events_per_s": round(sent.events / max(sent.seconds, 1e-6)),
        "topics": dict(sent.by_topic),
        "start": iso(sent.start_ms),
        "reached": iso(sent.reached_ms),
        "stopped": sent.stopped,
    }


@contextmanager
def shown(events: int | None, wanted: bool | None) -> Iterator[Callable[[Sent], None] | None]:
    """A live line on stderr, as a function that takes how far the run has come; None if it is not wanted."""
    console = Console(stderr=True)
    if not (console.is_terminal if wanted is None else wanted):
        yield None
        return
    line = TextColumn("{task.completed:,.0f} events  {task.fields[rate]:,.0f}/s  {task.fields[at]}")
    with Progress(BarColumn(), line, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=events, rate=0.0, at="")

        def report(sent: Sent) -> None:
            rate = sent.events / max(sent.seconds, 1e-6)
            bar.update(task, completed=sent.events, rate=rate, at=iso(sent.reached_ms))

        yield report
