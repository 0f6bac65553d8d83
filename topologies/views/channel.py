r"""What the clients of one live view are sent, as values: no clock, no connection (`channels`, `live`).

A frame is one event of a stream (https://html.spec.whatwg.org/multipage/server-sent-events.html), `\n` between lines:

    : computed 1767225600123
    event: snapshot | delta | problem
    id: <epoch>-<seq>
    data: <the answer> | <a JSON Patch that makes it of the answer with the id before> | <a problem>

What a client has is one number, the seq of the last frame that it was sent. From it, and from the last deltas, which
are kept in a ring, follows the next frame: nothing, the newest delta, all deltas that were missed as one, or a snapshot
when they have left the ring. So nothing is queued for anybody, and clients that are equally far share the bytes.
"""

import secrets
from collections import deque
from dataclasses import dataclass
from typing import Final

from topologies.views.patches import patch
from topologies.views.problems import Problem

# Deltas beyond these are not worth keeping: a snapshot is shorter.
RING_DELTAS: Final = 100
RING_BYTES: Final = 16 << 10
RING_SNAPSHOTS: Final = 2
BEAT: Final = b":\n\n"
EPOCH_BYTES: Final = 6


@dataclass(frozen=True)
class Frame:
    """Bytes to send, and the seq that a client is at when it has them."""

    raw: bytes
    seq: int


class Channel:
    """The answers of one view, one after the other; `epoch` tells its ids from those of any other."""

    def __init__(self) -> None:
        """No answer yet: seq 0."""
        self.epoch = secrets.token_hex(EPOCH_BYTES)
        self.seq = 0
        self.body = b""
        self.problem: Problem | None = None
        self._of: object = None
        self._at_ms = 0
        self._deltas: deque[bytes] = deque()
        self._delta_bytes = 0
        self._frames: dict[int | None, Frame] = {}

    @property
    def begun(self) -> bool:
        """Whether there is an answer, or the problem instead of it."""
        return self.seq > 0

    def publish(self, body: bytes, at_ms: int, of: object = None) -> bool:
        """Take the answer as computed at a time; returns whether it is another than before.

        One that is not `of` the same as the one before is a beginning: no delta leads to it.
        """
        before, anew = self.body, self.problem is not None or not self.begun or of != self._of
        if body == before and not anew:
            return False
        delta = b"" if anew else patch(before, body)
        self.body, self.problem, self._of = body, None, of
        if not anew and not delta:
            return False
        self._next(at_ms)
        if anew:
            self._forget()
        else:
            self._keep(delta)
        return True

    def fail(self, problem: Problem, at_ms: int) -> bool:
        """Take the problem that there is instead of an answer; returns whether it is another than before."""
        if self.problem is not None and self.problem.raw == problem.raw:
            return False
        self.problem = problem
        self._next(at_ms)
        self._forget()
        return True

    def _next(self, at_ms: int) -> None:
        self.seq += 1
        self._at_ms = at_ms
        self._frames.clear()

    def _forget(self) -> None:
        self._deltas.clear()
        self._delta_bytes = 0

    def _keep(self, delta: bytes) -> None:
        self._deltas.append(delta)
        self._delta_bytes += len(delta)
        limit = max(RING_BYTES, RING_SNAPSHOTS * len(self.body))
        while len(self._deltas) > RING_DELTAS or (self._delta_bytes > limit and len(self._deltas) > 1):
            self._delta_bytes -= len(self._deltas.popleft())

    def position(self, last_id: str | None) -> int | None:
        """The seq of an id that a client brings back; None if nothing follows on it from here."""
        epoch, _, number = (last_id or "").rpartition("-")
        if epoch != self.epoch or not (number.isascii() and number.isdecimal() and len(number) < 19):
            return None
        seq = int(number)
        return seq if self.seq - len(self._deltas) <= seq <= self.seq else None

    def after(self, seq: int | None) -> Frame | None:
        """The frame for a client that is at `seq`, or has nothing yet; None if it is up to date."""
        if seq == self.seq:
            return None
        missed = None if seq is None else self.seq - seq
        if missed is None or missed > len(self._deltas):
            missed = None
        if missed not in self._frames:
            self._frames[missed] = self._frame(missed)
        return self._frames[missed]

    def _frame(self, missed: int | None) -> Frame:
        if self.problem is not None:
            event, data = b"problem", self.problem.raw
        elif missed is None:
            event, data = b"snapshot", self.body
        else:
            newest = (self._deltas[at] for at in range(len(self._deltas) - missed, len(self._deltas)))
            event, data = b"delta", b"[" + b",".join(newest) + b"]"
        told = b": computed %d\nevent: %s\nid: %s-%d\n" % (self._at_ms, event, self.epoch.encode(), self.seq)
        return Frame(told + b"data: " + data + b"\n\n", self.seq)
