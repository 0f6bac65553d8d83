"""Work that waits for Kafka or takes long, in a thread of its own, so that answers are not held up."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from streams.errors import MillraceError
from topologies.real_time import is_first, run_first

P = ParamSpec("P")
T = TypeVar("T")


async def aside(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the function returns or raises. If the caller is cancelled it goes on, and nobody hears of it.

    In a daemon thread: a cluster that does not answer must not hold up the end of the process, as the threads of an
    executor would.
    """
    loop, first = asyncio.get_running_loop(), is_first()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # there is one where there is no error

    def run() -> None:
        result, error = None, None
        try:
            if first:
                # the server waits for the interpreter's lock while this thread has it, and thus for its turn on a core
                with contextlib.suppress(MillraceError):
                    run_first()
            result = function(*args, **kwargs)
        except Exception as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, name=getattr(function, "__name__", "aside"), daemon=True).start()
    return await done
