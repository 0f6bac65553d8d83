"""`millrace replay`: build a topology's tables anew from the log, in place (`--from`) or beside the live ones (`--as`).

What follows `replay` is a topology, or one of the commands that work with versions. A topology with `--as` goes to the
command named `BESIDE`, which `topologies.cli.replay_versions` registers; any other to `IN_PLACE`.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

from streams.errors import MillraceError
from topologies.cli import replay_versions
from topologies.cli.completing import topologies
from topologies.cli.ending import INTERRUPTED, ended_by_signals
from topologies.cli.options import Bootstrap, Home, Json
from topologies.cli.worker import State, TopologyName

if TYPE_CHECKING:
    from rich.console import Console

    from streams.log import TP
    from topologies.replay.in_place import InPlace
    from topologies.replay.planning import Plan
    from topologies.replay.rebuilding import Rebuilt

IN_PLACE: Final = "TOPOLOGY --from"
BESIDE: Final = "TOPOLOGY --as"
# Where nobody looks at a bar, a line now and then.
SAY_EVERY_S: Final = 10.0

From = Annotated[
    str,
    typer.Option(
        "--from",
        help="`earliest`; a time (ISO-8601 or epoch ms, of the records' Kafka timestamps); or partition=offset,... "
        "(topic:partition=offset,... where there are several).",
    ),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="How many build the tables; else half as many as processors.")
]
Stop = Annotated[bool, typer.Option("--stop", help="End the group's workers of this host first.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
AcceptLoss = Annotated[
    bool,
    typer.Option("--accept-loss", help="Go on also where the log does not reach back to all that the tables hold."),
]
Anew = Annotated[bool, typer.Option("--anew", help="Do not go on with a replay that was interrupted: begin another.")]


class TopologyFirst(TyperGroup):
    """A group whose first argument may be a topology: then the options say which command it is."""

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Topologies first, then the commands that work with versions."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        known = super().shell_complete(ctx, "")
        named = [type(known[0])(name, help="Build its tables anew.") for name in topologies(incomplete)]
        return named + [one for one in known if one.value.startswith(incomplete) and " " not in one.value]

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that is meant, and what it is given."""
        if args[0] in self.commands:
            return super().resolve_command(ctx, args)
        beside = any(argument == "--as" or argument.startswith("--as=") for argument in args)
        return "", self.commands[BESIDE if beside else IN_PLACE], args


def register(app: typer.Typer) -> None:
    """Add `replay` to `millrace`."""
    replay = typer.Typer(
        cls=TopologyFirst,
        help="Build a topology's tables anew from the log: in place, or a new version beside the live one.",
        no_args_is_help=True,
        # An option before the topology is the command's, not the group's.
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    )
    replay.callback()(_replay)
    replay.command(IN_PLACE, epilog="Example: millrace replay analytics --from earliest --dry-run")(in_place)
    replay_versions.register(replay)
    app.add_typer(replay, name="replay")


def _replay() -> None:
    """Keep `millrace replay` a group."""


def in_place(
    topology: TopologyName,
    begin: From = "earliest",
    workers: Workers = None,
    stop: Stop = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    accept_loss: AcceptLoss = False,
    anew: Anew = False,
    state: State = None,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Drop a topology's tables and build them anew from the log, in place.

    From earliest they say what they said, cell by cell. From a time or offsets they hold what came from there on and
    nothing else. Says first what it will do, and asks. Interrupted at any point, the same command goes on.
    """
    from rich.console import Console

    from topologies.chaos.points import install_from
    from topologies.replay.in_place import InPlace
    from topologies.replay.origin import parse_origin
    from topologies.settings import Settings

    install_from(os.environ)
    # It says of each partition of a new topic that nobody leads it yet, and tries again.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    origin, shown = parse_origin(begin), Console(stderr=True)
    settings = Settings.from_environment(bootstrap=bootstrap, home=home, state_dir=state)
    with ended_by_signals(INTERRUPTED):
        replay = InPlace(settings, topology, lambda line: shown.print(line, highlight=False, markup=False))
        if dry_run:
            pending = replay.pending(origin, anew=anew)
            _print_plan(replay.plan(origin, pending), Console(), json=json)
            for line in _standing(replay, pending is not None):
                shown.print(line, highlight=False, markup=False)
            return
        with replay.alone():
            pending = replay.pending(origin, anew=anew)
            plan = replay.plan(origin, pending)
            if pending is not None:
                shown.print(f"Going on with the replay of {plan.group} from {plan.origin}", highlight=False)
            else:
                _print_plan(plan, shown)
            if pending is None or pending.phase == "resetting":
                _check(replay, plan, accept_loss=accept_loss, stop=stop)
                if pending is None and not yes:
                    _ask()
                replay.reset(plan, stop=stop)
            try:
                with _reporting(plan, shown) as report:
                    rebuilt = replay.rebuild(plan, workers or _workers(settings.partitions), report)
            except KeyboardInterrupt:
                shown.print("The same command goes on from here, and so does any worker of the group")
                raise
    _print_summary(replay, plan, rebuilt, resumed=pending is not None, json=json)


def _workers(partitions: int) -> int:
    return max(1, min(partitions, (os.cpu_count() or 1) // 2))


def _check(replay: "InPlace", plan: "Plan", *, accept_loss: bool, stop: bool) -> None:
    if plan.losing and not accept_loss:
        raise MillraceError(
            "nothing was done: the log does not reach back to all that the tables hold (see above); give --accept-loss "
            "to have them built from what is left"
        )
    if not stop:
        replay.empty(plan, stop=False)


def _standing(replay: "InPlace", interrupted: bool) -> Iterator[str]:
    if interrupted:
        yield "A replay that was interrupted would go on"
    if users := replay.users():
        yield f"In use by {', '.join(users)}: end them first, or give --stop for those of this host"


def _ask() -> None:
    if not sys.stdin.isatty():
        raise MillraceError("nothing was done: give --yes where nobody can be asked")
    typer.confirm("Drop these, and build them anew?", abort=True, err=True)


def _print_plan(plan: "Plan", to: "Console", *, json: bool = False) -> None:
    from msgspec import json as encoder

    if json:
        typer.echo(encoder.encode(plan))
        return
    to.print("\n".join(_told(plan)), highlight=False, markup=False, soft_wrap=True)


def _told(plan: "Plan") -> Iterator[str]:
    yield f"Replay of {plan.group} from {plan.origin}, in place:"
    width = max((len(f"{one.topic}[{one.partition}]") for one in plan.sources), default=0)
    for one in plan.sources:
        name = f"{one.topic}[{one.partition}]"
        begins = f" (the log begins at {one.first:,})" if one.first else ""
        yield f"  {name:<{width}}  {one.events:>13,} events, offsets {one.start:,} to {one.end:,}{begins}"
    yield f"  {'':<{width}}  {plan.events:>13,} in all"
    yield f"Deleted and made anew, {len(plan.dropped)} topics: {', '.join(plan.dropped) or 'none'}"
    yield f"Deleted here: {', '.join(plan.directories) or 'no local state'}"
    if plan.upserted:
        yield f"Said again, each under its key: {', '.join(plan.upserted)}"
    if plan.aside:
        yield f"Said again, each under its id: {', '.join(plan.aside)}"
    for topic, readers in plan.readers.items():
        yield f"Read by {', '.join(readers)}: {topic} is another topic then, so replay them after this"
    if not plan.whole:
        yield "The tables will hold events from there on and no others: windows before are gone, the first ones a part"
    for loss in plan.losses:
        begins = f"begins at {loss.first:,}"
        if loss.former is not None:
            lacks = f"begins at {loss.first:,} again" if loss.first else "holds less"
            begins = f"was made anew and {lacks}, the tables took the former one up to {loss.former:,}"
        place = f"{loss.topic}[{loss.partition}] {begins}"
        tables, hold = ("its tables", "hold") if loss.to is None else (f"what goes on to {loss.to}", "may hold")
        if loss.cells is None:
            yield f"LOST: {place}, and what the tables hold of the events before cannot be told: their state is lost"
        elif loss.cells:
            yield (
                f"LOST: {place}: {loss.cells:,} of the {loss.kept:,} cells of {tables} {hold} events from before, "
                "and come back with less or not at all"
            )
        else:
            yield f"{place}; nothing that {'its tables hold' if loss.to is None else 'is made of it'} is from before"


@contextmanager
def _reporting(plan: "Plan", to: "Console") -> Iterator[Callable[[Mapping["TP", int]], None]]:
    if to.is_terminal:
        with _bars(plan, to) as report:
            yield report
    else:
        yield _lines(plan, to)


@contextmanager
def _bars(plan: "Plan", to: "Console") -> Iterator[Callable[[Mapping["TP", int]], None]]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} events"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=to) as progress:
        bars = {
            one.tp: progress.add_task(f"{one.topic}[{one.partition}]", total=one.events, rate="")
            for one in plan.sources
        }
        starts = {one.tp: one.start for one in plan.sources}

        def report(at: Mapping["TP", int]) -> None:
            for tp, position in at.items():
                task = progress.tasks[bars[tp]]
                rate = f"{task.speed:,.0f}/s" if task.speed else ""
                progress.update(bars[tp], completed=position - starts[tp], rate=rate)

        yield report


def _lines(plan: "Plan", to: "Console") -> Callable[[Mapping["TP", int]], None]:
    starts, said = sum(one.start for one in plan.sources), [time.monotonic()]

    def report(at: Mapping["TP", int]) -> None:
        if time.monotonic() - said[0] >= SAY_EVERY_S:
            said[0] = time.monotonic()
            done = sum(at.values()) - starts
            to.print(f"{done:,} of {plan.events:,} events, {done / max(1, plan.events):.0%}", highlight=False)

    return report


def _print_summary(replay: "InPlace", plan: "Plan", rebuilt: "Rebuilt", *, resumed: bool, json: bool) -> None:
    from dataclasses import asdict

    import orjson

    if json:
        ended = [name for names in replay.ended.values() for name in names]
        found = {"group": plan.group, "from": plan.origin, "resumed": resumed, "ended": ended}
        places = [{"topic": o.topic, "partition": o.partition, "start": o.start, "end": o.end} for o in plan.sources]
        told = {**found, **asdict(rebuilt), "dropped": plan.dropped, "partitions": places}
        typer.echo(orjson.dumps(told))
        return
    again = " when it went on" if resumed else ""
    typer.echo(
        f"{plan.group} is built anew from {plan.origin}: {rebuilt.events:,} events{again} in "
        f"{rebuilt.seconds:.1f} s, {rebuilt.events_per_s:,}/s once it ran, by {rebuilt.workers} worker(s)"
    )
    for group, name in replay.gone():
        command = f"millrace worker {replay.named} --name {name}"
        typer.echo(f"start again: {command if group == plan.group else f'{name} of {group}'}")
    for topic, readers in plan.readers.items():
        typer.echo(f"{topic} is another topic now: replay {', '.join(readers)} as well")
