"""The view server: an aiohttp application for any topology, and the process that runs it."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from aiohttp import web

from streams.errors import MillraceError
from tables.read_model import ReadModel
from tables.table import Group
from topologies.settings import Settings
from topologies.topology import Topology
from topologies.views import handlers
from topologies.views.answers import VIEWS, Views
from topologies.views.follower import Follower
from topologies.views.freshness import Tracker
from topologies.views.guard import ACCESS, BODY_BYTES, Access, Site, guarded, harden, warn_if_open
from topologies.views.metrics import METRICS, Metrics, measured, metrics
from topologies.views.problems import Handler, problems

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
FOLLOWING = web.AppKey("following", asyncio.Task)
CLOSE_WITHIN_S = 2.0


def build_views(topology: Topology, settings: Settings) -> web.Application:
    """A view server of a topology that follows the settings' cluster. Opens nothing before it is started.

    Raises MillraceError, when started, if the local copy is in use or cannot be opened.
    """
    app = views_app(topology, Access(settings.read_token, settings.ops_token))
    app.cleanup_ctx.append(_following(topology, settings))
    return app


def views_app(topology: Topology, access: Access | None = None) -> web.Application:
    """The endpoints of a topology's views, without anything behind them: `attach` it before use.

    Raises MillraceError for a view whose path is taken or is no path.
    """
    app = web.Application(middlewares=[measured, problems, guarded], client_max_size=BODY_BYTES)
    app[ACCESS] = access or Access()
    app.on_response_prepare.append(harden)
    routes: dict[str, Handler] = {
        "/api/tables": handlers.tables,
        "/api/tables/{name}": handlers.table,
        "/api/tables/{name}/rows": handlers.table_rows,
        "/healthz": handlers.healthz,
        "/readyz": handlers.readyz,
        "/metrics": metrics,
    }
    if handlers.sales_tables(table.name for table in read_group(topology).tables):
        routes = {"/api/sales": handlers.sales, "/api/sales/top": handlers.top, **routes}
    for path, view in topology.views.items():
        if path in routes or not path.startswith("/"):
            raise MillraceError(f"a view cannot be served at {path!r}: choose another path, with / at its start")
        routes[path] = handlers.custom(view)
    routes.setdefault("/", handlers.index)
    for path, handler in routes.items():
        app.router.add_get(path, handler)
    return app


def attach(app: web.Application, views: Views) -> None:
    """Put a read model behind the endpoints."""
    app[VIEWS] = views
    app[METRICS] = Metrics(views.model, views.tracker)


def _following(topology: Topology, settings: Settings) -> Callable[[web.Application], AsyncIterator[None]]:
    async def context(app: web.Application) -> AsyncIterator[None]:
        model = ReadModel(read_group(topology), copy_directory(topology, settings))
        tracker = Tracker(model)
        attach(app, Views(topology, model, tracker, settings.currency))
        follower = Follower(model, tracker, settings.cluster, topology.topics())
        app[FOLLOWING] = following = asyncio.create_task(follower.run())
        yield
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        model.close()

    return context


def run(
    topology: Topology,
    settings: Settings,
    *,
    host: str = LOOPBACK,
    started: Callable[[str], None] = logger.info,
) -> None:
    """Serve on `settings.views_port` until SIGINT or SIGTERM; `started` is told the URL.

    Raises MillraceError for a port that is taken, a local copy that is in use, a partition mismatch.
    """
    asyncio.run(_serve(topology, settings, host, started))


async def _serve(topology: Topology, settings: Settings, host: str, started: Callable[[str], None]) -> None:
    app = build_views(topology, settings)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_WITHIN_S)
    warn_if_open(host, app[ACCESS])
    try:
        await runner.setup()
        await _listen(runner, host, settings.views_port)
        started(url_of(runner))
        await _until_stopped(runner.app[FOLLOWING])
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await Site(runner, host, port).start()
    except OSError as error:
        reason = error.strerror or str(error)
        raise MillraceError(f"cannot serve on {host}:{port} ({reason}); choose another with --port") from error


def url_of(runner: web.AppRunner) -> str:
    """Where a started runner answers."""
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _until_stopped(following: "asyncio.Task[None]") -> None:
    """Wait for a signal; what ends the follower for good is raised."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({stopping, following}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if following.done():
        following.result()


def copy_directory(topology: Topology, settings: Settings) -> Path:
    """Where a server keeps its copy: one for each port, so that several servers of a host share a state directory."""
    return Path(settings.state_dir) / topology.name / f"views-{settings.views_port}"


def read_group(topology: Topology) -> Group:
    """The group without its second stages, whose tables are nobody's to read."""
    return Group(topology.name, tuple(topology.sources.values()))
