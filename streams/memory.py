"""What a process that runs for months does about its memory."""

import ctypes
import gc
import sys

# Python itself has 700 (2,000 from 3.14 on), 10, 10.
COLLECT_AFTER = (100_000, 20, 50)
GIVE_BACK_EVERY_S = 30.0


def spare_the_collector() -> None:
    """Set Python's collector to what a worker holds, once all modules are there."""
    # Batches are thousands of short-lived objects without cycles: with Python's defaults the collector walks all live
    # accumulators again and again, a quarter of the worker's time (measured).
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def give_back() -> None:
    """Hand freed memory back to the system; takes milliseconds, in any thread, and does nothing without glibc.

    glibc keeps what lies between pieces in use: with batches of many sizes a worker's resident memory went on growing,
    by 100 MiB over nine million events, though what it held did not.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
