"""Which commands there are, in the order in which one uses them, and how the one that is run gets loaded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import typer

STORY: Final = """Events in, live sales tables out: exact stream processing on Faust and Kafka.

Start with `millrace demo`: broker, workers, views and a simulated shop in one command. \
Or step by step: a broker, events into it, workers that keep the tables, \
and view servers that answer for them over HTTP.

Every command takes --help and --json. Exit codes: 0 done; 1 could not, and one line says why and what to do; \
2 wrong usage; 3 looked, and found something (doctor, replay diff; explain: cannot be told); 130 ended by Ctrl-C. \
`millrace --install-completion` completes commands, options and names at your shell.
"""


@dataclass(frozen=True)
class Command:
    """One command: its name, the module that registers it, and its line in the help."""

    name: str
    module: str
    help: str


COMMANDS: Final[tuple[Command, ...]] = (
    Command("demo", "topologies.cli.demo", "Everything at once: broker, workers, views and a simulated shop."),
    Command("broker", "topologies.cli.broker", "Start, find, stop and wipe the embedded Apache Kafka."),
    Command("simulate", "topologies.cli.simulate", "Send what a seeded shop's customers do, with exact answers."),
    Command("produce", "topologies.cli.produce", "Send records of your own into a topic."),
    Command("consume", "topologies.cli.consume", "Print what is in a topic, dead letters with their reasons."),
    Command("topics", "topologies.cli.topics", "List, create, describe and delete topics, and their offsets."),
    Command("groups", "topologies.cli.groups", "Consumer groups: members, partitions, lag; set where one goes on."),
    Command("perf", "topologies.cli.perf", "Measure a cluster: throughput, and latency percentiles."),
    Command("dead-letters", "topologies.cli.dead_letters", "What could not be applied: list, mend, send back."),
    Command("worker", "topologies.cli.worker", "Run a worker: consume, keep the tables, emit derived topics."),
    Command("views", "topologies.cli.views", "Answer for the tables over HTTP, from a local copy of them."),
    Command("db", "topologies.cli.db", "The order database: make its tables, and fill them."),
    Command("orders", "topologies.cli.orders", "Take orders over HTTP into a database, and publish what happened."),
    Command("relay", "topologies.cli.relay", "Publish what the order database has committed to Kafka, in order."),
    Command("payments", "topologies.cli.payments", "Ask a gateway for what orders cost; pay or cancel them."),
    Command("notify", "topologies.cli.notify", "Tell customers of their orders and payments: log, mail, webhook."),
    Command("archive", "topologies.cli.archive", "Every record once as Parquet, and questions to it in SQL."),
    Command("replay", "topologies.cli.replay", "Build the tables anew from the log, in place or beside the live ones."),
    Command("explain", "topologies.cli.explain", "What a number comes from, and whether the log still says so."),
    Command("digest", "topologies.cli.digest", "Hash what each table's closed windows say, to compare two runs."),
    Command("doctor", "topologies.cli.doctor", "Look for what is wrong, and name the command that mends it."),
    Command("scenario", "topologies.cli.scenario", "Show how consumers share partitions, and what a death does."),
    Command("bench", "topologies.cli.bench", "Measure this machine: throughput, and how old an answer is."),
    Command("chaos", "topologies.cli.chaos", "Try to make the tables wrong: seeded faults, and every cell compared."),
)


def build(arguments: Sequence[str]) -> Callable[[Sequence[str]], Any]:
    """Return `millrace` as a function of its arguments; it exits, or raises what its command raises.

    Only the module of the command that ``arguments`` name is imported; the others are names with a
    line of help.
    """
    app = typer.Typer(help=STORY, no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_millrace)
    named = next((argument for argument in arguments if not argument.startswith("-")), None)
    for command in COMMANDS:
        if command.name == named:
            import_module(command.module).register(app)
        else:
            app.command(command.name, help=command.help)(_not_loaded)
    run = typer.main.get_command(app)
    return lambda given: run.main(args=list(given), prog_name="millrace")


def _millrace() -> None:
    """Keep `millrace` a group of commands also while it has only one."""


def _not_loaded() -> None:
    raise AssertionError("only the command that was named is run")
