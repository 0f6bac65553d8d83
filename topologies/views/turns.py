"""How long a follower works at a time before answers have their turn, on the event loop that both share."""

import asyncio
import time
from typing import Final

# With little to answer: so short that an answer hardly waits (s).
LEAST_S: Final = 0.001
# With much to answer, a follower takes this part of the time that answers took, but no more than that at once (s):
# without it a server that has more to answer than it can falls behind for ever.
PART: Final = 0.25
MOST_S: Final = 0.01
# A copy that is not complete yet answers nobody: it takes as long as the answers of the version that it will follow.
HURRIED_PART: Final = 1.0
HURRIED_MOST_S: Final = 0.03
# A request takes several rounds of the loop: were each followed by a turn, it would wait for as many turns. So a turn
# comes when rounds have been so short (s) that nobody had anything to do, so often in a row, or after so long (s).
QUIET_S: Final = 0.0001
QUIET_ROUNDS: Final = 2
PATIENCE_S: Final = 0.02


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
        """Let the others run until they have nothing more to do for now."""
        self._others_s = await give_way()


async def give_way() -> float:
    """Let everybody else run until nobody has anything more to do for now; returns how long that took (s)."""
    began = now = time.monotonic()
    quiet = 0
    while quiet < QUIET_ROUNDS and now < began + PATIENCE_S:
        before = now
        await asyncio.sleep(0)
        now = time.monotonic()
        quiet = quiet + 1 if now < before + QUIET_S else 0
    return now - began
