import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bench.asking import Answered, ask
from bench.contenders.bare_aiohttp import returning
from streams.errors import MillraceError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/it", handler)
    async with TestServer(app) as server:
        yield f"http://127.0.0.1:{server.port}"


async def asked(handler: Handler) -> Answered:
    async with serving(handler) as url:
        return await ask(url, "/it?a=b", 3, 0.2)


def test_every_whole_answer_is_counted_with_its_time() -> None:
    served = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal served
        served += 1
        return await returning("text/plain", b"x" * 300_000)(request)

    found = asyncio.run(asked(handle))
    assert len(found.times) == served > 3
    assert all(0 < seconds <= found.seconds for seconds in found.times)
    assert found.failed == 0


def test_an_answer_that_is_no_200_is_told() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(status=503, text="later")

    found = asyncio.run(asked(handle))
    assert found.failed == len(found.times) > 0


def test_a_server_that_hangs_up_is_an_error_and_no_figure() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    with pytest.raises(MillraceError, match="no answer"):
        asyncio.run(asked(handle))
