"""`millrace scenario`: what a consumer group does with partitions, on a real broker, in front of your eyes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Self

import orjson
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from topologies.cli.ending import INTERRUPTED, ended_by_signals
from topologies.cli.options import Bootstrap, Home, Json
from topologies.cli.produce import partitioner_of
from topologies.cli.showing import print_table
from topologies.scenarios.acts import Act, Closing, Death, Opening, Spreading, Stage
from topologies.scenarios.ownership import Ownership
from topologies.scenarios.plan import Name, Plan, Spreader
from topologies.scenarios.run import run
from topologies.scenarios.telling import as_dict, columns, lines, readers, row
from topologies.settings import Settings

CUSTOM: Final = "topologies.scenarios.spreading:big_customer_apart"
SPREADERS: Final = ("key-hash", "round-robin", CUSTOM)

scenario = typer.Typer(
    help="Show who owns which partition, how records spread, and what happens when a consumer dies.",
    no_args_is_help=True,
)

Producers = Annotated[int, typer.Option("--producers", help="How many send at once.")]
Partitions = Annotated[int, typer.Option("--partitions", "-p", help="Of the scenario's topic.")]
Consumers = Annotated[int, typer.Option("--consumers", help="How many join its group, each a process.")]
Records = Annotated[int, typer.Option("--records", "-n", help="How many are sent by each partitioner.")]
Keys = Annotated[int, typer.Option("--keys", help="How many different keys they have.")]
Spreads = Annotated[
    list[str] | None,
    typer.Option(
        "--partitioner",
        help="key-hash, round-robin, random, or yours as module:function of a key and a number of partitions; may be "
        "given again. Else key-hash, round-robin and an example of a custom one.",
    ),
]
Kill = Annotated[bool, typer.Option("--kill", help="Kill a consumer under load, and see its partitions move.")]
Session = Annotated[
    float, typer.Option("--session", help="After so many seconds without a sign a consumer is taken for dead.")
]
Seed = Annotated[int, typer.Option("--seed", help="Of the records' keys.")]


def register(app: typer.Typer) -> None:
    """Add `scenario` to `millrace`."""
    app.add_typer(scenario, name="scenario")


@scenario.command("one-to-one", epilog="Example: millrace scenario one-to-one")
def one_to_one(
    partitions: Partitions = 1,
    records: Records = 300,
    keys: Keys = 12,
    partitioner: Spreads = None,
    seed: Seed = 1,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """One producer, one consumer: order, and what several partitions do to it."""
    plan = _plan("one-to-one", partitioner, partitions=partitions, records=records, keys=keys, seed=seed)
    _play(plan, bootstrap, home, json)


@scenario.command("one-to-many", epilog="Example: millrace scenario one-to-many --partitions 4 --consumers 5 --kill")
def one_to_many(
    partitions: Partitions = 4,
    consumers: Consumers = 5,
    records: Records = 300,
    keys: Keys = 12,
    partitioner: Spreads = None,
    kill: Kill = False,
    session: Session = 6.0,
    seed: Seed = 1,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """One producer, a group of consumers: who owns what as they join, and who is idle."""
    numbers = {"partitions": partitions, "consumers": consumers, "records": records, "keys": keys, "seed": seed}
    _play(_plan("one-to-many", partitioner, kill=kill, session_s=session, **numbers), bootstrap, home, json)


@scenario.command(
    "many-to-many", epilog="Example: millrace scenario many-to-many --producers 3 --partitions 6 --consumers 3 --kill"
)
def many_to_many(
    producers: Producers = 3,
    partitions: Partitions = 6,
    consumers: Consumers = 3,
    records: Records = 300,
    keys: Keys = 12,
    partitioner: Spreads = None,
    kill: Kill = False,
    session: Session = 6.0,
    seed: Seed = 1,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Several producers, a group of consumers: order is kept within a key and a producer, not between producers."""
    numbers = {"partitions": partitions, "consumers": consumers, "records": records, "keys": keys, "seed": seed}
    plan = _plan("many-to-many", partitioner, producers=producers, kill=kill, session_s=session, **numbers)
    _play(plan, bootstrap, home, json)


def _plan(name: Name, partitioners: list[str] | None, **numbers: Any) -> Plan:
    chosen = dict.fromkeys(partitioners or SPREADERS)
    return Plan(name, spreaders=tuple(Spreader(one, partitioner_of(one)) for one in chosen), **numbers)


def _play(plan: Plan, bootstrap: str | None, home: Path | None, json: bool) -> None:
    settings = Settings.from_environment(bootstrap=bootstrap, home=home)
    teller = _Teller(plan, quiet=json)
    with ended_by_signals(INTERRUPTED), _Now() as now:

        def tell(act: Act) -> None:
            with now.aside():
                teller.hear(act)

        run(plan, settings.cluster, tell, now.look)
    if json:
        typer.echo(orjson.dumps(teller.whole()))


class _Teller:
    """Prints acts as they come; the spreads together, when the last one is there."""

    def __init__(self, plan: Plan, *, quiet: bool) -> None:
        self.plan = plan
        self.acts: list[Act] = []
        self._quiet = quiet

    def hear(self, act: Act) -> None:
        self.acts.append(act)
        if self._quiet:
            return
        spreads = self._spreads()
        if isinstance(act, Spreading) and len(spreads) == len(self.plan.spreaders):
            typer.echo("")
            print_table(columns(self.plan), [row(one, self.plan) for one in spreads])
            for line in readers(spreads):
                typer.echo(line)
        for line in lines(act, self.plan):
            typer.echo(line)

    def _spreads(self) -> list[Spreading]:
        return [act for act in self.acts if isinstance(act, Spreading)]

    def whole(self) -> dict[str, Any]:
        """Everything, as one JSON object."""
        opening = next(act for act in self.acts if isinstance(act, Opening))
        deaths = [act for act in self.acts if isinstance(act, Death)]
        return {
            "scenario": self.plan.name,
            "producers": self.plan.producers,
            "partitions": self.plan.partitions,
            "consumers": self.plan.consumers,
            **as_dict(opening),
            "stages": [as_dict(act) for act in self.acts if isinstance(act, Stage)],
            "spreads": [as_dict(act) for act in self._spreads()],
            "death": as_dict(deaths[0]) if deaths else None,
            "deleted": any(isinstance(act, Closing) for act in self.acts),
        }


class _Now:
    """On a terminal, who owns what at this moment, below what was told so far; elsewhere nothing."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._live = Live(console=console, transient=True, refresh_per_second=10) if console.is_terminal else None

    def look(self, found: Ownership) -> None:
        if self._live is not None:
            self._live.update(_grid(found))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Out of the way of what is printed meanwhile."""
        if self._live is not None:
            self._live.stop()
        yield
        if self._live is not None:
            self._live.update("")
            self._live.start()

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()


def _grid(found: Ownership) -> Table:
    grid = Table("now, by the broker", "partitions", box=None, pad_edge=False)
    for name, owned in sorted(found.owners.items()):
        grid.add_row(name, " ".join(map(str, owned)) or "-")
    return grid
