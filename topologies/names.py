"""The name of a worker: its static membership in the group, so that it is back in two seconds after `kill -9`.

A name belongs to one live process of a group: a file lock in the state directory says so, and is gone with the
process. Without a name given, the first free slot `w0`, `w1`, ... is taken.
"""

import fcntl
from pathlib import Path
from typing import IO

from streams.errors import MillraceError

SLOTS = 256
# A lock lives as long as its file object does: for the whole process.
_held: list[IO[str]] = []


class NameTaken(MillraceError):
    """Another live worker has the name."""


def claim_name(state_dir: Path, group: str, wanted: str | None) -> str:
    """Lock a name for this process and return it. Raises `NameTaken`."""
    directory = Path(state_dir) / group
    directory.mkdir(parents=True, exist_ok=True)
    for name in [wanted] if wanted else [f"w{n}" for n in range(SLOTS)]:
        if _lock(directory / f"{name}.lock"):
            return name
    if wanted:
        raise NameTaken(f"a worker named {wanted} of group {group} is running on {state_dir}: choose another --name")
    raise NameTaken(f"all {SLOTS} worker slots of {directory} are taken: give --name")


def _lock(path: Path) -> bool:
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return False
    _held.append(file)
    return True
