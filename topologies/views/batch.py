"""`GET /api/batch`: several views in one answer, so that a page needs one connection for all that it shows, live too.

`view=` is given once for each: a path with its query, such as `/api/sales/top?by=region`. The answer has, in the
order asked, `view`, `status` and `body`: what that view alone would have said, problems included. Each body tells its
own freshness, and `freshness` is that of all that is served.
"""

from typing import Any

import msgspec
from aiohttp import web
from yarl import URL

from topologies.views.answers import SERVED, answer
from topologies.views.endpoints import BATCH, VIEWS
from topologies.views.guard import OPEN, OPERATIONS, PUBLIC
from topologies.views.problems import BadParameter, NotFound, problems

_body = msgspec.json.Decoder().decode


async def batch(request: web.Request) -> web.Response:
    """`GET /api/batch?view=...&view=...`: what each view says."""
    BATCH.read(request.query)
    asked = VIEWS.of(request.query)
    fresh = request[SERVED].freshness()
    return answer({"views": [await _part(request, view) for view in asked], "freshness": fresh})


async def _part(request: web.Request, view: str) -> dict[str, Any]:
    response = await problems(await _routed(request, view), _handled)
    assert isinstance(response, web.Response)
    assert isinstance(response.body, bytes)
    return {"view": view, "status": response.status, "body": _body(response.body)}


async def _routed(request: web.Request, view: str) -> web.Request:
    """The request that would have been made for this view alone."""
    url = URL(view) if view.startswith("/api/") else URL()
    part = request.clone(rel_url=url.with_fragment(None))
    match = await request.app.router.resolve(part)
    resource = match.route.resource
    path = resource.canonical if resource is not None else ""
    if not path.startswith("/api/") or path in OPERATIONS | OPEN or match.handler in (batch, *request.app[PUBLIC]):
        raise BadParameter("view", f"view must be the path of a view, such as /api/sales, not {view[:200]!r}")
    match.add_app(request.app)
    part._match_info = match  # what aiohttp itself does with a request that it has routed
    return part


async def _handled(request: web.Request) -> web.StreamResponse:
    response = await request.match_info.handler(request)
    if not isinstance(response, web.Response):
        raise NotFound(f"{request.path[:200]} is no view that answers at once")
    return response
