"""Handing out the page's files: `/` is always asked for anew, everything else is named by content and kept for good.

The files' common hash is a part of their path (`/page/<hash>/app.js`), so that modules which import each other by
relative names are always of one version. What is compressible is compressed once.
"""

import gzip
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from aiohttp import hdrs, web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PAGE: Final = "index.html"
ASSETS: Final = "/page/{version}/{name}"
TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
FOR_GOOD: Final = "public, max-age=31536000, immutable"
POLICY: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
    "require-trusted-types-for 'script'"
)
VERSION: Final = b"{{version}}"


@dataclass(frozen=True)
class Asset:
    """One file as it is sent: its bytes plain and compressed, and a tag that changes with them."""

    content_type: str
    raw: bytes
    packed: bytes
    tag: str

    @classmethod
    def of(cls, name: str, raw: bytes) -> "Asset":
        """The file of that name, with this content."""
        packed = gzip.compress(raw, 9, mtime=0)
        return cls(TYPES[name.rpartition(".")[2]], raw, packed, hashlib.sha256(raw).hexdigest()[:32])

    def response(self, request: web.Request, cache_control: str) -> web.Response:
        """The file, compressed if the client takes that, or 304 if the client has it."""
        packed = "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower()
        tag = f"{self.tag}-gzip" if packed else self.tag
        headers = {
            hdrs.CACHE_CONTROL: cache_control,
            hdrs.CONTENT_SECURITY_POLICY: POLICY,
            hdrs.ETAG: f'"{tag}"',
            hdrs.VARY: hdrs.ACCEPT_ENCODING,
        }
        if any(one.value in (tag, "*") for one in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        headers[hdrs.CONTENT_TYPE] = self.content_type
        if packed:
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        return web.Response(body=self.packed if packed else self.raw, headers=headers)


@dataclass(frozen=True)
class Bundle:
    """All files of one version."""

    version: str
    page: Asset
    assets: Mapping[str, Asset]


@cache
def bundle() -> Bundle:
    """The files of this installation, read once."""
    static = files(__package__).joinpath("static")
    found = {file.name: file.read_bytes() for file in static.iterdir() if file.name.rpartition(".")[2] in TYPES}
    whole = hashlib.sha256()
    for name, raw in sorted(found.items()):
        whole.update(f"{name} {len(raw)} ".encode() + raw)
    version = whole.hexdigest()[:16]
    page = Asset.of(PAGE, found.pop(PAGE).replace(VERSION, version.encode()))
    return Bundle(version, page, {name: Asset.of(name, raw) for name, raw in found.items()})


async def page(request: web.Request) -> web.StreamResponse:
    """`GET /`: the page itself."""
    return bundle().page.response(request, "no-cache")


async def asset(request: web.Request) -> web.StreamResponse:
    """`GET /page/{version}/{name}`: a file of the page; 404 for those of another version."""
    found = bundle().assets.get(request.match_info["name"])
    if found is None or request.match_info["version"] != bundle().version:
        raise web.HTTPNotFound
    return found.response(request, FOR_GOOD)


# What the page consists of says nothing of the shop: whoever opens it may be asked for a token only by it.
PUBLIC: Final[Mapping[str, Handler]] = {"/": page, ASSETS: asset}
