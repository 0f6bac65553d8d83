"""Runs a topology's background functions beside the server: they are started again when they fail, and ended with it.

The server and its other answers go on meanwhile; a view that answers with what such a function posts decides how old
it may be (`Reader.posted`).
"""

import asyncio
import logging
from dataclasses import replace

from streams.memory import GIVE_BACK_EVERY_S, give_back
from topologies.topology import Background
from topologies.views.reader import Reader

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 0.5
LAST_RETRY_S = 30.0
# After running so long, a failure is a new one: it is logged again, and the intervals begin anew.
RECOVERED_S = 60.0


async def keep_running(name: str, function: Background, reader: Reader) -> None:
    """Run until the function returns, or until cancelled; a failure that repeats is logged once."""
    loop, retry_s, told = asyncio.get_running_loop(), FIRST_RETRY_S, False
    while True:
        started = loop.time()
        try:
            await function(replace(reader, background=True))
            return
        except Exception:
            if loop.time() - started > RECOVERED_S:
                retry_s, told = FIRST_RETRY_S, False
            if not told:
                logger.exception("background function %s failed, it is tried again", name)
            told = True
        await asyncio.sleep(retry_s)
        retry_s = min(LAST_RETRY_S, retry_s * 2)


async def keep_giving_back() -> None:
    """Hand freed memory back to the system now and then, until cancelled."""
    while True:
        await asyncio.sleep(GIVE_BACK_EVERY_S)
        await give_back()
