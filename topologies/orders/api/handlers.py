"""The order API's endpoints: read the request, ask the shop, answer."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from streams.errors import MillraceError, in_one_line
from topologies.orders.api import endpoints
from topologies.orders.api.activity import Teller
from topologies.orders.api.bodies import NewActivity, NewOrder, Ready, read_body
from topologies.orders.api.metrics import BOOKS
from topologies.orders.api.shop import Shop
from topologies.orders.database import Busy, DatabaseUnreachable
from topologies.orders.migrating import NotMigrated, check
from topologies.orders.placing import Placing
from topologies.views.described import Described
from topologies.views.parameters import once
from topologies.views.problems import Handler, Problem, to_json

logger = logging.getLogger(__name__)

SHOP: Final = web.AppKey("shop", Shop)
TELLER: Final = web.AppKey("teller", Teller)
REPLAYED: Final = "Idempotency-Replayed"


@web.middleware
async def same_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what a page of another origin sends: a browser says where a form was, and there is no token in it."""
    origin = request.headers.get("Origin")
    if request.method not in ("GET", "HEAD", "OPTIONS") and origin and _host_of(origin) != request.host:
        detail = "pages of other origins cannot order here"
        raise Problem(HTTPStatus.FORBIDDEN, "foreign-origin", "Foreign origin", detail)
    return await handler(request)


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # such as a bracket that is not closed
        return ""


@web.middleware
async def database_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer 503 where the database cannot now; nothing of its address or its words is told."""
    try:
        return await handler(request)
    except Busy as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "Busy", str(error)) from error
    except (DatabaseUnreachable, NotMigrated, OperationalError) as error:
        logger.warning("%s %s: %s", request.method, request.path, in_one_line(error))
        detail = "the database cannot be asked; whether it took what was sent is not known: ask, or repeat with a key"
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "no-database", "No database", detail) from error


def _given(request: web.Request, described: Described) -> dict[str, str]:
    """A request's parameters: of path, query and headers, each once. Raises BadParameter."""
    headers = [one.name for one in described.parameters if one.place == "header"]
    return {**described.read(request.query), **request.match_info, **once(request.headers, headers)}


def _answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    told = {"Cache-Control": "no-store", **(headers or {})}
    return web.Response(body=to_json(body), status=status, content_type="application/json", headers=told)


async def place(request: web.Request) -> web.Response:
    """`POST /api/orders`."""
    given = _given(request, endpoints.PLACE)
    user_id, key = endpoints.USER.needed(given), endpoints.KEY.of(given)
    body = await read_body(request, NewOrder)
    try:
        placed = await request.app[SHOP].place(Placing(user_id, body.quantities, key))
    except Problem as problem:
        request.app[BOOKS].refused(problem)
        raise
    request.app[BOOKS].placed(placed)
    headers = {"Location": f"/api/orders/{placed.order.orderId}"}
    return _answer(placed.order, endpoints.PLACE.status, headers if placed.is_new else {**headers, REPLAYED: "true"})


async def order(request: web.Request) -> web.Response:
    """`GET /api/orders/{id}`."""
    given = _given(request, endpoints.ORDER)
    return _answer(await request.app[SHOP].order(endpoints.ID.needed(given), endpoints.ASKING.of(given)))


async def cancel(request: web.Request) -> web.Response:
    """`POST /api/orders/{id}/cancel`."""
    given = _given(request, endpoints.CANCEL)
    return _answer(await request.app[SHOP].cancel(endpoints.ID.needed(given), endpoints.ASKING.of(given)))


async def refund(request: web.Request) -> web.Response:
    """`POST /api/orders/{id}/refund`."""
    given = _given(request, endpoints.REFUND)
    return _answer(await request.app[SHOP].refund(endpoints.ID.needed(given), endpoints.ASKING.of(given)))


async def products(request: web.Request) -> web.Response:
    """`GET /api/products`."""
    given = _given(request, endpoints.PRODUCTS)
    return _answer(await request.app[SHOP].products(endpoints.LIMIT.of(given), endpoints.CURSOR.of(given)))


async def points(request: web.Request) -> web.Response:
    """`GET /api/users/{id}/points`."""
    given = _given(request, endpoints.POINTS)
    return _answer(await request.app[SHOP].points(endpoints.ID.needed(given)))


async def activity(request: web.Request) -> web.Response:
    """`POST /api/activity`."""
    given = _given(request, endpoints.ACTIVITY)
    user_id = endpoints.USER.needed(given)
    told = await request.app[TELLER].tell(user_id, await read_body(request, NewActivity))
    return _answer(told, endpoints.ACTIVITY.status)


async def healthz(_request: web.Request) -> web.Response:
    """`GET /healthz`."""
    return _answer({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """`GET /readyz`: 503 where no order could be taken."""
    try:
        await check(request.app[SHOP].database)
    except NotMigrated as error:
        return _answer(Ready(False, str(error)), HTTPStatus.SERVICE_UNAVAILABLE)
    except (MillraceError, SQLAlchemyError):
        return _answer(Ready(False, "the database cannot be asked"), HTTPStatus.SERVICE_UNAVAILABLE)
    return _answer(Ready(True, None))
