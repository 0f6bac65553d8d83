"""How a view server hears which versions are wanted, and says how far it is: over the installation's register."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from streams.errors import BrokerUnreachable, MillraceError
from streams.kafka_log import KafkaLog
from streams.log import LogError
from streams.topics import ensure_topics
from topologies.settings import Settings
from topologies.versions.register import Follower, Register, Seen, entry, now_ms, topic_of
from topologies.views.follower import RETRY_S, reach
from topologies.views.news import News

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.25
SAY_EVERY_S: Final = 5.0
FAREWELL_S: Final = 2.0


@dataclass
class Watch:
    """Follows the register into `register`, rings `news` when it says something new, and writes what `says` gives.

    `known` is set once it was read, or cannot be.
    """

    settings: Settings
    server: str
    says: Callable[[], Mapping[str, Seen]]
    register: Register = field(default_factory=Register)
    known: asyncio.Event = field(default_factory=asyncio.Event)
    news: News = field(default_factory=News)
    _position: int = 0

    async def run(self) -> None:
        """Follow until cancelled."""
        told = ""
        while True:
            try:
                await self._follow()
            except (LogError, BrokerUnreachable, OSError, TimeoutError):
                pass  # the followers of the topologies say so
            except MillraceError as error:  # whoever may not read this serves what they did
                if str(error) != told:
                    logger.warning("what is to be served is not known, and does not change: %s", error)
                told = str(error)
                self.known.set()
            await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        await reach(self.settings.cluster)
        topic = topic_of(self.settings.prefix)
        await asyncio.to_thread(ensure_topics, self.settings.cluster, [topic])
        log = KafkaLog(self.settings.cluster, client_id="millrace-versions")
        await log.start()
        following = Follower(log, topic, self.register, self._position)
        try:
            await self._read_and_say(following)
        except asyncio.CancelledError:
            gone = [entry("server", topology, self.server, value=None) for topology in self.says()]
            with contextlib.suppress(LogError, TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await following.write(*gone)
            raise
        finally:
            self._position = following.position
            await log.stop()

    async def _read_and_say(self, following: Follower) -> None:
        said: Mapping[str, Seen] = {}
        say_at = 0.0
        while True:
            if await following.read() or not self.known.is_set():
                self.known.set()
                self.news.tell()
            says = dict(self.says())
            if says != said or time.monotonic() >= say_at:
                said, say_at = says, time.monotonic() + SAY_EVERY_S
                stamped = {topology: msgspec.structs.replace(seen, at_ms=now_ms()) for topology, seen in says.items()}
                await following.write(*(entry("server", t, self.server, value=seen) for t, seen in stamped.items()))
            await asyncio.sleep(LOOK_EVERY_S)


def server_name(port: int) -> str:
    """What a view server is called in the register."""
    return f"{socket.gethostname()}:{port}"
