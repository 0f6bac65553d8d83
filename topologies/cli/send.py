"""`millrace send`: records typed by hand into a topic."""

import sys
from typing import Annotated, Any

import typer

from streams.producers import Producer
from topologies.cli.options import Bootstrap, Home
from topologies.settings import Settings

# A mistyped topic is told at once, not created and not waited for.
CONFIG: dict[str, Any] = {"linger.ms": 0, "allow.auto.create.topics": False, "topic.metadata.propagation.max.ms": 1000}

TopicName = Annotated[str, typer.Argument(help="The topic, e.g. order-events.")]
Values = Annotated[list[str] | None, typer.Argument(help="The records; without any, each line of stdin is one.")]
Key = Annotated[
    str | None, typer.Option("--key", "-k", help="Of all of them, e.g. user-123; it chooses the partition.")
]


def register(app: typer.Typer) -> None:
    """Add `send` to `millrace`."""
    app.command("send")(send)


def send(
    topic: TopicName, values: Values = None, key: Key = None, bootstrap: Bootstrap = None, home: Home = None
) -> None:
    """Send records as they are typed, good or bad, and return when they are acknowledged."""
    settings = Settings.from_environment(bootstrap=bootstrap, home=home)
    raw_key = None if key is None else key.encode()
    with Producer(settings.cluster, **CONFIG) as producer:
        for value in values or (line.rstrip("\n") for line in sys.stdin):
            producer.produce(topic, raw_key, value.encode())
