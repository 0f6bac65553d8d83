"""`millrace consume`: the records of a topic, from any place, alone or in a group; dead letters with their reasons."""

import base64
import sys
from collections.abc import Callable
from contextlib import closing
from typing import Annotated, Any, Final

import orjson
import typer
from confluent_kafka import Message

from streams.admin.reading import Batches, Begin, Stop, read, read_as_member
from streams.dead_letters import BLOCK, Told, told
from streams.log import Headers
from topologies.cli.completing import groups as known_groups
from topologies.cli.completing import topics as known_topics
from topologies.cli.ending import stopped_by_signal
from topologies.cli.options import Bootstrap, Home
from topologies.cli.times import moment_or_ago, shown
from topologies.settings import Settings

TopicName = Annotated[
    str, typer.Argument(help="The topic, e.g. order-events.dead-letters.", autocompletion=known_topics)
]
FromBeginning = Annotated[
    bool, typer.Option("--from-beginning", help="All that is there; in a group, where it has no position yet.")
]
FromTime = Annotated[
    str | None, typer.Option("--from-time", help="From the first record of this time: ISO-8601, epoch ms, 15m (ago).")
]
FromOffset = Annotated[int | None, typer.Option("--from-offset", min=0, help="From this offset, in each partition.")]
Last = Annotated[int | None, typer.Option("--last", "-n", min=1, help="The newest so many of each partition.")]
Follow = Annotated[
    bool | None,
    typer.Option(
        "--follow/--to-end",
        "-f/-e",
        help="Go on with what comes, or end where the partitions end now. To the end if --from-... or --last says "
        "where to begin, else for ever.",
    ),
]
Most = Annotated[int | None, typer.Option("--max", "-m", min=1, help="End after so many records.")]
Idle = Annotated[float | None, typer.Option("--timeout", min=0, help="End when none has come for so many seconds.")]
Group = Annotated[
    str | None,
    typer.Option(
        "--group", "-g", help="As a member: it goes on where the group was, and commits.", autocompletion=known_groups
    ),
]
Partitions = Annotated[list[int] | None, typer.Option("--partition", "-p", help="Only this one; may be given again.")]
Print = Annotated[
    str | None,
    typer.Option(
        "--print",
        help="Only these columns, with commas between: partition, offset, time, timestamp, key, headers, value.",
    ),
]
Separator = Annotated[
    str, typer.Option("--separator", help="Between columns of --print; else a tab.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object for each record.")]

Column = Callable[[Message], bytes]


def register(app: typer.Typer) -> None:
    """Add `consume` to `millrace`."""
    app.command("consume", epilog="Example: millrace consume order-events.dead-letters --from-beginning --json")(
        consume
    )


def consume(
    topic: TopicName,
    from_beginning: FromBeginning = False,
    from_time: FromTime = None,
    from_offset: FromOffset = None,
    last: Last = None,
    follow: Follow = None,
    most: Most = None,
    timeout: Idle = None,
    group: Group = None,
    partition: Partitions = None,
    columns: Print = None,
    separator: Separator = "\t",
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Print records: partition:offset, time, key, headers and value; of a dead letter why it is one."""
    begin = _begin(from_beginning, from_time, from_offset, last)
    line = _line(columns, separator, json)
    if group is not None and (partition or (begin is not None and begin.at != "beginning")):
        raise typer.BadParameter(
            "a group goes on where it was, in the partitions that it is given: set it with `millrace groups reset`"
        )
    ends = (group is None and begin is not None) if follow is None else not follow
    cluster = Settings.from_environment(bootstrap=bootstrap, home=home).cluster
    # a flag, not an exception: between printing and storing a position it would have records printed again
    with stopped_by_signal() as asked:
        stop = Stop(ends, most, timeout, asked)
        if group is None:
            found = read(cluster, topic, begin or Begin("end"), stop, partition)
        else:
            found = read_as_member(cluster, topic, group, stop, from_beginning=begin is not None)
        _print(found, line)


def _begin(beginning: bool, at: str | None, offset: int | None, last: int | None) -> Begin | None:
    given = [
        *([Begin("beginning")] if beginning else []),
        *([Begin("time", moment_or_ago(at, "--from-time"))] if at is not None else []),
        *([Begin("offset", offset)] if offset is not None else []),
        *([Begin("last", last)] if last is not None else []),
    ]
    if len(given) > 1:
        raise typer.BadParameter("give one of --from-beginning, --from-time, --from-offset and --last")
    return given[0] if given else None


def _print(batches: Batches, line: Column) -> None:
    out = sys.stdout.buffer
    with closing(batches):
        for messages in batches:
            out.write(b"".join(line(message) + b"\n" for message in messages))
            out.flush()


def _line(columns: str | None, separator: str, json: bool) -> Column:
    if json:
        return lambda message: orjson.dumps(as_dict(message))
    if columns is None:
        return _for_people
    chosen = []
    for name in columns.split(","):
        if name.strip() not in COLUMNS:
            raise typer.BadParameter(f"there is no column {name.strip()!r}: there are {', '.join(COLUMNS)}")
        chosen.append(COLUMNS[name.strip()])
    between = separator.replace("\\t", "\t").encode()
    return lambda message: between.join(column(message) for column in chosen)


def _for_people(message: Message) -> bytes:
    place = f"{message.partition()}:{message.offset()}".ljust(10)
    head = f"{place} {shown(message.timestamp()[1])}  "
    said = told(headers_of(message))
    if said is not None:
        head += f"{said.id}: {said.reason} ({said.stage})  "
    own = _pairs(message, said)
    return head.encode() + b"  ".join([_key(message), *([own] if own else []), _value(message)])


def as_dict(message: Message) -> dict[str, Any]:
    """A record as JSON can say it; bytes that are no text are shown with replacement characters, and as base64."""
    headers = headers_of(message)
    said = told(headers)
    return {
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp()[1],
        **_said("key", message.key()),
        **_said("value", message.value()),
        "headers": {name: _text(value) for name, value in headers},
        **({} if said is None else {"deadLetter": _dead_letter(said)}),
    }


def headers_of(message: Message) -> Headers:
    """A record's headers, in order; one without a value has an empty one."""
    found: Any = message.headers() or []
    return [(name, value if isinstance(value, bytes) else b"") for name, value in found]


def _dead_letter(said: Told) -> dict[str, Any]:
    source = {"topic": said.tp.topic, "partition": said.tp.partition, "offset": said.offset, "timestamp": said.at_ms}
    return {"id": said.id, "reason": said.reason, "stage": said.stage, "source": source, "cut": said.cut}


def _said(name: str, raw: bytes | str | None) -> dict[str, Any]:
    text = _text(raw)
    if isinstance(raw, bytes) and text is not None and text.encode() != raw:
        return {name: text, f"{name}Base64": base64.b64encode(raw).decode()}
    return {name: text}


def _text(raw: bytes | str | None) -> str | None:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw


def _raw(raw: bytes | str | None) -> bytes:
    return b"null" if raw is None else raw.encode() if isinstance(raw, str) else raw


def _key(message: Message) -> bytes:
    return _raw(message.key())


def _value(message: Message) -> bytes:
    return _raw(message.value())


def _pairs(message: Message, said: Told | None = None) -> bytes:
    headers = list(headers_of(message))
    own = headers if said is None else headers[: -len(BLOCK)]
    return b",".join(name.encode() + b":" + value for name, value in own)


COLUMNS: Final[dict[str, Column]] = {
    "partition": lambda message: str(message.partition()).encode(),
    "offset": lambda message: str(message.offset()).encode(),
    "time": lambda message: shown(message.timestamp()[1]).encode(),
    "timestamp": lambda message: str(message.timestamp()[1]).encode(),
    "key": _key,
    "headers": _pairs,
    "value": _value,
}
