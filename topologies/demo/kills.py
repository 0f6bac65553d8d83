"""Killing workers in the middle of a demo, as a power cut would, and starting them again."""

import random
import shutil
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field

from streams.errors import MillraceError
from topologies.demo.run import Demo, Seat

READY_S = 60.0
POLL_S = 0.02
BETWEEN_S = (1.5, 4.0)
# In this one of the kills the state directory of all partitions is deleted too, so that they come from changelogs.
WIPE_AT = 3


@dataclass
class Kills:
    """`count` times: kill a worker with SIGKILL while it works, start it again, measure until it is ready.

    With the third kill all workers die and their local state is deleted.
    """

    demo: Demo
    count: int
    seed: int = 1
    done: int = 0
    ready_s: list[float] = field(default_factory=list)
    failure: BaseException | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin in the background."""
        self._thread = threading.Thread(target=self._run, name="kills", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when the last one is ready again. Raises what went wrong."""
        if self._thread is not None:
            self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        rng = random.Random(self.seed)
        try:
            while self.done < self.count and not self.demo.stop.wait(rng.uniform(*BETWEEN_S)):
                seat = rng.choice(self.demo.seats)
                wipe = self.done + 1 == WIPE_AT
                self._kill(self.demo.seats if wipe else [seat], wipe=wipe)
                self.done += 1
        except BaseException as error:
            self.failure = error

    def _kill(self, seats: list[Seat], *, wipe: bool) -> None:
        for child in [seat.child for seat in seats if seat.child is not None]:
            self.demo.children.running.remove(child)  # from here on its end is no failure
            child.process.kill()
            child.process.wait()
        if wipe:
            for group in {seat.group for seat in seats}:
                for store in (self.demo.settings.state_dir / group).glob("[0-9]*"):
                    shutil.rmtree(store)
        started = time.monotonic()
        for seat in seats:
            self.demo.start_worker(seat)
        for seat in seats:
            self._await_ready(seat)
        self.ready_s.append(round(time.monotonic() - started, 2))

    def _await_ready(self, seat: Seat) -> None:
        deadline = time.monotonic() + READY_S
        url = f"http://127.0.0.1:{seat.port}/readyz"
        while not _answers(url):
            if time.monotonic() > deadline:
                raise MillraceError(f"{seat.topology} {seat.name} is not ready {READY_S:g} s after it was killed")
            time.sleep(POLL_S)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
