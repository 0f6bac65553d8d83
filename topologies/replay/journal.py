"""What a replay is about to do and how far it is, on disk before it is done: so the same command goes on later.

One file in the group's state directory, written whole and renamed into place. It is gone when the replay is over.
"""

import os
from pathlib import Path
from typing import Literal

import msgspec

from streams.errors import MillraceError
from topologies.replay.planning import Plan

NAME = "replay.json"


class Journal(msgspec.Struct, frozen=True):
    """`resetting`: the state may be there whole, in part, or not; `rebuilding`: the tables have begun anew."""

    plan: Plan
    phase: Literal["resetting", "rebuilding"]


def read_journal(directory: Path) -> Journal | None:
    """The replay that is under way in a group's state directory, if one is. Raises MillraceError."""
    path = directory / NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Journal)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise MillraceError(f"{path} cannot be read ({error}): delete it, and the replay begins anew") from error


def write_journal(directory: Path, journal: Journal) -> None:
    """Make it last before anything that it says is done. Raises MillraceError."""
    path = directory / NAME
    written = path.with_suffix(".tmp")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with written.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(journal)))
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)
    except OSError as error:
        raise MillraceError(f"{path} cannot be written ({error.strerror}): give another --state") from error


def end_journal(directory: Path) -> None:
    """Forget the replay: it is over."""
    (directory / NAME).unlink(missing_ok=True)
