r"""Who may ask what, and how much: tokens, limits on requests, and headers that every answer has.

*Reads* (everything but what follows) need `MILLRACE_READ_TOKEN`, *operations* (`/metrics`, and whatever changes
something) need `MILLRACE_OPS_TOKEN`, as `Authorization: Bearer <token>`. A token that is not set is not asked for,
with one exception: where only the read token is set, operations need that one. One token is for one purpose: with
both set, neither opens what the other is for. `/healthz` and `/readyz` are open, since those who ask have no tokens,
but say no more than yes or no to somebody without one. The dashboard's files are open, too: the page asks for the
token.

*Limits.* Request line and each header field: 8 KiB; 64 fields; a body, which nothing here reads: 16 KiB. A connection
on which no request is complete for 30 s is closed, and an answer that has not begun after 30 s is given up.

*Echoes.* What a request brings comes back, if at all, inside JSON strings, with `<`, `>` and `&` as `\\u003c`,
`\\u003e` and `\\u0026`, and `X-Content-Type-Options: nosniff` beside it. The low-level errors of aiohttp, which quote
what they could not parse, are replaced by words of our own.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import logging
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from topologies.views.problems import CONTENT_TYPE, Handler, Problem

logger = logging.getLogger(__name__)

OPEN: Final = frozenset({"/healthz", "/readyz"})
OPERATIONS: Final = frozenset({"/metrics", "/api/operations"})
# A view's path with this after it is the view as a stream, and needs what the view needs.
SUFFIX: Final = "/live"
LIMIT = web.RequestKey("limit", asyncio.Timeout)
BODY_BYTES: Final = 16 << 10
ANSWER_S: Final = 30.0
# aiohttp's own names; a connection's first request, and each next one, has keepalive_timeout seconds to be complete.
LIMITS: Final[dict[str, Any]] = {
    "max_line_size": 8 << 10,
    "max_field_size": 8 << 10,
    "max_headers": 64,
    "keepalive_timeout": 30.0,
    "lingering_time": 1.0,
    "access_log": None,
}
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class Access:
    """The tokens that a server asks for; None: that one is not asked for. `purpose` is what the first one is for."""

    read_token: str | None = field(default=None, repr=False)
    ops_token: str | None = field(default=None, repr=False)
    purpose: str = "reads"

    def permits(self, request: web.Request, *, operation: bool = False) -> bool:
        """Whether a request brings the token for reads, or for operations."""
        wanted = (self.ops_token or self.read_token) if operation else self.read_token
        return wanted is None or _same(wanted, _presented(request))


ACCESS = web.AppKey("access", Access)
# Handlers whose answers say nothing of the shop. Not their paths: a topology may have views of its own there.
PUBLIC = web.AppKey("public", frozenset[Handler])


def _presented(request: web.Request) -> str:
    given = request.headers.getall("Authorization", [])
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" else ""


def _same(wanted: str, given: str) -> bool:
    """Compare in a time that tells neither how much is right nor how long the token is."""
    digests = (hashlib.sha256(text.encode(errors="surrogateescape")).digest() for text in (wanted, given))
    return hmac.compare_digest(*digests)


@web.middleware
async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse who may not ask and what is too large; give up what takes too long."""
    resource = request.match_info.route.resource
    path = resource.canonical.removesuffix(SUFFIX) if resource is not None else ""
    operation = path in OPERATIONS
    is_open = path in OPEN or request.match_info.handler in request.app[PUBLIC]
    if not is_open and not request.app[ACCESS].permits(request, operation=operation):
        raise _unauthorized(request, "operations" if operation else request.app[ACCESS].purpose)
    _check_body(request)
    try:
        async with asyncio.timeout(ANSWER_S) as limit:
            request[LIMIT] = limit
            return await handler(request)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise Problem(503, "too-slow", "Too slow", f"there was no answer within {ANSWER_S:g} s") from error


def extend(request: web.Request, until: float | None) -> None:
    """Let an answer begin so much later than at a time (of the event loop's clock); None: it may go on for ever."""
    request[LIMIT].reschedule(None if until is None else until + ANSWER_S)


def _unauthorized(request: web.Request, purpose: str) -> Problem:
    challenge = 'Bearer realm="millrace"'
    if "Authorization" in request.headers:
        challenge += ', error="invalid_token"'
    detail = f"this needs the server's token for {purpose}, as the header Authorization: Bearer <token>"
    return Problem(401, "unauthorized", "Unauthorized", detail, headers={"WWW-Authenticate": challenge})


def _check_body(request: web.Request) -> None:
    if not request.body_exists:
        return
    close = {"Connection": "close"}
    if request.content_length is None:
        raise Problem(411, "length-required", "Length required", "a body needs a Content-Length", headers=close)
    if request.content_length > BODY_BYTES:
        detail = f"a body has at most {BODY_BYTES:,} bytes"
        raise Problem(413, "too-large", "Content too large", detail, headers=close)


async def harden(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Put the headers on an answer that is about to be sent; rewrite aiohttp's own refusals, which quote the request.

    What a page set itself stays.
    """
    if isinstance(response, web.HTTPException) and response.status >= 400:
        problem = refusal(response.status)
        response.content_type = CONTENT_TYPE
        response.body = problem.raw
        response.headers["Content-Length"] = str(len(problem.raw))
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "millrace"


def refusal(status: int) -> Problem:
    """An error of HTTP itself, in our words."""
    if status >= 500:
        return Problem(status, "internal", "Internal error", "the server could not answer this; its log says more")
    return Problem(
        status, "bad-request", "Bad request", "this is no request that can be answered: see its line and headers"
    )


class Connection(web.RequestHandler):
    """aiohttp's connection, which does not repeat what it could not parse."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP, or failed outside all handlers; the connection ends with it."""
        if status >= 500:
            logger.error("answering %s failed", request.remote, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("part of an answer is sent already")
        response = refusal(status).response()
        response.headers.update({**HEADERS, "Server": "millrace"})
        response.force_close()
        return response


class Site(web.BaseSite):
    """Where a runner's application listens, with our limits and connections."""

    __slots__ = ("_host", "_port")

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        """Listens from `start` on."""
        super().__init__(runner)
        self._host = host
        self._port = port

    @property
    def name(self) -> str:
        """The URL that it was asked to serve."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen. Raises OSError."""
        await super().start()
        loop, server = asyncio.get_running_loop(), self._runner.server
        assert server is not None

        def connection() -> Connection:
            return Connection(server, loop=loop, **LIMITS)

        self._server = await loop.create_server(connection, self._host, self._port, backlog=self._backlog)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def warn_if_open(host: str, access: Access) -> None:
    """Say so where others than this machine may ask without a token."""
    if is_loopback(host):
        return
    if access.read_token is None:
        logger.warning(
            "everybody who reaches %s may read all tables: set MILLRACE_READ_TOKEN, or leave --host out", host
        )
    if access.ops_token is None and access.read_token is None:
        logger.warning("everybody who reaches %s may read the metrics: set MILLRACE_OPS_TOKEN", host)
    if access.read_token or access.ops_token:
        logger.warning("tokens go over %s unencrypted: put a proxy with TLS before it", host)
