"""How customers are told: the interface of a channel, and what may go wrong with one."""

from pathlib import Path
from typing import IO, Protocol

import orjson

from streams.errors import MillraceError
from topologies.notifications.notices import Notice


class Away(Exception):
    """The channel does not work at all now: no notice's fault, unless others get through. `after_s` is its own wish."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


class NotNow(Exception):
    """A notice did not get through; another try may."""


class Refused(Exception):
    """A notice never will get through."""


class Channel(Protocol):
    """One way to tell customers. `send` may be called many times at once."""

    @property
    def name(self) -> str:
        """Its name in metrics and dead letters."""
        ...

    async def open(self) -> None:
        """Get ready; connecting may wait until the first `send`. Raises MillraceError for settings that cannot be."""
        ...

    async def send(self, notice: Notice) -> None:
        """Tell, and return once the other side has it. Raises `Away`, `NotNow` or `Refused`."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


class LogChannel:
    """Writes each notice as a line of JSON to a file or to stdout.

    A line that a killed process or a full disk left unfinished is ended before the next is begun, so each line is a
    notice, or the beginning of one that comes again. Members of one machine may share a file.
    """

    name = "log"

    def __init__(self, path: Path | None, out: IO[bytes]) -> None:
        """`path` None: write to `out`."""
        self._path = path
        self._out = out
        self._torn = False

    async def open(self) -> None:
        """Open the file. Raises MillraceError for one that cannot be written."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._out = self._path.open("ab+", buffering=0)
        except OSError as error:
            raise MillraceError(f"{self._path} cannot be written ({error.strerror}): give another --log") from error
        if self._out.tell():
            self._out.seek(-1, 2)
            self._torn = self._out.read(1) != b"\n"

    async def send(self, notice: Notice) -> None:
        """Write its line. Raises `Away` where the disk is full and the like."""
        line = b"\n" * self._torn + orjson.dumps(notice.as_json()) + b"\n"
        try:
            written = self._out.write(line)
            self._out.flush()
        except OSError as error:
            raise Away(f"the log cannot be written: {error.strerror}") from error
        self._torn = written < len(line)
        if self._torn:
            raise Away("the log took only a part of a line")

    async def close(self) -> None:
        """Close the file."""
        if self._path is not None:
            self._out.close()
