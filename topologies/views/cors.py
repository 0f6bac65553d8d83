"""Pages of one other origin may read this API, if the settings name it (`MILLRACE_CORS_ORIGIN`); by default none may.

What a browser asks before (https://fetch.spec.whatwg.org/#cors-preflight-fetch) is answered without a token, since it
brings none; it is told what it may send, and nothing else.
"""

from typing import Final

from aiohttp import web

from topologies.views.problems import Handler

ORIGIN = web.AppKey("origin", str)
ALLOWED: Final = {
    "Access-Control-Allow-Methods": "GET, HEAD",
    "Access-Control-Allow-Headers": "Authorization, Last-Event-ID",
    "Access-Control-Max-Age": "600",
}


@web.middleware
async def cors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer what the browser of the other origin's page asks before it asks."""
    if request.method == "OPTIONS" and _is_allowed(request) and "Access-Control-Request-Method" in request.headers:
        return web.Response(status=204, headers=ALLOWED)
    return await handler(request)


async def allow(request: web.Request, response: web.StreamResponse) -> None:
    """Say on an answer that is about to be sent, streams and problems included, that the page may have it."""
    if ORIGIN not in request.app:
        return
    response.headers.add("Vary", "Origin")
    if _is_allowed(request):
        response.headers["Access-Control-Allow-Origin"] = request.app[ORIGIN]
        response.headers["Access-Control-Expose-Headers"] = "Retry-After"


def _is_allowed(request: web.Request) -> bool:
    return ORIGIN in request.app and request.headers.get("Origin") == request.app[ORIGIN]
