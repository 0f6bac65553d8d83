"""Locks of a replay in a group's state directory: one replay at a time, and workers wait while a state is dropped."""

import asyncio
import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from topologies.names import held, holder

logger = logging.getLogger(__name__)

REPLAY: Final = "replay.running"
RESET: Final = "replay.resetting"
POLL_S: Final = 0.1


def alone(directory: Path, group: str) -> AbstractContextManager[None]:
    """Be the only replay of a group on this state directory. Raises MillraceError."""
    return held(directory / REPLAY, f"a replay of {group} is running already")


def resetting(directory: Path, group: str) -> AbstractContextManager[None]:
    """Have workers of this host that start now wait until the context is left. Raises MillraceError."""
    return held(directory / RESET, f"the state of {group} is being dropped already")


async def over(directory: Path, group: str) -> None:
    """Return when no replay is dropping the group's state here: the worker of a supervisor need not fail meanwhile."""
    told = False
    while holder(directory / RESET) is not None:
        if not told:
            logger.warning("the state of %s is being dropped by `millrace replay`: waiting until that is over", group)
        told = True
        await asyncio.sleep(POLL_S)
