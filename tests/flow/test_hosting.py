"""Which version a view server serves: what it hears of the register, and what it does when told otherwise meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import hosted
import pytest
from views_shop import shop_settings

from topologies.versions.register import Served as Wanted
from topologies.versions.register import Version
from topologies.views.answers import Served, Serving
from topologies.views.hosting import Host
from topologies.views.watching import Watch


class Server:
    """A host without a server around it; the register is what the test says."""

    def __init__(self, state_dir: Path) -> None:
        settings = shop_settings(state_dir=state_dir, partitions=1)
        self.host = Host(hosted.topology(settings), settings)
        self.watch = Watch(settings, "here:8090", lambda: {self.host.family: self.host.said})
        self.watch.known.set()
        serving = Serving(Served((self.host.current.views,)))
        self.running = asyncio.create_task(self.host.run(serving, self.watch))

    def make(self, version: str, load: str = "hosted:topology") -> None:
        self.watch.register.versions[self.host.family, version] = Version(load, "hosted:topology")

    def switch(self, version: str) -> None:
        self.watch.register.served_of[self.host.family] = Wanted(version, behind=True)
        self.watch.news.tell()

    async def wait(self, until: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not until():
                assert not self.running.done(), self.running
                await asyncio.sleep(0.01)

    async def serves(self, version: str) -> None:
        await self.wait(lambda: self.host.current.version == self.host.said.version == version)

    async def close(self) -> None:
        hosted.LET_GO.set()
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        await self.host.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    hosted.LET_GO = asyncio.Event()
    hosted.TRIES.clear()
    found = Server(tmp_path)
    yield found
    await found.close()


async def test_a_move_that_is_called_off_leaves_nothing_half_closed(server: Server) -> None:
    for version in ("v2", "v3"):
        server.make(version)
    server.switch("v2")
    await server.serves("v2")  # and v1 is being closed
    server.switch("v3")
    await server.wait(lambda: server.host.said.moving == "v3")
    await asyncio.sleep(0.3)  # it waits for v1 to be closed
    server.switch("v2")
    await server.wait(lambda: server.host.said.moving is None)
    hosted.LET_GO.set()
    server.switch("v1")
    await server.serves("v1")


async def test_what_keeps_a_version_from_being_served_is_logged_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("topologies.views.hosting.RETRY_S", 0.001)
    server.make("v2", load="hosted:refused")
    server.switch("v2")
    await server.wait(lambda: len(hosted.TRIES) > 3)
    assert [line for line in caplog.messages if "not today" in line] == [
        "order-analytics-group stays at v1: v2 cannot be served: not today"
    ]
    server.make("v2")
    await server.serves("v2")
