"""What a process that runs for months does about its memory."""

import asyncio
import ctypes
import gc
import sys

# Python itself has 700 (2,000 from 3.14 on), 10, 10.
COLLECT_AFTER = (100_000, 20, 50)
GIVE_BACK_EVERY_S = 30.0
# The generations up to this one: what was there before is not walked.
YOUNG = 1


def spare_the_collector() -> None:
    """Set Python's collector to what a worker holds, once all modules are there."""
    # Batches are thousands of short-lived objects without cycles: with Python's defaults the collector walks all live
    # accumulators again and again, a quarter of the worker's time (measured).
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


async def give_back() -> None:
    """Hand memory that is not needed any more back to the system; to be done now and then, on the event loop."""
    # The spared collector comes by once in a quarter of an hour at a few thousand events a second, and what waits for
    # it is little in number but not in size: futures and tracebacks in cycles held 20 MiB of fetched bytes (measured).
    gc.collect(YOUNG)
    await asyncio.to_thread(trim)


def trim() -> None:
    """Have glibc give back what is free; takes milliseconds, in any thread, and does nothing without glibc.

    It keeps what lies between pieces in use: with batches of many sizes a worker's resident memory went on growing,
    by 100 MiB over nine million events, though what it held did not.
    """
    if sys.platform == "linux":
        trimmed = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trimmed is not None:
            trimmed(0)
