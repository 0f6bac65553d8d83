"""`millrace produce`: records typed by hand, from a file or from another command, into a topic of any Kafka."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from streams.admin.lines import LineFormat, lines_of, named_header
from streams.admin.sending import Landed, partitioner_named, send
from streams.errors import MillraceError
from streams.partitioners import Partitioner
from topologies.cli.completing import topics as known_topics
from topologies.cli.options import Bootstrap, Home, Json
from topologies.loading import attribute_named
from topologies.settings import Settings

TopicName = Annotated[str, typer.Argument(help="The topic, e.g. order-events.", autocompletion=known_topics)]
Records = Annotated[list[str] | None, typer.Argument(help="The records; without any, each line of stdin is one.")]
File = Annotated[Path | None, typer.Option("--file", "-f", help="Read the records from this file, a line each.")]
Key = Annotated[str | None, typer.Option("--key", "-k", help="Of all of them, e.g. user-123; lines are values then.")]
NoKey = Annotated[bool, typer.Option("--no-key", help="Lines are values, without a key.")]
Separator = Annotated[str, typer.Option("--separator", help="Between key and value, where it is there first.")]
Headers = Annotated[list[str] | None, typer.Option("--header", "-H", help="name=value; may be given again.")]
HeadersInLines = Annotated[
    bool, typer.Option("--headers-in-lines", help="Lines begin with name:value,name:value and a tab.")
]
Null = Annotated[str | None, typer.Option("--null", help="A value that is this text is sent as none: a tombstone.")]
Partition = Annotated[int | None, typer.Option("--partition", "-p", min=0, help="Into this one, whatever the key.")]
PartitionerName = Annotated[
    str,
    typer.Option(
        "--partitioner",
        help="key-hash (as the Java client does it), round-robin, random, or yours as module:function, which is given "
        "the key and the number of partitions.",
    ),
]
Acks = Annotated[str, typer.Option("--acks", help="Who must have a record: all (replicas in sync), 1 (leader), 0.")]
Compression = Annotated[str, typer.Option("--compression", help="none, gzip, snappy, lz4 or zstd.")]


def register(app: typer.Typer) -> None:
    """Add `produce` to `millrace`."""
    example = 'Example: millrace produce clicks \'user-7:{"page":"/"}\' --header source=desk'
    app.command("produce", epilog=example)(produce)


def produce(
    topic: TopicName,
    records: Records = None,
    file: File = None,
    key: Key = None,
    no_key: NoKey = False,
    separator: Separator = ":",
    header: Headers = None,
    headers_in_lines: HeadersInLines = False,
    null: Null = None,
    partition: Partition = None,
    partitioner: PartitionerName = "key-hash",
    acks: Acks = "all",
    compression: Compression = "lz4",
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Send records, good or bad, as key:value lines; returns when they are acknowledged, and says where they lie."""
    if key is not None and no_key:
        raise typer.BadParameter("give one of --key and --no-key")
    if partition is not None and partitioner != "key-hash":
        raise typer.BadParameter("give one of --partition and --partitioner")
    lines = _format(key, no_key, separator, header or (), headers_in_lines, null)
    place = partitioner_of(partitioner)
    config = {"acks": _acks(acks), "enable.idempotence": acks == "all", "compression.type": compression}
    settings = Settings.from_environment(bootstrap=bootstrap, home=home)
    with _lines(records, file) as raw:
        read = (lines.read(line, number) for number, line in enumerate(raw, 1))
        landed = send(settings.cluster, topic, read, partitioner=place, partition=partition, **config)
    typer.echo(orjson.dumps(_as_dict(topic, landed)) if json else _said(topic, landed))


def _format(
    key: str | None, no_key: bool, separator: str, headers: Sequence[str], headed: bool, null: str | None
) -> LineFormat:
    if not separator:
        raise typer.BadParameter("--separator must not be empty")
    return LineFormat(
        keyed=key is None and not no_key,
        key=None if key is None else key.encode(),
        separator=separator.replace("\\t", "\t").encode(),
        headers=tuple(named_header(one) for one in headers),
        headed=headed,
        null=None if null is None else null.encode(),
    )


def partitioner_of(name: str) -> Partitioner | None:
    """The partitioner of that name, or module:function; None for the client's own.

    Raises MillraceError for one that cannot be loaded, BadParameter for a name that there is not.
    """
    if ":" in name:
        found = attribute_named(name, "partitioner")
        if not callable(found):
            raise MillraceError(f"partitioner {name!r} is no function of a key and a number of partitions")
        return found  # type: ignore[no-any-return]  # what it gives is looked at, record by record
    try:
        return partitioner_named(name)
    except KeyError:
        known = "key-hash, round-robin, random, or yours as module:function"
        raise typer.BadParameter(f"there is no partitioner {name!r}: give {known}") from None


def _acks(text: str) -> str:
    if text not in ("all", "1", "0"):
        raise typer.BadParameter(f"--acks is all, 1 or 0, not {text!r}")
    return text


@contextmanager
def _lines(typed: Sequence[str] | None, file: Path | None) -> Iterator[Iterator[bytes]]:
    if typed and file is not None:
        raise typer.BadParameter("give records, or --file")
    if typed:
        yield (one.encode() for one in typed)
    elif file is None:
        yield lines_of(sys.stdin.buffer)
    else:
        try:
            opened = file.open("rb")
        except OSError as error:
            raise MillraceError(f"{file} cannot be read: {error.strerror}") from error
        with opened:
            yield lines_of(opened)


def _said(topic: str, landed: Landed) -> str:
    places = ", ".join(
        f"{number}: {count:,}" + (f" at {first:,}" if count == 1 else f" in {first:,}..{last:,}") * (first >= 0)
        for number, (count, first, last) in sorted(landed.partitions.items())
    )
    return f"sent {landed.records:,} to {topic}" + (f" (partition {places})" if places else "")


def _as_dict(topic: str, landed: Landed) -> dict[str, Any]:
    partitions = [
        {"partition": number, "records": count, "firstOffset": first, "lastOffset": last}
        for number, (count, first, last) in sorted(landed.partitions.items())
    ]
    return {"topic": topic, "records": landed.records, "partitions": partitions}
