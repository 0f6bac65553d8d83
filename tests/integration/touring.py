"""Runs a document's commands as its reader would: several terminals, in order, with what each has to print.

A block of language `console` is what a terminal shows: lines that begin with `$ ` are typed, `^C` is Ctrl-C, a `\\` at
the end of a line goes on with the next one, and everything else is what has to be seen then. `console 2` and
`console 3` are further terminals; a block of theirs that begins without a command is what the one that still runs
prints next. `…` stands for what is different on every machine, and alone on a line for any lines; the order of lines is
not looked at, since Kafka promises none across partitions.
"""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

LIMIT_S: Final = 90.0
# Reads only: a reader who is too early looks again.
LOOKS: Final = re.compile(
    r"(ls|curl -s(?!.* -d )|millrace (groups describe|topics|broker status|doctor|consume(?!.*--group)))\b", re.DOTALL
)
FENCE: Final = re.compile(r"^```(.*)$")
STOP: Final = "^C"


@dataclass(frozen=True)
class Step:
    """One command in one terminal (None: what already runs there) and the lines that are to be seen after it."""

    line: int
    terminal: int
    command: str | None
    shown: tuple[str, ...]

    def __str__(self) -> str:
        """Where it stands and what it is, for a report."""
        return f"line {self.line}, terminal {self.terminal}: {self.command or '(what it prints next)'}"


@dataclass(frozen=True)
class Section:
    """A heading of the second level and the steps under it."""

    title: str
    steps: tuple[Step, ...]


def sections(text: str) -> list[Section]:
    """What a document has to be done, by its headings; sections without a command are left out."""
    titled: dict[str, list[Step]] = {}
    title, block, terminal, began = "", list[str](), 0, 0
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if fence and terminal:
            titled.setdefault(title, []).extend(_steps(block, terminal, began))
            terminal = 0
        elif fence:
            language, _, of = fence[1].strip().partition(" ")
            if language == "console":
                block, terminal, began = [], int(of or 1), number + 1
        elif terminal:
            block.append(line)
        elif line.startswith("## "):
            title = line[3:]
    return [Section(name, tuple(steps)) for name, steps in titled.items()]


def _steps(block: Sequence[str], terminal: int, began: int) -> Iterator[Step]:
    at, command, shown = began, None, list[str]()
    lines = iter(enumerate(block, began))
    for number, line in lines:
        if line.startswith("$ ") or line == STOP:
            if command is not None or shown:
                yield Step(at, terminal, command, tuple(shown))
            while line.endswith("\\"):
                line = f"{line}\n{next(lines)[1]}"
            at, command, shown = number, line.removeprefix("$ "), []
        elif line.strip():
            shown.append(line)
    yield Step(at, terminal, command, tuple(shown))


def unseen(expected: Sequence[str], printed: Sequence[str]) -> str | None:
    """What is missing or too much of what was to be seen; None if it is all there and nothing else.

    >>> unseen(["0:0 … hello"], ["0:0        2026-01-01 10:00:00  hello"]) is None
    True
    >>> unseen(["0:0 … hello", "…"], ["0:0 x hello", "0:1 y other"]) is None
    True
    >>> unseen(["hello"], ["hello", "again"])
    "not foreseen: 'again'"
    """
    left = [" ".join(line.split()) for line in printed if line.strip()]
    for line in expected:
        if line.strip() == "…":
            continue
        pattern = re.compile(".*".join(re.escape(part) for part in " ".join(line.split()).split("…")))
        found = next((one for one in left if pattern.fullmatch(one)), None)
        if found is None:
            return f"not seen: {line!r}"
        left.remove(found)
    if left and "…" not in map(str.strip, expected):
        return f"not foreseen: {left[0]!r}"
    return None


@dataclass
class Terminal:
    """A shell window: what was exported in it holds for what is typed later; one command at a time."""

    number: int
    directory: Path
    environment: Mapping[str, str]
    _preamble: list[str] = field(default_factory=list)
    _process: "subprocess.Popen[bytes] | None" = None
    _read: int = 0
    _stopped: bool = False

    @property
    def _log(self) -> Path:
        return self.directory / f"terminal-{self.number}.log"

    def type(self, command: str) -> None:
        """Start a command, once the one before has ended; or end that one with Ctrl-C."""
        if command == STOP:
            assert self._process is not None, "nothing runs here that Ctrl-C could end"
            self._stopped = True
            for _ in range(int(LIMIT_S)):
                # again after a while, as anybody would: bash takes one that comes between two commands for theirs
                os.killpg(self._process.pid, signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(2)
                    break
            self.ended()
            return
        self.ended()
        if command.startswith(("export ", "source ", "cd ")):
            self._preamble.append(command)
        script = "\n".join([*self._preamble, command])
        self._read = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                ["bash", "-c", script],
                cwd=self.directory,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def complaint(self) -> str | None:
        """Wait for what runs here to end, and say how if it was not well, and not by Ctrl-C."""
        if self._process is None:
            return None
        code, stopped = self._process.wait(LIMIT_S), self._stopped
        self._process, self._stopped = None, False
        return None if code == 0 or stopped else f"ended with {code}"

    def ended(self) -> None:
        """Wait for what runs here to end; it has to end well, unless it was stopped."""
        wrong = self.complaint()
        assert wrong is None, f"{wrong}: {''.join(self.printed())}"

    def printed(self) -> list[str]:
        """What it has printed since `seen`: while it runs, whole lines."""
        raw = self._log.read_bytes()[self._read :]
        whole = raw if self._process is None else raw[: raw.rfind(b"\n") + 1]
        return whole.decode(errors="replace").splitlines(keepends=True)

    def seen(self, lines: Sequence[str]) -> None:
        """Take them as looked at."""
        self._read += len("".join(lines).encode())

    def close(self) -> None:
        """End what runs here, however it takes it."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._process = None


@dataclass
class Visitor:
    """Does what a document says; `replaced` is put for what would be in the way here, such as a port or a directory."""

    directory: Path
    environment: Mapping[str, str]
    replaced: Mapping[str, str] = field(default_factory=dict)
    _terminals: dict[int, Terminal] = field(default_factory=dict)

    def follow(self, steps: Sequence[Step]) -> None:
        """Do them one after the other; raises AssertionError with the line of the first that goes otherwise."""
        for step in steps:
            try:
                self._do(step)
            except AssertionError as error:
                raise AssertionError(f"{step}\n{error}") from None

    def _do(self, step: Step) -> None:
        if step.terminal not in self._terminals:
            self._terminals[step.terminal] = Terminal(step.terminal, self.directory, self.environment)
        terminal = self._terminals[step.terminal]
        command = None if step.command is None else self._here(step.command)
        shown = [self._here(line) for line in step.shown]
        deadline = time.monotonic() + LIMIT_S
        if command is not None:
            terminal.type(command)
        while True:
            wrong = terminal.complaint() if step.terminal == 1 else None
            printed = terminal.printed()
            wrong = wrong or (unseen(shown, printed) if shown else None)
            if wrong is None:
                terminal.seen(printed)
                return
            said = "".join(printed)
            assert time.monotonic() < deadline, f"{wrong}; it printed:\n{said}"
            if step.terminal == 1:
                assert LOOKS.match(command or ""), f"{wrong}; it printed:\n{said}"
                terminal.type(command or "")
            time.sleep(0.1)

    def _here(self, text: str) -> str:
        for there, here in self.replaced.items():
            text = text.replace(there, here)
        return text

    def close(self) -> None:
        """End everything that still runs, the last terminal first."""
        for number in sorted(self._terminals, reverse=True):
            self._terminals[number].close()
