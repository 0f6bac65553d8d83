"""What is done to a fleet. Each fault is over when the fleet owns all partitions again."""

import random
import time
from collections.abc import Callable
from pathlib import Path

from streams.errors import MillraceError
from tables.points import POINTS
from topologies.chaos.fleet import Fleet

THIRD = 2
DIES_WITHIN_S = 20.0
FLUSH_POINTS = tuple(point for point in POINTS if point not in ("recovering", "handing-over"))
# RocksDB's first files fit, its next write-ahead log does not: the disk is full in the middle of a flush.
FULL_AT_BYTES = 192 << 10


def kill(fleet: Fleet, rng: random.Random) -> None:
    """SIGKILL at any moment."""
    slot = _any(fleet, rng)
    fleet.kill(slot)
    fleet.start(slot)


def kill_at_a_point(fleet: Fleet, rng: random.Random) -> None:
    """SIGKILL between two steps of a flush."""
    slot = _any(fleet, rng)
    fleet.kill(slot)
    fleet.start(slot, fault=f"{rng.choice(FLUSH_POINTS)}:{rng.randrange(1, 9)}")
    if not fleet.died(slot, DIES_WITHIN_S):
        fleet.kill(slot)
    fleet.start(slot)


def kill_in_recovery(fleet: Fleet, rng: random.Random) -> None:
    """Everything wiped, and the first worker killed while it reads the changelogs."""
    for slot in list(fleet.workers):
        fleet.kill(slot)
    fleet.wipe()
    fleet.start(0, fault=f"recovering:{rng.randrange(1, 5)}")
    if not fleet.died(0, DIES_WITHIN_S):
        fleet.kill(0)
    for slot in (0, 1):
        fleet.start(slot)


def kill_at_hand_over(fleet: Fleet, rng: random.Random) -> None:
    """A third worker joins, and a former owner is killed before it has let go."""
    fleet.kill(1)
    fleet.start(1, fault="handing-over:1")
    fleet.wait_ready()
    fleet.start(THIRD)
    if not fleet.died(1, DIES_WITHIN_S):
        fleet.kill(1)
    fleet.start(1)
    fleet.wait_ready()
    fleet.end(THIRD)


def wipe(fleet: Fleet, rng: random.Random) -> None:
    """All workers killed and all local state deleted."""
    for slot in list(fleet.workers):
        fleet.kill(slot)
    fleet.wipe()
    for slot in (0, 1):
        fleet.start(slot)


def join_and_leave(fleet: Fleet, rng: random.Random) -> None:
    """A third worker joins under load, works for a moment and leaves."""
    fleet.start(THIRD)
    fleet.wait_ready()
    time.sleep(rng.uniform(0.5, 2))
    fleet.end(THIRD)


def pause(fleet: Fleet, rng: random.Random) -> None:
    """A worker stands still until its session is over and others own its partitions, then goes on as a zombie."""
    slot = _any(fleet, rng)
    fleet.pause(slot)
    time.sleep(fleet.settings.session_s + rng.uniform(1, 3))
    fleet.resume(slot)


def pause_and_wipe(fleet: Fleet, rng: random.Random) -> None:
    """A zombie writes late, logs are compacted, and everything comes from the changelogs alone."""
    pause(fleet, rng)
    fleet.wait_ready()
    time.sleep(rng.uniform(1, 3))  # the cleaner of the embedded broker looks every 0.2 s
    wipe(fleet, rng)


def broker(fleet: Fleet, rng: random.Random) -> None:
    """A broker node is killed and started again."""
    if fleet.broker is None:
        raise MillraceError("broker faults need the embedded broker")
    node = rng.choice([node.node for node in fleet.broker.status().nodes])
    fleet.broker.kill(node)
    time.sleep(rng.uniform(0.5, 3))
    fleet.broker.start_node(node)


def corrupt(fleet: Fleet, rng: random.Random) -> None:
    """Bytes of a store's files are overwritten; a worker that refuses it starts again on an empty directory."""
    for slot in list(fleet.workers):
        fleet.kill(slot)
    stores = fleet.stores()
    for path in sorted(rng.choice(stores).iterdir()) if stores else []:
        if path.name.startswith(("MANIFEST", "CURRENT")) or path.suffix == ".sst":
            _overwrite(path, rng)
    _refused_then_wiped(fleet, "state directory")


def full(fleet: Fleet, rng: random.Random) -> None:
    """A worker's files may not grow any more: it must stop with a clear line, not go on."""
    slot = _any(fleet, rng)
    fleet.kill(slot)
    fleet.start(slot, file_limit=FULL_AT_BYTES)
    if fleet.died(slot, DIES_WITHIN_S):
        line = fleet.last_line(slot)
        if "error:" not in line:
            raise MillraceError(f"a worker on a full disk ended without a clear line: {line!r}")
    else:
        fleet.kill(slot)
    fleet.start(slot)


def _refused_then_wiped(fleet: Fleet, says: str) -> None:
    for slot in (0, 1):
        fleet.start(slot)
    refused = [slot for slot in (0, 1) if fleet.died(slot, 5.0)]
    for slot in refused:
        line = fleet.last_line(slot)
        if "error:" not in line or says not in line:
            raise MillraceError(f"worker-{slot} ended on a damaged store without a clear line: {line!r}")
    if refused:
        for slot in list(fleet.workers):
            fleet.kill(slot)
        fleet.wipe()
        for slot in (0, 1):
            fleet.start(slot)


def _overwrite(path: Path, rng: random.Random) -> None:
    with path.open("r+b") as file:
        size = path.stat().st_size
        file.seek(rng.randrange(max(1, size // 2)))
        file.write(rng.randbytes(64))


def _any(fleet: Fleet, rng: random.Random) -> int:
    return rng.choice(sorted(fleet.workers))


Fault = Callable[[Fleet, random.Random], None]

FAULTS: dict[str, Fault] = {
    "kill": kill,
    "kill-at-point": kill_at_a_point,
    "kill-in-recovery": kill_in_recovery,
    "kill-at-hand-over": kill_at_hand_over,
    "wipe": wipe,
    "join-leave": join_and_leave,
    "pause": pause,
    "pause-wipe": pause_and_wipe,
    "broker": broker,
    "corrupt": corrupt,
    "full": full,
}
