"""Running before everything else on a machine: for what answers, beside what counts.

A view server and workers on one machine compete for its cores. Workers want as much as they can get and do not mind
when; an answer waits for each turn that the server does not get. With real-time priority the system runs the server's
thread as soon as it has something to do (`SCHED_RR`, sched(7)). On a machine of its own it needs none.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from streams.errors import MillraceError

# The lowest there is: before all that is not real-time, and after whatever of the system's own is.
PRIORITY = 1


def run_first() -> None:
    """Give the calling thread real-time priority; threads and processes that it starts do not inherit it.

    Raises MillraceError where the system has none or does not permit it, and on a single core, which nobody else would
    get while this thread has much to do.
    """
    if not hasattr(os, "sched_setscheduler"):
        raise MillraceError("there is no real-time priority on this system: run it without --real-time")
    if len(os.sched_getaffinity(0)) < 2:
        raise MillraceError(
            "real-time priority on a single core would stop everything else: run it without --real-time"
        )
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except OSError as error:
        raise MillraceError(
            f"real-time priority cannot be had ({error.strerror or error!r}): run it as root or with CAP_SYS_NICE "
            "(systemd: AmbientCapabilities=CAP_SYS_NICE), or without --real-time"
        ) from error


def is_first() -> bool:
    """Whether the calling thread has real-time priority."""
    try:
        return hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR
    except OSError:
        return False


def may_run_first() -> bool:
    """Whether `run_first` would do it; tried in a thread that ends with it."""
    done: list[bool] = []

    def attempt() -> None:
        with suppress(MillraceError):
            run_first()
            done.append(True)

    trying = threading.Thread(target=attempt)
    trying.start()
    trying.join()
    return bool(done)


@contextmanager
def running_first() -> Iterator[None]:
    """Run the calling thread first for a while. Raises as `run_first`."""
    run_first()
    try:
        yield
    finally:
        # who may not raise it may not let go of the flag either, and keeps that
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
