"""What goes wrong for a client, as `application/problem+json` (RFC 9457), and the middleware that writes it."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import web

logger = logging.getLogger(__name__)

CONTENT_TYPE: Final = "application/problem+json"
# orjson refuses integers beyond 64 bits, which sums may reach.
_encode = msgspec.json.Encoder().encode
SHOWN_CHARS: Final = 200
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def to_json(value: Any) -> bytes:
    r"""JSON that is harmless also where somebody takes it for HTML.

    >>> to_json({"key": "<b>"})
    b'{"key":"\\u003cb\\u003e"}'
    """
    raw = _encode(value)
    return raw.replace(b"<", rb"\u003c").replace(b">", rb"\u003e").replace(b"&", rb"\u0026")


def printable(value: Any) -> Any:
    """A text without what UTF-8 cannot write: half characters, which a request may bring."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


class Problem(Exception):
    """An answer other than 200: status, a title that is the same each time, and what happened this time."""

    def __init__(
        self, status: int, kind: str, title: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        """`kind` ends the problem's type; `more` are further members of the body."""
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.headers.setdefault("Retry-After", "1")
        self.body = {"type": f"urn:millrace:problem:{kind}", "title": title, "status": status, "detail": detail}
        self.body.update(more)

    @property
    def raw(self) -> bytes:
        """The body as JSON."""
        return to_json({name: printable(value) for name, value in self.body.items()})

    def response(self) -> web.Response:
        """The answer."""
        headers = {"Cache-Control": "no-store", **self.headers}
        return web.Response(body=self.raw, status=self.status, content_type=CONTENT_TYPE, headers=headers)


class BadParameter(Problem):
    """A query parameter that cannot be answered: 400, naming it. Custom views may raise it, too."""

    def __init__(self, parameter: str, detail: str) -> None:
        """Say in `detail` what would be right."""
        super().__init__(400, "bad-parameter", "Bad parameter", detail, parameter=parameter)


class NotFound(Problem):
    """Nothing has that name: 404. Custom views may raise it, too."""

    def __init__(self, detail: str) -> None:
        """Say what there is."""
        super().__init__(404, "not-found", "Not found", detail)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error as a problem; an unexpected one is logged, and its traceback stays here."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except web.HTTPNotFound:
        return NotFound(f"there is no {request.path[:SHOWN_CHARS]}; /docs lists what there is").response()
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        return _of_http(error)
    except Exception:
        # as it came, percent-encoded: decoded it could hold line ends, and write lines of its own into the log
        logger.exception("%s %s failed", request.method, request.raw_path[:SHOWN_CHARS])
        detail = "the server could not answer this; its log says more"
        return Problem(500, "internal", "Internal error", detail).response()


def _of_http(error: web.HTTPException) -> web.Response:
    title = HTTPStatus(error.status).phrase.capitalize()
    kind = title.lower().replace(" ", "-")
    response = Problem(error.status, kind, title, error.reason or title).response()
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response
