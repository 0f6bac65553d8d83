"""Where a worker's CPU time goes, by stage: clocks around what happens once a batch or a flush, and each thread's own.

CPU time of the thread itself, so waiting for the network, for the other thread's turn at the interpreter or for a busy
machine counts nowhere, and a clock around thousands of events costs nothing that could be seen.
"""

import cProfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

from bench.measure import Function, Stage
from streams.intake import Intake
from streams.kafka_log import KafkaLog
from tables import deciding, flush, folding, forwarding, partition
from tables.engine import Engine
from topologies.publishing import Publishing

DECODE = "decode, event time, duplicates"
FOLDS = "folds"
APPLY = "apply to cells"
FORWARD = "hand on to another topic"
DECIDE = "flush: decide what is due"
ENCODE = "flush: encode"
APPEND = "flush: append"
STORE = "flush: RocksDB"
PUBLISH = "publish results"
REST = "Faust, event loop, sending, freeing memory"
THREADS = "other threads: fetch, decompress, parse"
STAGES = (DECODE, FOLDS, FORWARD, APPLY, DECIDE, ENCODE, APPEND, STORE, PUBLISH)


class Stages:
    """Stage clocks of this process's main thread."""

    def __init__(self) -> None:
        """Nothing is measured before `install`."""
        self._spent: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self._inner = 0.0
        self._before: dict[str, float] = {}
        self._threads: dict[str, float] = {}

    def install(self, engine: Engine) -> None:
        """Put clocks around the stages of this engine, once and for the life of the process."""
        put = object.__setattr__
        Intake.take = self._timed(DECODE, Intake.take)  # type: ignore[method-assign]
        partition.fold_all = self._timed(FOLDS, folding.fold_all)  # type: ignore[attr-defined]  # an import of it
        partition.forward_all = self._timed(FORWARD, forwarding.forward_all)  # type: ignore[attr-defined]  # likewise
        for table in engine.group.tables:
            put(table.row, "apply", self._timed(APPLY, table.row.apply))
            put(table.row, "apply_checked", self._timed(APPLY, table.row.apply_checked))
        flush.decided_records = self._timed(DECIDE, deciding.decided_records)  # type: ignore[attr-defined]  # likewise
        flush.take = self._timed(ENCODE, flush.take)
        flush._write_store = self._timed(STORE, flush._write_store)
        Publishing.hear = self._timed(PUBLISH, Publishing.hear)  # type: ignore[method-assign]
        Publishing.step = self._timed_steps(PUBLISH, Publishing.step)  # type: ignore[method-assign]
        Publishing.follow = self._timed_steps(PUBLISH, Publishing.follow)  # type: ignore[method-assign]
        # the part of `append` that works, in a task of its own
        KafkaLog._acknowledged = self._timed_steps(APPEND, KafkaLog._acknowledged)  # type: ignore[method-assign]

    def start(self) -> None:
        """Begin: what was spent so far does not count."""
        self._before, self._threads = dict(self._spent), _thread_times()

    def stop(self) -> list[Stage]:
        """What was spent since the start, by stage; then what else the main thread did, then the other threads.

        What a stage spends inside of another counts for itself alone.
        """
        threads = {name: cpu - self._threads.get(name, 0.0) for name, cpu in _thread_times().items()}
        stages = [Stage(name, cpu - self._before[name]) for name, cpu in self._spent.items() if cpu > 0]
        main = threads.pop(threading.main_thread().name)
        stages.append(Stage(REST, main - sum(stage.cpu_s for stage in stages)))
        return [*stages, Stage(THREADS, sum(threads.values()))]

    def _timed(self, stage: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            return self.clocked(stage, partial(run, *args, **kwargs))

        return timed

    def clocked(self, stage: str, run: Callable[[], Any]) -> Any:
        """Run something that does not wait, on a stage's account."""
        outer, self._inner = self._inner, 0.0
        began = time.thread_time()
        try:
            return run()
        finally:
            whole = time.thread_time() - began
            self._spent[stage] += whole - self._inner
            self._inner = outer + whole

    def _timed_steps(self, stage: str, run: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        async def timed(*args: Any, **kwargs: Any) -> Any:
            return await _Steps(run(*args, **kwargs), self, stage)

        return timed


class _Steps(Awaitable[Any]):
    """A coroutine whose steps are timed, without what other tasks do between them."""

    def __init__(self, steps: Coroutine[Any, Any, Any], stages: Stages, stage: str) -> None:
        self._steps, self._stages, self._stage = steps, stages, stage

    def __await__(self) -> Generator[Any, Any, Any]:
        given: Any = None
        while True:
            try:
                waits_for = self._stages.clocked(self._stage, partial(self._steps.send, given))
            except StopIteration as ended:
                return ended.value
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
