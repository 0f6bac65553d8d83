"""Where a worker's CPU time goes, by stage: clocks around what happens once a batch or a flush, and each thread's own.

CPU time of the thread itself, so waiting for the network, for the other thread's turn at the interpreter or for a busy
machine counts nowhere, and a clock around thousands of events costs nothing that could be seen.
"""

import cProfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from pathlib import Path
from types import CodeType
from typing import Any

from bench.measure import Function, Stage
from streams.intake import Intake
from streams.kafka_log import KafkaLog
from tables import flush, folding, partition
from tables.engine import Engine

DECODE = "decode, event time, duplicates"
FOLDS = "folds"
APPLY = "apply to cells"
ENCODE = "flush: encode"
APPEND = "flush: append"
STORE = "flush: RocksDB"
REST = "Faust, event loop, sending, freeing memory"
THREADS = "other threads: fetch, decompress, parse"


class Stages:
    """Stage clocks of this process's main thread."""

    def __init__(self) -> None:
        """Nothing is measured before `install`."""
        self._spent: dict[str, float] = dict.fromkeys((DECODE, FOLDS, APPLY, ENCODE, APPEND, STORE), 0.0)
        self._before: dict[str, float] = {}
        self._threads: dict[str, float] = {}

    def install(self, engine: Engine) -> None:
        """Put clocks around the stages of this engine, once and for the life of the process."""
        put = object.__setattr__
        Intake.take = self._timed(DECODE, Intake.take)  # type: ignore[method-assign]
        partition.fold_all = self._timed(FOLDS, folding.fold_all)  # type: ignore[attr-defined]  # an import of it
        for table in engine.group.tables:
            put(table.row, "apply", self._timed(APPLY, table.row.apply))
            put(table.row, "apply_checked", self._timed(APPLY, table.row.apply_checked))
        flush.take = self._timed(ENCODE, flush.take)
        flush._write_store = self._timed(STORE, flush._write_store)
        KafkaLog.append = self._timed_steps(APPEND, KafkaLog.append)  # type: ignore[method-assign]

    def start(self) -> None:
        """Begin: what was spent so far does not count."""
        self._before, self._threads = dict(self._spent), _thread_times()

    def stop(self) -> list[Stage]:
        """What was spent since the start, by stage; then what else the main thread did, then the other threads."""
        threads = {name: cpu - self._threads.get(name, 0.0) for name, cpu in _thread_times().items()}
        stages = [Stage(name, cpu - self._before[name]) for name, cpu in self._spent.items()]
        main = threads.pop(threading.main_thread().name)
        stages.append(Stage(REST, main - sum(stage.cpu_s for stage in stages)))
        return [*stages, Stage(THREADS, sum(threads.values()))]

    def _timed(self, stage: str, run: Callable[..., Any]) -> Callable[..., Any]:
        spent, clock = self._spent, time.thread_time

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = clock()
            try:
                return run(*args, **kwargs)
            finally:
                spent[stage] += clock() - began

        return timed

    def _timed_steps(self, stage: str, run: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        async def timed(*args: Any, **kwargs: Any) -> Any:
            return await _Steps(run(*args, **kwargs), self._spent, stage)

        return timed


class _Steps(Awaitable[Any]):
    """A coroutine whose steps are timed, without what other tasks do between them."""

    def __init__(self, steps: Coroutine[Any, Any, Any], spent: dict[str, float], stage: str) -> None:
        self._steps, self._spent, self._stage = steps, spent, stage

    def __await__(self) -> Generator[Any, Any, Any]:
        given: Any = None
        while True:
            began = time.thread_time()
            try:
                waits_for = self._steps.send(given)
            except StopIteration as ended:
                return ended.value
            finally:
                self._spent[self._stage] += time.thread_time() - began
            given = yield waits_for


class Functions:
    """Python's own profiler in the main thread."""

    def __init__(self) -> None:
        """Nothing is measured before `start`."""
        self._profile = cProfile.Profile(time.thread_time)

    def start(self) -> None:
        """Begin."""
        self._profile.enable()

    def stop(self, most: int = 25) -> list[Function]:
        """The functions that took most time of their own."""
        self._profile.disable()
        entries = sorted(self._profile.getstats(), key=lambda entry: -entry.inlinetime)[:most]
        return [Function(_named(entry.code), entry.callcount, entry.inlinetime) for entry in entries]


def _named(code: CodeType | str) -> str:
    if isinstance(code, str):
        return code
    return f"{'/'.join(Path(code.co_filename).parts[-2:])}:{code.co_firstlineno} {code.co_qualname}"


def _thread_times() -> dict[str, float]:
    return {
        thread.name: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.ident is not None
    }
