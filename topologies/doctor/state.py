"""The state directory: can it be written, who has which part open, does it belong to this cluster, is it sound.

Stores are opened read-only, which neither waits for whoever has them open nor disturbs him.
"""

import fcntl
import struct
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import psutil

from tables import progress as progress_records
from tables.store import StoreDamaged, StoreFailed, metas_of
from topologies.doctor.finding import Finding, Fine, Said

# What F_GETLK takes and fills in: `struct flock` begins with type and whence, on macOS and BSD it ends with them.
FLOCK: Final = "hhqqi" if sys.platform == "linux" else "qqihh"
PROGRESS: Final = "progress:"


@dataclass(frozen=True)
class Holder:
    """The process that has a store open."""

    pid: int
    command: str
    stopped: bool

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.command}{', stopped' if self.stopped else ''})"


@dataclass(frozen=True)
class Kept:
    """One store of a group: where it is, of which partition, who has it open; ``private`` if it is a second copy."""

    path: Path
    group: str
    partition: int
    private: bool
    holder: Holder | None


def stores(state_dir: Path, group: str) -> list[Kept]:
    """A group's stores in the state directory, by partition."""
    found = []
    for path in sorted((state_dir / group).glob("[0-9]*")):
        number, _, private = path.name.partition(".")
        if number.isdecimal() and (path / "CURRENT").exists():
            found.append(Kept(path, group, int(number), bool(private), holder(path / "LOCK")))
    return found


def holder(lock: Path) -> Holder | None:
    """Who holds a file's lock; a lock of a process that is gone is gone with it."""
    try:
        with lock.open("rb") as file:
            told = fcntl.fcntl(file, fcntl.F_GETLK, _flock())
    except OSError:
        return None
    kind, pid = _told(told)
    if kind == fcntl.F_UNLCK:
        return None
    return Holder(pid, command_of(pid), is_stopped(pid))


def is_stopped(pid: int) -> bool:
    """Whether somebody stopped a process (Ctrl-Z, SIGSTOP); False where that cannot be told."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def _flock() -> bytes:
    if sys.platform == "linux":
        return struct.pack(FLOCK, fcntl.F_WRLCK, 0, 0, 0, 0)
    return struct.pack(FLOCK, 0, 0, 0, fcntl.F_WRLCK, 0)


def _told(raw: bytes) -> tuple[int, int]:
    if sys.platform == "linux":
        kind, _, _, _, pid = struct.unpack(FLOCK, raw[: struct.calcsize(FLOCK)])
    else:
        _, _, pid, kind, _ = struct.unpack(FLOCK, raw[: struct.calcsize(FLOCK)])
    return kind, pid


def command_of(pid: int) -> str:
    """What a process runs, in a few words: options, paths and code are left out."""
    try:
        process = psutil.Process(pid)
        words = [Path(word).name if word.startswith("/") else word for word in process.cmdline()]
        return " ".join([word for word in words if " " not in word and not word.startswith("-")][:4]) or process.name()
    except psutil.Error:
        return "of another user or container"


def writable(state_dir: Path, groups: Sequence[str]) -> Iterator[Said]:
    """Whether the directory and those of the groups in it can be written, by writing."""
    if not state_dir.exists():
        nearest = next(path for path in state_dir.parents if path.exists())
        made: list[Said] = [Fine("state", f"{state_dir} will be made by the first worker")]
        yield from _refused(nearest, state_dir) or made
        return
    refused: list[Said] = list(_refused(state_dir, state_dir))
    for group in groups if not refused else ():
        if (state_dir / group).exists():
            refused += _refused(state_dir / group, state_dir)
    yield from refused or [Fine("state", f"{state_dir} can be written")]


def _refused(path: Path, state_dir: Path) -> list[Finding]:
    try:
        with tempfile.TemporaryFile(dir=path):
            return []
    except OSError as error:
        if not path.is_dir():
            mend = f"mv {path} {path}.aside    # or give another with MILLRACE_STATE"
            what = f"state directory {state_dir} cannot be used: {path} is no directory"
            return [Finding("state", "state-unwritable", "error", what, mend)]
        if error.strerror == "Permission denied":
            mend = f"sudo chown -R $(id -un) {path} && chmod -R u+rwX {path}"
        else:
            mend = "export MILLRACE_STATE=$HOME/.millrace/state    # or any directory that can be written"
        what = f"state directory {path} cannot be written ({error.strerror}): no worker can run on it"
        return [Finding("state", "state-unwritable", "error", what, mend)]


def locks(kept: Sequence[Kept], members: Mapping[str, int]) -> Iterator[Said]:
    """Who has stores open: somebody who is stopped or in no group is in the others' way.

    ``members`` says how many members each group has; without a group's number nothing is said of strangers.
    """
    told: set[tuple[str, int]] = set()
    for one in kept:
        if one.holder is None:
            if one.private:
                yield _leftover(one)
            continue
        if (one.group, one.holder.pid) in told:
            continue
        told.add((one.group, one.holder.pid))
        if one.holder.stopped:
            what = f"{_of(kept, one)} of {one.group} is open in {one.holder}, which does nothing and lets nobody else"
            yield Finding("state", "lock-stopped", "error", what, f"kill -CONT {one.holder.pid}")
        elif members.get(one.group) == 0:
            what = (
                f"{_of(kept, one)} of {one.group} is open in {one.holder}, but the group has no members on this cluster"
            )
            yield Finding("state", "lock-stranger", "error", what, f"kill {one.holder.pid}")


def _leftover(one: Kept) -> Finding:
    what = f"{one.path} is left over: a worker had to restore aside, since another one had the partition open"
    return Finding("state", "state-leftover", "warning", what, f"rm -r {one.path}")


def _of(kept: Sequence[Kept], one: Kept) -> str:
    numbers = sorted(other.partition for other in kept if other.holder == one.holder and other.group == one.group)
    return f"state of partition{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def contents(kept: Sequence[Kept], topic_ids: Mapping[str, str], state_dir: Path) -> Iterator[Said]:
    """Whether stores can be opened, and were written for the topics that this cluster has."""
    sound, foreign = 0, dict[str, tuple[str, str]]()
    for one in kept:
        try:
            metas = metas_of(one.path, PROGRESS)
        except StoreFailed:
            continue  # that the directory cannot be written is told already
        except StoreDamaged as error:
            if one.holder is None:  # files come and go under whoever has it open
                yield Finding("state", "state-damaged", "error", str(error).partition(";")[0], f"rm -r {one.path}")
            continue
        strange = _foreign(metas, topic_ids)
        sound += strange is None
        if strange is not None and one.group not in foreign:
            foreign[one.group] = strange
    for group, (topic, written) in foreign.items():
        what = (
            f"the state of {group} in {state_dir} was written for another topic {topic} (id {written}, here "
            f"{topic_ids[topic]}): it is left over from another cluster, or the topic was deleted and made anew"
        )
        yield Finding("state", "state-foreign", "error", what, f"rm -r {state_dir / group}")
    if sound:
        yield Fine("state", f"{sound} stores in {state_dir} are sound" + " and of this cluster" * bool(topic_ids))


def _foreign(metas: Mapping[str, bytes], topic_ids: Mapping[str, str]) -> tuple[str, str] | None:
    """A topic for which the state was written while it was another one, and the id that it had."""
    for name, raw in metas.items():
        topic = name.removeprefix(PROGRESS)
        try:
            written = progress_records.decode(raw).topic_id
        except msgspec.MsgspecError:
            continue
        if written and topic_ids.get(topic, written) != written:
            return topic, written
    return None
