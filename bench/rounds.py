"""Running a contender: in a process of its own, which ends when it has reported, or with this one."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bench.measure import Outcome, Task
from streams.errors import MillraceError

ENDING_S: Final = 20.0
OUTCOME: Final = b'{"events":'


@dataclass(frozen=True)
class Contender:
    """What runs: a module of `bench.contenders`, in one of its variants. `events` is the most that it is given."""

    name: str
    module: str
    variant: str = ""
    events: int | None = None
    warmup: int | None = None


CONTENDERS: Final = (
    Contender("bare_librdkafka", "bare_librdkafka"),
    Contender("bare_aiokafka", "bare_aiokafka"),
    # it keeps one pace from its first thousand events on, and would take minutes for all
    Contender("plain_faust", "plain_faust", events=10_000, warmup=2_000),
    Contender("one_table", "ours", "one_table"),
    Contender("all_tables", "ours", "all_tables"),
)


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
        # a Faust worker that is not ready yet turns its spinner without ending the line
        _, found, rest = line.rpartition(OUTCOME)
        if found:
            return msgspec.json.decode(found + rest, type=Outcome)
    process.wait()
    last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    raise MillraceError(f"contender {contender.name} ended without a result: {last[0]}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        if process.stdout is not None:
            process.stdout.close()
