"""The view server's endpoints: read parameters, ask, answer."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from tables.windows import Window
from topologies.topology import View
from topologies.views import queries
from topologies.views.answers import SERVED, Views, answer
from topologies.views.freshness import iso
from topologies.views.guard import ACCESS
from topologies.views.parameters import Parameters
from topologies.views.problems import BadParameter, Handler
from topologies.views.queries import SALES, Question, Row

RANGE = ("window", "hop", "from", "to", "key")
TOP_MAX = 1_000
KEYS_SHOWN = 100
# Metrics of /api/sales/top; products have no customers.
METRICS = ("revenue", "placed", "orders", "units", "customers")


def sales_tables(names: Iterable[str]) -> dict[str, str]:
    """The sales tables among these names, by what they are grouped by."""
    present = set(names)
    return {by: table for by, table in SALES.items() if table in present}


async def sales(request: web.Request) -> web.Response:
    """`GET /api/sales`: money, orders, units and customers in windows of time."""
    served = request.app[SERVED]
    parameters = Parameters.read(request.query, ("by", "currency", *RANGE))
    by = parameters.choice("by", sales_tables(served.tables), "total")
    views = served.of_table(SALES[by])
    question = _question(views, SALES[by], parameters, "1m")
    currency = _currency(views, parameters)
    mark = queries.currency_mark(currency, views.currency)
    fresh = views.freshness(question.table)
    windows = queries.windows_of(views.model, question)

    def rows_of(window: Window) -> list[Row]:
        return queries.sales_rows(views.model, question, window, mark)

    rows = await views.collect(question.table, windows, rows_of, all_keys=question.key is None)
    return answer({"by": by, "currency": currency, **_asked(views, question), "rows": rows, "freshness": fresh})


async def top(request: web.Request) -> web.Response:
    """`GET /api/sales/top`: who sold most in the newest window."""
    served = request.app[SERVED]
    parameters = Parameters.read(request.query, ("by", "metric", "window", "to", "n", "currency"))
    tables = {by: table for by, table in sales_tables(served.tables).items() if by != "total"}
    by = parameters.choice("by", tables, "product")
    table = tables[by]
    views = served.of_table(table)
    kept = views.model.tables[table].aggregates
    metric = parameters.choice("metric", (m for m in METRICS if m == "revenue" or m in kept), "revenue")
    n = parameters.integer("n", 10, 1, TOP_MAX)
    currency = _currency(views, parameters)
    size = parameters.windows(views.model.slice_ms(table), "15m").size_ms
    window = queries.top_window(views.model, table, size, parameters.time("to"))
    fresh = views.freshness(table)
    await views.merge(table, window)
    mark = queries.currency_mark(currency, views.currency)
    rows = queries.top_rows(views.model, table, window, metric, n, mark)
    times = queries.times_of(window, views.model.closed_before(table))
    return answer({"by": by, "metric": metric, "currency": currency, **times, "rows": rows, "freshness": fresh})


async def tables(request: web.Request) -> web.Response:
    """`GET /api/tables`: every table, in short."""
    served = request.app[SERVED]
    Parameters.read(request.query, ())
    fresh = served.freshness()
    found = [queries.describe(views.model, name) for views in served.all for name in views.model.tables]
    return answer({"tables": found, "freshness": fresh})


async def table(request: web.Request) -> web.Response:
    """`GET /api/tables/{name}`: what one table keeps, and which keys the newest hour has."""
    name = request.match_info["name"]
    Parameters.read(request.query, ())
    views = request.app[SERVED].of_table(name)
    fresh = views.freshness(name)
    return answer({**queries.describe(views.model, name), "newest": await _newest(views, name), "freshness": fresh})


async def _newest(views: Views, name: str) -> Row | None:
    stored = views.model.bounds(name)
    if stored is None:
        return None
    slice_ms = views.model.slice_ms(name)
    first = stored.end_ms - max(slice_ms, queries.HOUR_MS - queries.HOUR_MS % slice_ms)
    window = Window(max(stored.start_ms, first), stored.end_ms)
    await views.merge(name, window)
    keys = sorted(views.model.keys(name, window))
    times = queries.times_of(window, views.model.closed_before(name))
    return {**times, "keyCount": len(keys), "keys": keys[:KEYS_SHOWN]}


async def table_rows(request: web.Request) -> web.Response:
    """`GET /api/tables/{name}/rows`: any table's windows and keys."""
    name = request.match_info["name"]
    views = request.app[SERVED].of_table(name)
    question = _question(views, name, Parameters.read(request.query, RANGE), None)
    fresh = views.freshness(name)
    windows = queries.windows_of(views.model, question)

    def rows_of(window: Window) -> list[Row]:
        return queries.table_rows(views.model, question, window)

    rows = await views.collect(name, windows, rows_of, all_keys=question.key is None)
    return answer({"table": name, **_asked(views, question), "rows": rows, "freshness": fresh})


def custom(topology: str, view: View) -> Handler:
    """A handler that answers with a topology's own view.

    What it returns gets `freshness` beside it, that of the topology as it was before, unless it says its own.
    """

    async def handle(request: web.Request) -> web.Response:
        views = request.app[SERVED].of(topology)
        fresh = views.freshness()
        result: Any = view(views.reader, _parameters(request))
        if inspect.isawaitable(result):
            result = await result
        body = dict(result) if isinstance(result, Mapping) else {"result": result}
        return answer({**body, "freshness": body.get("freshness", fresh)})

    return handle


def _parameters(request: web.Request) -> dict[str, str]:
    """The query's parameters and the path's, decoded."""
    for name in request.query:
        if name in request.match_info:
            raise BadParameter(name, f"{name} is given in the path, and cannot be given again")
    return {**request.query, **request.match_info}


async def healthz(request: web.Request) -> web.Response:
    """`GET /healthz`: the process answers."""
    return answer({"status": "ok", **_detail(request)})


async def readyz(request: web.Request) -> web.Response:
    """`GET /readyz`: 503 until everything that was there at the start is applied."""
    ready = request.app[SERVED].ready
    return answer({"ready": ready, **_detail(request)}, status=200 if ready else 503)


def _detail(request: web.Request) -> Row:
    """What only those hear who may read."""
    return request.app[SERVED].freshness_of_each() if request.app[ACCESS].permits(request) else {}


async def index(request: web.Request) -> web.Response:
    """`GET /`: what else there is."""
    resources = [route.resource for route in request.app.router.routes() if route.method == "GET"]
    endpoints = [resource.canonical for resource in resources if resource is not None]
    served = request.app[SERVED]
    name = {"topology": served.all[0].topology.name} if len(served.all) == 1 else {}
    return answer({**name, "endpoints": endpoints, **served.freshness_of_each()})


def _question(views: Views, name: str, parameters: Parameters, window: str | None) -> Question:
    windows = parameters.windows(views.model.slice_ms(name), window)
    return Question(name, windows, parameters.time("from"), parameters.time("to"), parameters.text("key"))


def _asked(views: Views, question: Question) -> Row:
    from_ms, to_ms = queries.time_range(views.model, question)
    return {
        "window_s": question.windows.size_ms / 1000,
        "hop_s": question.windows.hop_ms / 1000,
        "from": iso(from_ms),
        "to": iso(to_ms),
    }


def _currency(views: Views, parameters: Parameters) -> str:
    currency = parameters.text("currency") or views.currency
    if len(currency) > 16 or not currency.isprintable():
        raise BadParameter("currency", "currency must be a code like KRW or USD")
    return currency
