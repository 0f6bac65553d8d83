"""`millrace topics`: list, create, describe and delete topics of any Kafka, and see where they begin and end."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from confluent_kafka.admin import OffsetSpec

from streams.admin.altering import add_partitions, set_config
from streams.admin.connection import Admin
from streams.admin.topics import (
    NEWEST,
    Stretch,
    TopicState,
    create_topic,
    delete_topics,
    describe_topics,
    partitions_of,
    stretches,
    topic_names,
)
from streams.errors import MillraceError
from streams.log import TP
from topologies.cli.completing import topics as known_topics
from topologies.cli.options import Bootstrap, Home, Json
from topologies.cli.showing import print_table
from topologies.cli.times import moment_or_ago, shown
from topologies.settings import Settings

topics = typer.Typer(
    help="Topics of the cluster: list, create, describe, delete them, and where they begin and end.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="TOPIC", help="Its name.")]
Names = Annotated[list[str], typer.Argument(metavar="TOPIC...", help="Their names.", autocompletion=known_topics)]
MaybeNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="[TOPIC]...", help="Their names; all, without.", autocompletion=known_topics),
]
Internal = Annotated[bool, typer.Option("--internal", help="Also Kafka's own, such as __consumer_offsets.")]
Partitions = Annotated[
    int | None, typer.Option("--partitions", "-p", min=1, help="How many; else the cluster's default.")
]
Copies = Annotated[
    int | None, typer.Option("--replication", "-r", min=1, help="How often a record is kept; else the default.")
]
Config = Annotated[
    list[str] | None, typer.Option("--config", "-c", help="A setting, e.g. retention.ms=86400000; may be given again.")
]
IfMissing = Annotated[bool, typer.Option("--if-missing", help="One that exists is no error, if partitioned alike.")]
IfExists = Annotated[bool, typer.Option("--if-exists", help="One that is not there is no error.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
At = Annotated[
    str | None,
    typer.Option(
        "--at",
        help="Also the first offset of this time or later: ISO-8601, epoch ms, 15m (ago), or `newest`, the record of "
        "the highest timestamp.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add `topics` to `millrace`."""
    app.add_typer(topics, name="topics")


@topics.command("list", epilog="Example: millrace topics list --json | jq -r '.topics[].topic'")
def list_(internal: Internal = False, bootstrap: Bootstrap = None, home: Home = None, json: Json = False) -> None:
    """Show every topic, with its partitions and copies."""
    admin = _admin(bootstrap, home)
    found = describe_topics(admin, topic_names(admin, internal=internal), configs=False)
    if json:
        _print_json({"topics": [_short(one) for one in found]})
        return
    rows = [(one.name, len(one.partitions), one.replication, _health(one)) for one in found]
    print_table(("topic", "partitions", "copies", "state"), rows)


@topics.command(epilog="Example: millrace topics create clicks --partitions 4 --config retention.ms=86400000")
def create(
    name: Name,
    partitions: Partitions = None,
    replication: Copies = None,
    config: Config = None,
    if_missing: IfMissing = False,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Create a topic; returns once every partition has a leader. What is not said is as the cluster has it."""
    admin = _admin(bootstrap, home)
    settings = dict(_setting(one) for one in config or ())
    made = create_topic(
        admin, name, partitions=partitions, replication=replication, config=settings, if_missing=if_missing
    )
    (found,) = describe_topics(admin, [name])
    if json:
        _print_json({**_whole(found), "created": made})
        return
    said = "created" if made else "is there already"
    typer.echo(f"{name} {said}: {len(found.partitions)} partition(s), each kept {found.replication} time(s)")


@topics.command(epilog="Example: millrace topics describe order-events")
def describe(names: Names, bootstrap: Bootstrap = None, home: Home = None, json: Json = False) -> None:
    """Show who leads and keeps each partition, and the settings that were made for the topic."""
    found = describe_topics(_admin(bootstrap, home), names)
    if json:
        _print_json({"topics": [_whole(one) for one in found]})
        return
    for number, one in enumerate(found):
        typer.echo("\n" * bool(number) + f"{one.name}  id {one.topic_id or '-'}  {_health(one)}")
        for key, value in one.config.items():
            typer.echo(f"  {key}={value}")
        rows = [(p.partition, p.leader, _list(p.replicas), _list(p.in_sync)) for p in one.partitions]
        print_table(("partition", "leader", "copies", "in sync"), rows)


@topics.command(epilog="Example: millrace topics delete clicks --yes")
def delete(
    names: Names,
    if_exists: IfExists = False,
    yes: Yes = False,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Delete topics with all that is in them; returns once the cluster shows them no more."""
    for name in names:
        if name.startswith("__"):
            raise MillraceError(f"{name} is Kafka's own, and the cluster does not work without it")
    admin = _admin(bootstrap, home)
    there = set(topic_names(admin)) if if_exists else set(names)
    meant = [name for name in dict.fromkeys(names) if name in there]
    held = stretches(admin, _tps(admin, meant))
    if meant and not yes:
        sums = {name: sum(one.offsets for one in held.values() if one.tp.topic == name) for name in meant}
        counts = ", ".join(f"{name} ({count:,})" for name, count in sums.items())
        typer.confirm(f"Delete {counts}, with so many records, for ever?", abort=True, err=True)
    if meant:
        delete_topics(admin, meant)
    if json:
        _print_json({"deleted": meant})
    else:
        typer.echo(f"deleted {', '.join(meant)}" if meant else "nothing to delete")


@topics.command(epilog="Example: millrace topics alter clicks --config retention.ms=86400000")
def alter(
    name: Name,
    partitions: Partitions = None,
    config: Config = None,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Give a topic more partitions or other settings. Tables need all of their topics partitioned alike."""
    admin = _admin(bootstrap, home)
    if config:
        set_config(admin, name, dict(_setting(one) for one in config))
    if partitions is not None:
        add_partitions(admin, name, partitions)
    (found,) = describe_topics(admin, [name])
    if json:
        _print_json(_whole(found))
        return
    settings = "".join(f", {key}={value}" for key, value in found.config.items())
    typer.echo(f"{name}: {len(found.partitions)} partition(s){settings}")


@topics.command(epilog="Example: millrace topics offsets order-events --at 2026-01-31T12:00:00Z")
def offsets(
    names: MaybeNames = None, at: At = None, bootstrap: Bootstrap = None, home: Home = None, json: Json = False
) -> None:
    """Show each partition's first offset, its end offset, and how many lie between them."""
    admin = _admin(bootstrap, home)
    found = stretches(admin, _tps(admin, names or topic_names(admin)), _spec(at))
    rows = list(found.values())
    if json:
        _print_json({"offsets": [_offsets(one, at is not None) for one in rows]})
        return
    columns = ("topic", "partition", "first", "end", "offsets") + (("at",) if at is not None else ())
    print_table(columns, [(*one.tp, one.first, one.end, one.offsets, one.at)[: len(columns)] for one in rows])
    if at is not None and at != "newest":
        typer.echo(f"at: the first offset of {shown(moment_or_ago(at, '--at'))} or later; - where there is none")


def _admin(bootstrap: str | None, home: Path | None) -> Admin:
    return Admin(Settings.from_environment(bootstrap=bootstrap, home=home).cluster)


def _tps(admin: Admin, names: Collection[str]) -> list[TP]:
    return [TP(name, number) for name, numbers in partitions_of(admin, names).items() for number in numbers]


def _spec(at: str | None) -> OffsetSpec | None:
    if at is None:
        return None
    return NEWEST if at == "newest" else OffsetSpec.for_timestamp(moment_or_ago(at, "--at"))


def _setting(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise MillraceError(f"setting {text!r} is not name=value, such as retention.ms=86400000")
    return name, value


def _short(one: TopicState) -> dict[str, Any]:
    return {
        "topic": one.name,
        "partitions": len(one.partitions),
        "replication": one.replication,
        "underReplicated": one.under_replicated,
        "leaderless": sum(partition.leader is None for partition in one.partitions),
        "internal": one.internal,
    }


def _whole(one: TopicState) -> dict[str, Any]:
    partitions = [
        {"partition": p.partition, "leader": p.leader, "replicas": p.replicas, "inSync": p.in_sync}
        for p in one.partitions
    ]
    return {**_short(one), "id": one.topic_id, "partitions": partitions, "config": dict(one.config)}


def _offsets(one: Stretch, with_at: bool) -> dict[str, Any]:
    row = {
        "topic": one.tp.topic,
        "partition": one.tp.partition,
        "first": one.first,
        "end": one.end,
        "offsets": one.offsets,
    }
    return {**row, "at": one.at} if with_at else row


def _health(one: TopicState) -> str:
    leaderless = sum(partition.leader is None for partition in one.partitions)
    if leaderless:
        return f"{leaderless} partition(s) without a leader"
    return f"{one.under_replicated} partition(s) miss copies" if one.under_replicated else "all copies in sync"


def _list(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _print_json(value: Any) -> None:
    typer.echo(orjson.dumps(value))
