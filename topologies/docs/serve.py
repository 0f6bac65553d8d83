"""Handing out the API's document, and the page that shows it. The page is open to all; the document needs the token."""

import gzip
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec
from aiohttp import web

from topologies.page.serve import TYPES, Asset, Handler
from topologies.views.endpoints import DOCUMENT as DECLARED

DOCUMENT: Final = web.AppKey("openapi", Asset)
PAGE: Final = "docs.html"
ASK_AGAIN: Final = "no-cache"


def asset_of(document: Mapping[str, Any]) -> Asset:
    """A document as it is sent."""
    raw = msgspec.json.encode(document)
    return Asset("application/json", raw, gzip.compress(raw, 9, mtime=0), hashlib.sha256(raw).hexdigest()[:32])


async def openapi(request: web.Request) -> web.StreamResponse:
    """`GET /openapi.json`: the document."""
    DECLARED.read(request.query)
    return request.app[DOCUMENT].response(request, ASK_AGAIN)


@cache
def assets() -> Mapping[str, Asset]:
    """The files of this installation, read once."""
    static = files(__package__).joinpath("static")
    found = [file for file in static.iterdir() if file.name.rpartition(".")[2] in TYPES]
    return {file.name: Asset.of(file.name, file.read_bytes()) for file in found}


async def page(request: web.Request) -> web.StreamResponse:
    """`GET /docs`: the page."""
    return assets()[PAGE].response(request, ASK_AGAIN)


async def asset(request: web.Request) -> web.StreamResponse:
    """`GET /docs/{name}`: what the page needs."""
    found = assets().get(request.match_info["name"])
    if found is None:
        raise web.HTTPNotFound
    return found.response(request, ASK_AGAIN)


# Handlers whose answers say nothing of the shop.
PUBLIC: Final[Mapping[str, Handler]] = {"/docs": page, "/docs/{name}": asset}
