"""Named points between the steps of a flush, a recovery and a hand-over, where a fault harness may strike.

In a worker nothing is installed and `reached` costs one comparison. The harness installs a function that ends the
process at the n-th passage of a point; no code of the engine knows more of it.
"""

from collections.abc import Callable
from typing import Final

POINTS: Final = (
    "changelog-sent",  # changelog records are acknowledged, the progress is not written
    "progress-sent",  # the progress is acknowledged, the local store is behind it
    "store-written",  # the local store is there, the offsets are not committed
    "before-commit",  # every partition is flushed, nothing is committed
    "recovering",  # a stretch of a changelog is in the store, the rest is not
    "handing-over",  # flushed at a revoke, the stores are still open
)
# Of the command that replays in place (topologies.replay.resetting), not of a worker.
REPLAY_POINTS: Final = (
    "replay-noted",  # what is to be done is on disk, nothing of it is done
    "replay-committed",  # the group's offsets are set back, its state is whole
    "replay-inner-deleted",  # what the group writes for itself is gone
    "replay-state-deleted",  # the topics of the state are gone, the local state is not
    "replay-made-anew",  # empty topics are there, nothing says where they begin
    "replay-begun",  # the tables have begun anew, the journal does not say so yet
)

_strike: Callable[[str], None] | None = None


def reached(point: str) -> None:
    """Say that execution has come to a point."""
    if _strike is not None:
        _strike(point)


def install(strike: Callable[[str], None] | None) -> None:
    """Have `strike` called at each point from now on, or nothing any more."""
    global _strike
    _strike = strike
