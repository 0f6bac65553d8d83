"""`millrace digest`: a hash of what each table's closed windows say, to compare two runs by eye."""

import asyncio
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import orjson
import typer
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.cluster import Cluster
from streams.errors import BrokerUnreachable, MillraceError, PartitionMismatch
from streams.kafka_log import KafkaLog
from streams.topics import Topic
from tables.digest import Digest, digest_model, read_up
from tables.read_model import ReadModel
from tables.table import Group
from topologies.cli.completing import topologies
from topologies.cli.options import Bootstrap, Home, Json
from topologies.loading import OURS, load_topology
from topologies.settings import Settings
from topologies.views.freshness import iso
from topologies.views.hosting import read_group
from topologies.views.parameters import Parameters
from topologies.views.problems import BadParameter

ANSWER_S = 10.0

TopologyName = Annotated[
    str,
    typer.Option(
        "--topology", help=f"One of {', '.join(OURS)}, or yours as module:attribute.", autocompletion=topologies
    ),
]
GroupName = Annotated[
    str | None, typer.Option("--group", help="The group whose tables are read; else the topology's own name.")
]
TableNames = Annotated[list[str] | None, typer.Option("--table", help="Only this table; may be given again.")]
From = Annotated[
    str | None,
    typer.Option("--from", help="First slice, as ISO-8601 or epoch ms; else the first one that no partition dropped."),
]
Until = Annotated[
    str | None,
    typer.Option("--until", help="End of the last slice; else the newest that every partition has closed."),
]


def register(app: typer.Typer) -> None:
    """Add `digest` to `millrace`."""
    app.command("digest", epilog="Example: millrace digest --topology behaviour")(digest)


def digest(
    topology: TopologyName = "analytics",
    group: GroupName = None,
    table: TableNames = None,
    begin: From = None,
    until: Until = None,
    json: Json = False,
    bootstrap: Bootstrap = None,
    home: Home = None,
) -> None:
    """Hash what each table's closed windows say, from its changelog: equal hashes, equal tables.

    A run and its replay, or two groups that run the same topology over the same log, must agree. Give both the same
    --from and --until where one of them has come further than the other.
    """
    settings = Settings.from_environment(bootstrap=bootstrap, home=home)
    found = load_topology(topology, settings)
    chosen = read_group(replace(found, name=group) if group else found)
    span = (_time("--from", begin), _time("--until", until))
    digests = asyncio.run(digests_of(chosen, settings.cluster, _names(chosen, table), span))
    if json:
        typer.echo(orjson.dumps({"group": chosen.name, "tables": {name: asdict(d) for name, d in digests.items()}}))
        return
    for name, one in digests.items():
        typer.echo(line(name, one))


async def digests_of(
    group: Group, cluster: Cluster, tables: list[str], span: tuple[int | None, int | None] = (None, None)
) -> dict[str, Digest]:
    """The digests of a group's tables as its changelogs are now, read into a temporary copy. Raises MillraceError."""
    changelogs = [group.changelog(table) for table in group.tables]
    await asyncio.to_thread(check_topics, cluster, group.name, [group.progress, *changelogs])
    log = KafkaLog(cluster, client_id="millrace-digest")
    await log.start()
    try:
        with tempfile.TemporaryDirectory(prefix="millrace-digest-") as directory:
            model = ReadModel(group, Path(directory) / "copy")
            try:
                await read_up(model, log)
                return {name: digest_model(model, name, from_ms=span[0], until_ms=span[1]) for name in tables}
            finally:
                model.close()
    finally:
        await log.stop()


def check_topics(cluster: Cluster, group: str, topics: list[Topic]) -> None:
    """Raise MillraceError unless the cluster has these topics as they are declared; none is created."""
    try:
        present = AdminClient(cluster.librdkafka(log_level=0)).list_topics(timeout=ANSWER_S).topics
    except KafkaException as error:
        raise BrokerUnreachable(cluster.bootstrap) from error
    for topic in topics:
        if topic.name not in present:
            raise MillraceError(
                f"group {group} has no tables here ({topic.name} is missing): start a worker of it, or name the group "
                "with --group"
            )
        if len(present[topic.name].partitions) != topic.partitions:
            raise PartitionMismatch(topic.name, len(present[topic.name].partitions), topic.partitions)


def line(name: str, one: Digest) -> str:
    """One table for people."""
    if not one.windows:
        return f"{one.digest}  {name}: no closed windows yet"
    kind = "closed" if one.closed else "some of them open,"
    times = f"{iso(one.from_ms)} to {iso(one.until_ms)}" if one.from_ms else f"to {iso(one.until_ms)}"
    return f"{one.digest}  {name}: {one.windows:,} windows, {kind} {times}, {one.cells:,} cells"


def _names(group: Group, wanted: list[str] | None) -> list[str]:
    known = [table.name for table in group.tables]
    for name in wanted or ():
        if name not in known:
            raise MillraceError(f"group {group.name} has no table {name!r}; there are {', '.join(known)}")
    return wanted or known


def _time(option: str, text: str | None) -> int | None:
    try:
        return None if text is None else Parameters({option: text}).time(option)
    except BadParameter as error:
        raise MillraceError(str(error)) from error
