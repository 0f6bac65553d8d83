"""What is done to a fleet. Each fault is over when the fleet owns all partitions again."""

import random
import time
from collections.abc import Callable
from pathlib import Path

from streams.errors import MillraceError
from streams.kafka_log import REQUEST_TIMEOUT_MS
from tables.points import POINTS
from topologies.chaos.fleet import READY_S, Fleet, owned_by
from topologies.chaos.lost_topic import delete_changelog
from topologies.chaos.unwritable import unwritable

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
    """A broker node is killed and started again, or all of them at once."""
    if fleet.broker is None:
        raise MillraceError("broker faults need the embedded broker")
    nodes = [node.node for node in fleet.broker.status().nodes]
    for node in rng.choice([[rng.choice(nodes)], nodes]):
        fleet.broker.kill(node)
    time.sleep(rng.uniform(0.5, 3))
    fleet.broker.up()


def broker_away(fleet: Fleet, rng: random.Random) -> None:
    """All nodes are killed, and stay away for longer than a flush waits for its acknowledgements."""
    if fleet.broker is None:
        raise MillraceError("broker faults need the embedded broker")
    for node in fleet.broker.status().nodes:
        fleet.broker.kill(node.node)
    time.sleep(REQUEST_TIMEOUT_MS / 1000 + rng.uniform(1, 3))
    fleet.broker.up()


def read_only(fleet: Fleet, rng: random.Random) -> None:
    """A worker's directory, or that of one of its partitions, turns read-only: nobody may start on it."""
    slot = _any(fleet, rng)
    owned = owned_by(fleet.ports[slot]) or [0]
    place = fleet.settings.state_dir / fleet.group
    with unwritable(place / str(rng.choice(owned)) if rng.random() < 0.5 else place):
        time.sleep(rng.uniform(0, 1))
        ended = fleet.ended()  # what it had to write there may have ended it already
        if slot not in ended:
            fleet.kill(slot)
        fleet.start(slot)
        if not fleet.died(slot, READY_S):
            raise MillraceError(f"worker-{slot} runs on a read-only directory")
    refused = {slot, *ended, *fleet.ended()}
    while refused:
        for one in refused:
            _must_say(fleet, one, "cannot be")
            fleet.start(one)
        # Another one may have got the partition meanwhile, have refused as well, and be about to end.
        refused = set(fleet.ended(wait=True))


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
        _must_say(fleet, slot, "")
    else:
        fleet.kill(slot)
    fleet.start(slot)


def _refused_then_wiped(fleet: Fleet, says: str) -> None:
    for slot in (0, 1):
        fleet.start(slot)
    if refused := fleet.ended(wait=True):
        for slot in refused:
            _must_say(fleet, slot, says)
        for slot in list(fleet.workers):
            fleet.kill(slot)
        fleet.wipe()
        for slot in (0, 1):
            fleet.start(slot)


def _must_say(fleet: Fleet, slot: int, says: str) -> None:
    line = fleet.last_line(slot)
    if "error:" not in line or says not in line:
        raise MillraceError(f"worker-{slot} ended without a clear line ({says!r}): {line!r}")


def _overwrite(path: Path, rng: random.Random) -> None:
    with path.open("r+b") as file:
        size = path.stat().st_size
        file.seek(rng.randrange(max(1, size // 2)))
        file.write(rng.randbytes(64))


def _any(fleet: Fleet, rng: random.Random) -> int:
    return rng.choice(sorted(fleet.workers.keys() - fleet.spared))


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
    "broker-away": broker_away,
    "corrupt": corrupt,
    "full": full,
    "read-only": read_only,
    "delete-changelog": delete_changelog,
}
# They take half a minute, or end a run: for some runs only.
RARE = ("broker-away",)
LAST = ("delete-changelog",)
