"""Clients of live views that cost little: raw connections, each with the answer that its own frames come to.

Clients of one view are sent the same bytes, so what a frame makes of an answer is computed once for all that had the
same answer and were sent the same frame. A client whose frames were lost, doubled or in another order would have
frames of its own, and end with another answer than the others, or with none.
"""

import asyncio
import re
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import jsonpatch
import orjson

from streams.errors import MillraceError

# HTTP/1.0, so that frames come as they are, without chunks around them.
REQUEST: Final = "GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
FRAME: Final = re.compile(rb": computed (\d+)\nevent: (\w+)\nid: (\S+)\ndata: ", re.ASCII)
FRAME_MAX: Final = 64 << 20
# Of a slow client, so that little waits in the system for it.
RECEIVE_BYTES: Final = 16 << 10
READ_S: Final = 1.0
KEPT: Final = 2_000


@dataclass(frozen=True)
class State:
    """An answer as it is after a frame, and when that was computed (ms since the epoch)."""

    id: bytes
    body: Any
    computed_ms: int
    event: bytes


@dataclass
class Frames:
    """What frames make of answers, for all clients of a process."""

    seen: Callable[[bytes], None] | None = None
    _made: "OrderedDict[tuple[bytes, bytes], State]" = field(default_factory=OrderedDict)

    def after(self, state: State | None, frame: bytes) -> State:
        """The answer after a frame. Raises MillraceError for a delta without an answer to patch, and for a problem."""
        key = (b"" if state is None else state.id, frame)
        made = self._made.get(key)
        if made is None:
            if self.seen is not None:
                self.seen(frame)
            made = self._made[key] = _after(state, frame)
            if len(self._made) > KEPT:
                self._made.popitem(last=False)
        return made


def _after(state: State | None, frame: bytes) -> State:
    head = FRAME.match(frame)
    if head is None or head[2] == b"problem" or (head[2] == b"delta" and state is None):
        raise MillraceError(f"a live view said {frame[:200]!r}, which cannot be followed")
    data = orjson.loads(frame[head.end() :])
    if head[2] == b"delta":
        assert state is not None
        data = jsonpatch.apply_patch(state.body, data)
    return State(head[3], data, int(head[1]), head[2])


@dataclass
class Client:
    """One client, and what it has: the answer, how old each frame was as it came, and how many of each kind."""

    url: str
    path: str
    frames: Frames
    state: State | None = None
    delays_ms: list[float] = field(default_factory=list)
    events: Counter[bytes] = field(default_factory=Counter)
    received: int = 0

    async def run(self) -> None:
        """Follow until cancelled. Raises MillraceError when the stream ends, or is none."""
        reader, writer = await asyncio.open_connection(sock=await self._connected(), limit=FRAME_MAX)
        try:
            self._begin(await reader.readuntil(b"\r\n\r\n"))
            while True:
                self._take(await reader.readuntil(b"\n\n"))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise self._ended() from error
        finally:
            writer.close()

    async def _connected(self, receive_bytes: int | None = None) -> socket.socket:
        address, connection = urlsplit(self.url), socket.socket()
        connection.setblocking(False)
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, (address.hostname, address.port))
        await loop.sock_sendall(connection, REQUEST.format(path=self.path).encode())
        return connection

    def _begin(self, head: bytes) -> None:
        if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
            raise MillraceError(f"{self.path} is no live view here: {head.splitlines()[0].decode()}")

    def _take(self, raw: bytes) -> None:
        self.received += len(raw)
        if not raw.startswith(b": computed"):
            return  # a sign of life, or when to come back
        self.state = self.frames.after(self.state, raw)
        self.delays_ms.append(time.time() * 1000 - self.state.computed_ms)
        self.events[self.state.event] += 1

    def _ended(self) -> MillraceError:
        return MillraceError(f"the stream of {self.path} has ended: see the view server's log")


@dataclass
class SlowClient(Client):
    """One that reads nothing for some seconds, then for a moment what there is, again and again."""

    pause_s: float = 5.0

    async def run(self) -> None:
        """Follow until cancelled. Raises MillraceError when the stream ends, or is none."""
        connection = await self._connected(RECEIVE_BYTES)
        try:
            buffer = bytearray()
            while True:
                await asyncio.sleep(self.pause_s)
                with suppress(TimeoutError):
                    async with asyncio.timeout(READ_S):
                        await self._read(connection, buffer)
        finally:
            connection.close()

    async def _read(self, connection: socket.socket, buffer: bytearray) -> None:
        while found := await asyncio.get_running_loop().sock_recv(connection, 1 << 20):
            buffer += found
            *complete, rest = bytes(buffer).replace(b"\r\n\r\n", b"\n\n").split(b"\n\n")
            buffer[:] = rest
            for raw in complete:
                if raw.startswith(b"HTTP/"):
                    self._begin(raw)
                else:
                    self._take(raw + b"\n\n")
        raise self._ended()
