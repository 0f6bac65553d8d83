"""The view server: an aiohttp application for any topologies, and the process that runs it."""

import asyncio
import logging
import re
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial

import uvloop
from aiohttp import web

from streams.errors import MillraceError
from streams.memory import spare_the_collector
from streams.rereading import Rereader
from topologies.docs import serve as docs
from topologies.page.serve import PUBLIC as PAGE
from topologies.settings import LOOPBACK, Settings
from topologies.topology import Topology
from topologies.views import handlers
from topologies.views.answers import SERVING, Served, Serving, Views, from_one
from topologies.views.audit import audited, let_read_log
from topologies.views.background import keep_giving_back
from topologies.views.batch import batch
from topologies.views.channels import Channels, Pace
from topologies.views.compressing import compressed
from topologies.views.cors import ORIGIN, allow, cors
from topologies.views.explain import explain
from topologies.views.guard import ACCESS, BODY_BYTES, PUBLIC, SUFFIX, Access, Site, guarded, harden, warn_if_open
from topologies.views.hosting import Host, read_group, served_last
from topologies.views.live import CHANNELS, LIVE, answered, end_streams
from topologies.views.metrics import METRICS, Metrics, measured, metrics
from topologies.views.openapi import described, document
from topologies.views.operations import LOOKOUT, Lookout, operations
from topologies.views.problems import Handler, problems
from topologies.views.watching import Watch, server_name

logger = logging.getLogger(__name__)

FOLLOWING = web.AppKey("following", Sequence[asyncio.Task[None]])
CLOSE_WITHIN_S = 2.0
# A thread beside the loop, such as the audit's, has the interpreter for so long before it hands over; the loop may wait
# for that after each of its own waits. Python's own 5 ms are as long as a slow answer.
SWITCH_S = 0.0005
# Open files, where the system has no limit of its own.
FILES = 65_536
# From the outside in: refusals are counted and compressed, too, and a browser's question before needs no token.
MIDDLEWARES = [measured, compressed, problems, cors, guarded, from_one, answered]


def build_views(topologies: Sequence[Topology], settings: Settings) -> web.Application:
    """A view server of topologies that follows the settings' cluster. Opens nothing before it is started.

    Raises MillraceError where the topologies do not fit together, and, when started, if a local copy is in use or
    cannot be opened.
    """
    access = Access(settings.read_token, settings.ops_token)
    later = [found for first in topologies if (found := served_last(first, settings)) is not first]
    app = views_app(topologies, access, origin=settings.cors_origin, later=later)
    app.cleanup_ctx.append(_following(topologies, settings))
    return app


def views_app(
    topologies: Sequence[Topology],
    access: Access | None = None,
    pace: Pace | None = None,
    origin: str | None = None,
    later: Sequence[Topology] = (),
) -> web.Application:
    """The endpoints of the topologies' views, without anything behind them: `attach` it before use.

    `pace` is that of live views; pages of `origin` may read it all. What `later` versions of the topologies have of
    other views is there, too, and answers once they are served.

    Raises MillraceError for a view whose path is taken or is no path, and for tables of the same name.
    """
    refuse_alike(topologies)
    app = web.Application(middlewares=MIDDLEWARES, client_max_size=BODY_BYTES)
    app[ACCESS] = access or Access()
    app[PUBLIC] = frozenset({*PAGE.values(), *docs.PUBLIC.values()})
    app[CHANNELS] = Channels(pace)
    app.on_response_prepare.extend([harden, allow])
    if origin is not None:
        app[ORIGIN] = origin
    app.on_shutdown.append(end_streams)
    topologies = [*topologies, *later]
    routes = _routes(topologies)
    access = app[ACCESS]
    endpoints = described(topologies, routes)
    app[docs.DOCUMENT] = docs.asset_of(
        document(endpoints, read_token=access.read_token is not None, ops_token=access.ops_token is not None)
    )
    owners = {path: topology.family for topology in topologies for path in topology.views}
    app[LIVE] = {path: owners.get(path) for path, one in endpoints.items() if one.live}
    for path, handler in routes.items():
        try:
            app.router.add_get(_anything(path), handler)
        except ValueError as error:
            raise MillraceError(f"a view cannot be served at {path!r}: {error}") from error
    for path in app[LIVE]:
        if path + SUFFIX not in routes:
            app.router.add_get(_anything(path) + SUFFIX, routes[path])
    return app


def refuse_alike(topologies: Sequence[Topology]) -> None:
    """Raise MillraceError for a topology that is named twice, and for a table that two of them keep."""
    owners: dict[str, str] = {}
    names = [topology.name for topology in topologies]
    if not names or len(set(names)) != len(names):
        raise MillraceError(f"topologies to serve must be there, and each once: not {', '.join(names) or 'none'}")
    for topology in topologies:
        for table in read_group(topology).tables:
            other = owners.setdefault(table.name, topology.name)
            if other != topology.name:
                raise MillraceError(
                    f"table {table.name!r} is in {other} and in {topology.name}: give it another name in one of them, "
                    "or serve them by two servers"
                )


def _routes(topologies: Sequence[Topology]) -> dict[str, Handler]:
    routes: dict[str, Handler] = {
        "/api": handlers.index,
        "/api/audit": audited,
        "/api/batch": batch,
        "/api/explain": explain,
        "/api/operations": operations,
        "/api/tables": handlers.tables,
        "/api/tables/{name}": handlers.table,
        "/api/tables/{name}/rows": handlers.table_rows,
        "/healthz": handlers.healthz,
        "/readyz": handlers.readyz,
        "/metrics": metrics,
        "/openapi.json": docs.openapi,
        **docs.PUBLIC,
    }
    if handlers.sales_tables(table.name for topology in topologies for table in read_group(topology).tables):
        routes = {"/api/sales": handlers.sales, "/api/sales/top": handlers.top, **routes}
    taken, owners = {_shape(path) for path in routes}, dict[str, str]()
    for topology in topologies:
        for path in topology.views:
            if owners.get(path) == topology.family:
                continue  # another version has it too
            if _shape(path) in taken or not path.startswith("/"):
                raise MillraceError(f"a view cannot be served at {path!r}: choose another path, with / at its start")
            taken.add(_shape(path))
            owners[path] = topology.family
            routes[path] = handlers.custom(topology.family, path)
    # a topology may have a page of its own
    return routes if "/" in routes else {**PAGE, **routes}


def _anything(path: str) -> str:
    """A path whose parameters take everything but a slash; by default aiohttp has none with braces in them."""
    return re.sub(r"\{(\w+)\}", r"{\1:[^/]+}", path)


def _shape(path: str) -> str:
    """The same for paths that differ in the names of their parameters only."""
    return re.sub(r"\{[^{}]*\}", "{}", path)


def attach(app: web.Application, *served: Views) -> None:
    """Put a read model of each topology behind the endpoints."""
    app[SERVING] = serving = Serving(Served(served))
    app[LOOKOUT] = Lookout()
    app[METRICS] = Metrics(lambda: [views.tracker for views in serving.now.all], app[CHANNELS])


def _following(topologies: Sequence[Topology], settings: Settings) -> Callable[[web.Application], AsyncIterator[None]]:
    async def context(app: web.Application) -> AsyncIterator[None]:
        async with AsyncExitStack() as opened:
            hosts = []
            for topology in topologies:
                hosts.append(Host(topology, settings))
                opened.push_async_callback(hosts[-1].close)
            attach(app, *(host.current.views for host in hosts))
            app[LOOKOUT] = Lookout(settings.cluster)
            serving = app[SERVING]
            watch = Watch(
                settings, server_name(settings.views_port), lambda: {host.family: host.said for host in hosts}
            )
            following = [asyncio.create_task(host.run(serving, watch)) for host in hosts]
            beside = [asyncio.create_task(keep_giving_back()), asyncio.create_task(watch.run())]
            audit = let_read_log(app, partial(Rereader, settings.cluster), settings.audit_every_s)
            if settings.audit_every_s:
                beside.append(asyncio.create_task(audit.run()))
            app[FOLLOWING] = following
            yield
            for task in (*beside, *following):
                task.cancel()
            await asyncio.gather(*beside, *following, return_exceptions=True)

    return context


def run(
    topologies: Sequence[Topology],
    settings: Settings,
    *,
    host: str = LOOPBACK,
    started: Callable[[str], None] = logger.info,
) -> None:
    """Serve on `settings.views_port` until SIGINT or SIGTERM; `started` is told the URL.

    Raises MillraceError for a port that is taken, a local copy that is in use, a partition mismatch.
    """
    sys.setswitchinterval(SWITCH_S)
    uvloop.run(_serve(topologies, settings, host, started))


async def _serve(topologies: Sequence[Topology], settings: Settings, host: str, started: Callable[[str], None]) -> None:
    app = build_views(topologies, settings)
    allow_connections()
    spare_the_collector()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_WITHIN_S)
    warn_if_open(host, app[ACCESS])
    try:
        await runner.setup()
        await listen(runner, host, settings.views_port)
        started(url_of(runner))
        await until_stopped(runner.app[FOLLOWING])
    finally:
        await runner.cleanup()


def allow_connections() -> None:
    """Raise the limit of open files as far as a process may: each client has one, and many systems begin at 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES if hard == resource.RLIM_INFINITY else hard, hard))


async def listen(runner: web.AppRunner, host: str, port: int) -> None:
    """Let a runner's application answer there. Raises MillraceError for a port that is taken."""
    try:
        await Site(runner, host, port).start()
    except OSError as error:
        reason = error.strerror or str(error)
        raise MillraceError(f"cannot serve on {host}:{port} ({reason}); choose another with --port") from error


def url_of(runner: web.AppRunner) -> str:
    """Where a started runner answers."""
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def until_stopped(following: "Sequence[asyncio.Task[None]]") -> None:
    """Wait for a signal; what ends a follower for good is raised."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({stopping, *following}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for task in following:
        if task.done():
            task.result()
