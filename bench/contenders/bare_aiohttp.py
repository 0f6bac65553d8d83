"""The limit for a view server: aiohttp handlers that return bytes which are there already.

`python -m bench.contenders.bare_aiohttp <port> <file>`; the file is msgpack, a list of (path, content type, bytes).
"""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from aiohttp import web

Prepared = tuple[str, str, bytes]


def returning(content_type: str, body: bytes) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler that returns the same bytes each time."""

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Type": content_type})

    return handle


def run(port: int, prepared: list[Prepared]) -> None:
    """Serve on loopback until SIGTERM."""
    app = web.Application()
    for path, content_type, body in prepared:
        app.router.add_get(path, returning(content_type, body))
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=lambda *_: None)


if __name__ == "__main__":
    run(int(sys.argv[1]), msgspec.msgpack.decode(Path(sys.argv[2]).read_bytes(), type=list[Prepared]))
