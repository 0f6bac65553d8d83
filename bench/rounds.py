"""Running contenders: each in a process of its own, in interleaved rounds, on one topic."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from bench.measure import Outcome, Task
from streams.errors import MillraceError

LIMIT_S: Final = 300.0
ENDING_S: Final = 20.0


@dataclass(frozen=True)
class Contender:
    """What runs: a module of `bench.contenders`, in one of its variants; `events` None means all there are."""

    name: str
    module: str
    variant: str = ""
    warmup: int | None = None
    events: int | None = None


def run_contender(contender: Contender, task: Task, log: Path) -> Outcome:
    """Start the process, return what it reports, and end it. Raises MillraceError when it reports nothing."""
    argument = msgspec.json.encode(task).decode()
    command = [sys.executable, "-m", f"bench.contenders.{contender.module}", argument]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
    try:
        return _reported(process, contender, log)
    finally:
        _end(process)


def _reported(process: "subprocess.Popen[bytes]", contender: Contender, log: Path) -> Outcome:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(b"{"):
            return msgspec.json.decode(line, type=Outcome)
    process.wait()
    last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    raise MillraceError(f"contender {contender.name} ended without a result ({last[0]}); see {log}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
