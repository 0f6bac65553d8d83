"""The view server's endpoints: read parameters, ask, answer."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from tables.windows import Window
from topologies.views import endpoints, queries
from topologies.views.answers import SERVED, Views, answer
from topologies.views.described import Described
from topologies.views.freshness import iso
from topologies.views.guard import ACCESS
from topologies.views.live import MEMORY
from topologies.views.page import Page
from topologies.views.parameters import Duration, checked, windows_of
from topologies.views.problems import BadParameter, Handler, NotFound
from topologies.views.queries import SALES, Question, Row
from topologies.views.ranking import Top

KEYS_SHOWN = 100


def sales_tables(names: Iterable[str]) -> dict[str, str]:
    """The sales tables among these names, by what they are grouped by."""
    present = set(names)
    return {by: table for by, table in SALES.items() if table in present}


async def sales(request: web.Request) -> web.Response:
    """`GET /api/sales`: money, orders, units and customers in windows of time."""
    served = request[SERVED]
    given = endpoints.SALES.read(request.query)
    by = endpoints.BY.of(given, sales_tables(served.tables))
    views = served.of_table(SALES[by])
    question = _question(views, SALES[by], given, endpoints.WINDOW)
    currency = _currency(views, given)
    mark = queries.currency_mark(currency, views.currency)
    fresh = views.freshness(question.table)
    windows = queries.windows_of(views.model, question)

    def rows_of(window: Window) -> list[Row]:
        return queries.sales_rows(views.model, question, window, mark)

    rows = await views.collect(question.table, windows, rows_of, Page.of(given), all_keys=question.key is None)
    return answer({"by": by, "currency": currency, **_asked(views, question), **rows, "freshness": fresh})


async def top(request: web.Request) -> web.Response:
    """`GET /api/sales/top`: who sold most in the newest window; by=total: what was sold in it altogether."""
    served = request[SERVED]
    given = endpoints.TOP.read(request.query)
    tables = sales_tables(served.tables)
    by = endpoints.RANKED_BY.of(given, tables)
    table = tables[by]
    views = served.of_table(table)
    kept = views.model.tables[table].aggregates
    metric = endpoints.METRIC.of(given, (m for m in endpoints.METRIC.options if m == "revenue" or m in kept))
    n = endpoints.N.of(given)
    currency = _currency(views, given)
    longest_ms = queries.longest_ms(views.model, table)
    size = windows_of(given, views.model.slice_ms(table), endpoints.TOP_WINDOW, longest_ms=longest_ms).size_ms
    window = queries.top_window(views.model, table, size, endpoints.TOP_TO.of(given))
    fresh = views.freshness(table)
    await views.merge(table, window)
    mark = queries.currency_mark(currency, views.currency)
    memory = request.get(MEMORY)
    if memory is None:
        rows = queries.top_rows(views.model, table, window, metric, n, mark)
    else:
        followed = str(request.rel_url)
        if followed not in memory:
            memory[followed] = Top(views.model, views.tracker.news, table, metric, n, mark)
        rows = memory[followed].rows(window)
    times = queries.times_of(window, views.model.closed_before(table))
    return answer({"by": by, "metric": metric, "currency": currency, **times, "rows": rows, "freshness": fresh})


async def tables(request: web.Request) -> web.Response:
    """`GET /api/tables`: every table, in short."""
    served = request[SERVED]
    endpoints.TABLES.read(request.query)
    fresh = served.freshness()
    found = [queries.describe(views.model, name) for views in served.all for name in views.model.tables]
    return answer({"tables": found, "freshness": fresh})


async def table(request: web.Request) -> web.Response:
    """`GET /api/tables/{name}`: what one table keeps, and which keys the newest hour has."""
    name = request.match_info["name"]
    endpoints.TABLE.read(request.query)
    views = request[SERVED].of_table(name)
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
    views = request[SERVED].of_table(name)
    given = endpoints.TABLE_ROWS.read(request.query)
    question = _question(views, name, given, endpoints.SLICES)
    fresh = views.freshness(name)
    windows = queries.windows_of(views.model, question)

    def rows_of(window: Window) -> list[Row]:
        return queries.table_rows(views.model, question, window)

    rows = await views.collect(name, windows, rows_of, Page.of(given), all_keys=question.key is None)
    return answer({"table": name, **_asked(views, question), **rows, "freshness": fresh})


def custom(topology: str, path: str) -> Handler:
    """A handler that answers with a topology's own view of that path, in whatever version is served.

    A view that describes itself is given the declared parameters only. What it returns gets `freshness` beside it,
    that of the topology as it was before, unless it says its own.
    """

    async def handle(request: web.Request) -> web.Response:
        views = request[SERVED].of(topology)
        view = views.topology.views.get(path)
        if view is None:
            raise NotFound(f"version {views.topology.version} of {topology}, which is served, has no view {path}")
        fresh = views.freshness()
        result: Any = view(views.reader, _parameters(request, views.topology.described.get(path)))
        if inspect.isawaitable(result):
            result = await result
        body = dict(result) if isinstance(result, Mapping) else {"result": result}
        return answer({**body, "freshness": body.get("freshness", fresh)})

    return handle


def _parameters(request: web.Request, described: Described | None) -> dict[str, str]:
    """The query's parameters, each once, and the path's, decoded."""
    for name in request.query:
        if name in request.match_info:
            raise BadParameter(name, f"{name} is given in the path, and cannot be given again")
    given = checked(request.query, request.query) if described is None else described.read(request.query)
    return {**given, **request.match_info}


async def healthz(request: web.Request) -> web.Response:
    """`GET /healthz`: the process answers."""
    return answer({"status": "ok", **_detail(request)})


async def readyz(request: web.Request) -> web.Response:
    """`GET /readyz`: 503 until everything that was there at the start is applied."""
    ready = request[SERVED].ready
    return answer({"ready": ready, **_detail(request)}, status=200 if ready else 503)


def _detail(request: web.Request) -> Row:
    """What only those hear who may read."""
    return request[SERVED].freshness_of_each() if request.app[ACCESS].permits(request) else {}


async def index(request: web.Request) -> web.Response:
    """`GET /api`: what there is, and the currency of its money."""
    endpoints.INDEX.read(request.query)
    resources = [route.resource for route in request.app.router.routes() if route.method == "GET"]
    paths = [resource.canonical for resource in resources if resource is not None]
    served = request[SERVED]
    name = {"topology": served.all[0].topology.family} if len(served.all) == 1 else {}
    currency = served.all[0].currency
    return answer({**name, "currency": currency, "endpoints": paths, **served.freshness_of_each()})


def _question(views: Views, name: str, given: Mapping[str, str], window: Duration) -> Question:
    longest_ms = queries.longest_ms(views.model, name)
    windows = windows_of(given, views.model.slice_ms(name), window, endpoints.HOP, longest_ms)
    return Question(name, windows, endpoints.FROM.of(given), endpoints.TO.of(given), endpoints.KEY.of(given))


def _asked(views: Views, question: Question) -> Row:
    from_ms, to_ms = queries.time_range(views.model, question)
    return {
        "window_s": question.windows.size_ms / 1000,
        "hop_s": question.windows.hop_ms / 1000,
        "from": iso(from_ms),
        "to": iso(to_ms),
    }


def _currency(views: Views, given: Mapping[str, str]) -> str:
    currency = endpoints.CURRENCY.of(given) or views.currency
    if not currency.isprintable():
        raise endpoints.CURRENCY.bad("must be a code like KRW or USD")
    return currency
