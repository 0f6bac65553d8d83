"""`millrace dead-letters`: what could not be applied: list it, look at it, mend it, send it back."""

import os
import shlex
import subprocess
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.dead_letters import BLOCK
from streams.errors import MillraceError
from tables.table import Group
from topologies.cli.completing import topologies
from topologies.cli.options import Bootstrap, Home, Json
from topologies.dead_letters.letters import Filter, Letter, by_kind, pretty, text
from topologies.dead_letters.reading import Mailbox
from topologies.dead_letters.replaying import Judge, mended, send
from topologies.loading import load_topology
from topologies.settings import Settings

dead_letters = typer.Typer(help="What could not be applied: list it, mend it, send it back.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="<topic>-<partition>-<offset>, as `list` shows it.")]
MaybeId = Annotated[str | None, typer.Argument(metavar="[ID]", help="One dead letter; without it all that match.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Only those whose reason contains this.")]
SourceTopic = Annotated[str | None, typer.Option("--topic", help="Only those of this source topic, e.g. order-events.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=0, help="Show so many, the newest of each topic.")]
All = Annotated[bool, typer.Option("--all", help="Also those that were replayed.")]
Again = Annotated[bool, typer.Option("--again", help="Also those that were replayed; tables drop what they have.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Value = Annotated[str | None, typer.Option("--value", help="The mended value; else --file, else $EDITOR opens it.")]
File = Annotated[Path | None, typer.Option("--file", help="A file with the mended value.")]
TopologyName = Annotated[
    str,
    typer.Option(
        "--topology",
        help="Whose rules it must pass: `analytics`, or yours as module:attribute.",
        autocompletion=topologies,
    ),
]
WHAT_NEXT = (
    "the tables take each of them once; what is late by now goes to <topic>.late, "
    "what no fold can take comes back as a new dead letter"
)


def register(app: typer.Typer) -> None:
    """Add `dead-letters` to `millrace`."""
    app.add_typer(dead_letters, name="dead-letters")


@dead_letters.command("list", epilog="Example: millrace dead-letters list --topic order-events --reason amount")
def list_(
    reason: Reason = None,
    topic: SourceTopic = None,
    limit: Limit = 20,
    every: All = False,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show the newest dead letters, how many there are, and why."""
    settings = Settings.from_environment(bootstrap=bootstrap, home=home)
    reasons: list[str] = []
    shown: list[Letter] = []
    with Mailbox(settings.cluster) as mailbox:
        for source in _sources(mailbox, settings, topic):
            newest: deque[Letter] = deque(maxlen=limit)
            for letter in _matching(mailbox, source, Filter(reason, every)):
                reasons.append(letter.told.reason)
                newest.append(letter)
            shown += sorted(newest, key=lambda letter: (letter.put_aside_ms, letter.told.tp, letter.told.offset))
    if json:
        counts = [{"reason": kind, "count": count} for kind, count in by_kind(reasons)]
        rows = [letter.row() for letter in shown]
        typer.echo(orjson.dumps({"total": len(reasons), "reasons": counts, "deadLetters": rows}))
    else:
        _print_list(shown, reasons)


@dead_letters.command(epilog="Example: millrace dead-letters show order-events-2-1017")
def show(name: Id, bootstrap: Bootstrap = None, home: Home = None, json: Json = False) -> None:
    """Show one dead letter whole: why, where from, its own headers, key and value."""
    with _mailbox(bootstrap, home) as (mailbox, _):
        letter = mailbox.letter(name)
    headers = [[key, text(value)] for key, value in letter.headers[: -len(BLOCK)]]
    if json:
        typer.echo(orjson.dumps({**letter.row(), "headers": headers, "value": text(letter.value)}))
        return
    for label, said in _facts(letter):
        typer.echo(f"{label:<12} {said}")
    for key, value in headers:
        typer.echo(f"{'header':<12} {key}: {value}")
    typer.echo("")
    typer.echo(pretty(letter.value))


@dead_letters.command(epilog="Example: millrace dead-letters edit order-events-2-1017 --file mended.json")
def edit(
    name: Id,
    value: Value = None,
    file: File = None,
    topology: TopologyName = "analytics",
    again: Again = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Mend one dead letter and send it back, if its topic's rules take the mended value."""
    with _mailbox(bootstrap, home) as (mailbox, settings):
        judge = Judge(load_topology(topology, settings).group, mailbox.end)
        letter = _not_replayed(mailbox.letter(name), again)
        whole = mended(letter, _new_value(letter, value, file), judge)
        to, sent = Counter([letter.told.tp.topic]), 0
        if _agreed(to, dry_run, yes, quiet=json):
            sent = send(settings.cluster, [whole], note_mended=True)
    _print_sent(sent, to, [], json)


@dead_letters.command(epilog="Example: millrace dead-letters replay --topic order-events --dry-run")
def replay(
    name: MaybeId = None,
    reason: Reason = None,
    topic: SourceTopic = None,
    topology: TopologyName = "analytics",
    again: Again = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Send dead letters back as they are: one, or all of a topology's topics that match. Each is applied once."""
    with _mailbox(bootstrap, home) as (mailbox, settings):
        judge = Judge(load_topology(topology, settings).group, mailbox.end)
        if name is not None:
            meant: Callable[[], Iterable[Letter]] = partial(list, [_not_replayed(mailbox.letter(name), again)])
        else:
            meant = partial(_all_of, mailbox, judge.group, settings, topic, Filter(reason, again))
        to: Counter[str] = Counter()
        left: list[str] = []
        for letter in meant():
            why = judge(letter)
            if why is None:
                to[letter.told.tp.topic] += 1
            else:
                left.append(why)
        if not json:
            _say_left(left)
        if name is not None and left:
            raise MillraceError(f"{name} was not sent: mend it with `millrace dead-letters edit {name}`")
        sent = 0
        if _agreed(to, dry_run, yes, quiet=json):
            sent = send(settings.cluster, (letter for letter in meant() if judge(letter) is None))
    _print_sent(sent, to, left, json)


def _all_of(mailbox: Mailbox, group: Group, settings: Settings, topic: str | None, which: Filter) -> Iterator[Letter]:
    mine = {source.topic.name for source in group.sources}
    for source in _sources(mailbox, settings, topic):
        if topic is not None or source in mine:
            yield from _matching(mailbox, source, which)


def _say_left(reasons: Sequence[str]) -> None:
    if reasons:
        typer.echo(f"{len(reasons):,} stay, since they would be dead letters again (`edit` mends one):")
    for why, count in by_kind(reasons):
        typer.echo(f"  {count:>8,}  {why}")


def _agreed(to: Counter[str], dry_run: bool, yes: bool, *, quiet: bool) -> bool:
    said = ", ".join(f"{count:,} to {topic}" for topic, count in sorted(to.items()))
    if dry_run or not to:
        if not quiet:
            typer.echo(f"would send {said or 'nothing'}" if dry_run else "nothing to send")
        return False
    if not yes:
        typer.confirm(f"Send {said}?", abort=True, err=quiet)
    return True


def _print_sent(sent: int, to: Counter[str], left: Sequence[str], json: bool) -> None:
    if json:
        stay = [{"reason": kind, "count": count} for kind, count in by_kind(left)]
        typer.echo(orjson.dumps({"sent": sent, "matching": dict(to), "stay": stay}))
    elif sent:
        typer.echo(f"sent {sent:,}; {WHAT_NEXT}")


@contextmanager
def _mailbox(bootstrap: str | None, home: Path | None) -> Iterator[tuple[Mailbox, Settings]]:
    settings = Settings.from_environment(bootstrap=bootstrap, home=home)
    with Mailbox(settings.cluster) as mailbox:
        yield mailbox, settings


def _sources(mailbox: Mailbox, settings: Settings, topic: str | None) -> list[str]:
    return mailbox.sources(settings.prefix) if topic is None else [topic.removesuffix(".dead-letters")]


def _matching(mailbox: Mailbox, source: str, which: Filter) -> Iterator[Letter]:
    return (letter for letter in mailbox.letters(source) if which.matches(letter))


def _not_replayed(letter: Letter, again: bool) -> Letter:
    if letter.replayed_ms is not None and not again:
        at = _when(letter.replayed_ms)
        raise MillraceError(f"{letter.told.id} was replayed at {at}: --again sends it once more, which tables drop")
    return letter


def _new_value(letter: Letter, value: str | None, file: Path | None) -> bytes:
    if value is not None:
        return value.encode()
    if file is None:
        return _edited(letter)
    try:
        return file.read_bytes()
    except OSError as error:
        raise MillraceError(f"{file} cannot be read: {error.strerror}") from error


def _edited(letter: Letter) -> bytes:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise MillraceError("no editor is named: set EDITOR, or give --value or --file")
    before = b"" if letter.value is None else pretty(letter.value).encode()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"{letter.told.id}.json"
        path.write_bytes(before)
        try:
            ended = subprocess.run([*shlex.split(editor), str(path)], check=False).returncode
        except OSError as error:
            raise MillraceError(f"editor {editor!r} does not start: {error.strerror}") from error
        after = path.read_bytes()
    if ended or after == before:
        raise MillraceError("nothing was changed, so nothing is sent")
    return after


def _facts(letter: Letter) -> list[tuple[str, str]]:
    told = letter.told
    return [
        ("id", told.id),
        ("reason", told.reason),
        ("stage", told.stage),
        ("source", f"{told.tp.topic}[{told.tp.partition}] at {told.offset}, {_when(told.at_ms)}"),
        ("dead letter", f"{letter.at.topic}[{letter.at.partition}] at {letter.offset}, {_when(letter.put_aside_ms)}"),
        ("replayed", "no" if letter.replayed_ms is None else _when(letter.replayed_ms)),
        ("key", text(letter.key) or "(null)"),
        ("bytes", f"{letter.size:,}" + (f" and {told.cut:,} more in the source" if told.cut else "")),
    ]


def _print_list(letters: Sequence[Letter], reasons: Sequence[str]) -> None:
    console = Console()
    if letters:
        table = Table(box=None, pad_edge=False)
        for name in ("id", "dead letter", "time", "key", "bytes", "reason"):
            table.add_column(name, justify="right" if name == "bytes" else "left", overflow="fold")
        for letter in letters:
            place = f"{letter.at.partition}:{letter.offset}" + (" replayed" if letter.replayed_ms else "")
            cells = (letter.told.id, place, _when(letter.told.at_ms), (text(letter.key) or "(null)")[:40])
            table.add_row(*map(Text, (*cells, f"{letter.size:,}", letter.told.reason[:120])))
        console.print(table)
        console.print()
    console.print(f"{len(reasons):,} dead letters" + (f", {len(letters):,} shown" if reasons else ""))
    for kind, count in by_kind(reasons):
        console.print(Text(f"  {count:>8,}  {kind}"))


def _when(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(ms)
