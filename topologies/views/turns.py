"""How long a follower works at a time before answers have their turn, on the event loop that both share."""

import asyncio
import time
from typing import Final

# With little to answer: so short that an answer hardly waits (s).
LEAST_S: Final = 0.002
# With much to answer, a follower takes this part of the time that answers took, but no more than that at once (s):
# without it a server that has more to answer than it can falls behind for ever.
PART: Final = 0.25
MOST_S: Final = 0.01
# A copy that is not complete yet answers nobody: it takes as long as the answers of the version that it will follow.
HURRIED_PART: Final = 1.0
HURRIED_MOST_S: Final = 0.03


class Turns:
    """The turns of one follower. One takes its turn from `begin`, and asks `due` now and then whether it is over."""

    def __init__(self) -> None:
        self._until, self._others_s = 0.0, 0.0

    def begin(self, *, hurried: bool = False) -> None:
        """Begin a turn now, as long as what the others took before it allows."""
        part, most_s = (HURRIED_PART, HURRIED_MOST_S) if hurried else (PART, MOST_S)
        self._until = time.monotonic() + min(most_s, max(LEAST_S, part * self._others_s))

    def due(self) -> bool:
        """Whether the turn is over."""
        return time.monotonic() >= self._until

    async def give(self) -> None:
        """Let everything else that is ready run once."""
        began = time.monotonic()
        await asyncio.sleep(0)
        self._others_s = time.monotonic() - began
