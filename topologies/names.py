"""The name of a worker: its static membership in the group, so that it is back in two seconds after `kill -9`.

A name belongs to one live process of a group: a file lock in the state directory says so, and is gone with the
process. Without a name given, the first free slot `w0`, `w1`, ... is taken. In a lock's file stands the id of the
process that holds it, so that a command finds the workers of its host.
"""

import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from streams.errors import MillraceError

SLOTS = 256
MARK = "mark"
# A lock lives as long as its file object does: for the whole process.
_held: list[IO[str]] = []


class NameTaken(MillraceError):
    """Another live worker has the name."""


class StateUnwritable(MillraceError):
    """The state directory is read-only, full, or no directory."""


def claim_name(state_dir: Path, group: str, wanted: str | None) -> str:
    """Lock a name for this process and return it. Raises `NameTaken`, `StateUnwritable`."""
    directory = Path(state_dir) / group
    for name in [wanted] if wanted else [f"w{n}" for n in range(SLOTS)]:
        if _lock(directory / f"{name}.lock"):
            return name
    if wanted:
        raise NameTaken(f"a worker named {wanted} of group {group} is running on {state_dir}: choose another --name")
    raise NameTaken(f"all {SLOTS} worker slots of {directory} are taken: give --name")


def claim_member(state_dir: Path, group: str, wanted: str | None) -> str:
    """Lock a name, and return what the group knows its holder by. Raises `NameTaken`, `StateUnwritable`."""
    return member_name(state_dir, claim_name(state_dir, group, wanted), wanted)


def member_name(state_dir: Path, name: str, wanted: str | None) -> str:
    """What a group knows the holder of a name by: one that was given as it is, a slot with its state directory's mark.

    Hosts have the same slots, and of two members of one static name Kafka shuts out the first. Raises
    `StateUnwritable`.
    """
    return name if wanted else f"{name}-{_mark(Path(state_dir))}"


def slot_of(state_dir: Path, member: str) -> str:
    """The name that a group's member goes by on this state directory."""
    try:
        return member.removesuffix(f"-{(Path(state_dir) / MARK).read_text()}")
    except OSError:
        return member


def _mark(state_dir: Path) -> str:
    """A state directory's own few characters: of two who come at once, the first one's."""
    path = state_dir / MARK
    made = path.with_name(f"{MARK}-{secrets.token_hex(8)}")
    try:
        if not path.exists():
            made.write_text(secrets.token_hex(3))
            try:
                path.hardlink_to(made)
            except FileExistsError:
                pass
            except OSError:  # a file system without links: of two the later one's, and the other is a new member once
                made.replace(path)
            made.unlink(missing_ok=True)
        return path.read_text()
    except OSError as error:
        raise _unwritable(state_dir, error) from error


def workers_here(state_dir: Path, group: str) -> dict[str, int]:
    """The workers of a group that run on this state directory: their names and process ids."""
    found = {path.stem: holder(path) for path in sorted((Path(state_dir) / group).glob("*.lock"))}
    return {name: pid for name, pid in found.items() if pid is not None}


def holder(path: Path) -> int | None:
    """The process that holds a lock; None if nobody does."""
    try:
        pid = int(path.read_text())
        with suppress(PermissionError):  # somebody else's, and there
            os.kill(pid, 0)
        with path.open() as file:  # not tried before: a try holds the lock for a moment, and might refuse a worker
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return pid
    except (OSError, ValueError):
        return None
    return None


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold a lock while the context lasts. Raises MillraceError, which begins with `what`, if another process does."""
    if not _lock(path):
        raise MillraceError(f"{what} (process {holder(path)})")
    file = _held.pop()
    try:
        yield
    finally:
        file.close()


def claim_port(state_dir: Path, first: int) -> int:
    """The first port from `first` that is free and that no other worker of the state directory has claimed."""
    for port in range(first, min(first + SLOTS, 65_536)):
        if _lock(Path(state_dir) / f"port-{port}.lock") and _is_free(port):
            return port
    raise MillraceError(f"no port from {first} to {first + SLOTS - 1} is free: give --port")


def require_free(port: int) -> None:
    """Raise MillraceError where somebody else listens on a port."""
    if not _is_free(port):
        raise MillraceError(f"port {port} is taken: choose another with --port")


def free_port() -> int:
    """A port that nobody uses now; another process may take it before you do."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _unwritable(directory: Path, error: OSError) -> StateUnwritable:
    return StateUnwritable(
        f"state directory {directory} cannot be written ({error.strerror}): give another with --state or MILLRACE_STATE"
    )


def _lock(path: Path) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")  # not "w", which would empty the file of another process
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return False
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    _held.append(file)
    return True
