"""The order API as an aiohttp application, and the process that runs it, with a relay beside it."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

from aiohttp import web
from sqlalchemy import URL

from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.memory import spare_the_collector
from streams.topics import ORDER_EVENTS, PAYMENT_NOTIFICATIONS, USER_ACTIVITY, Topic, ensure_topics
from topologies.docs import serve as docs
from topologies.orders.api import handlers
from topologies.orders.api.activity import KafkaLine, Teller
from topologies.orders.api.endpoints import ABOUT, ENDPOINTS, TITLE
from topologies.orders.api.handlers import SHOP, TELLER, database_problems, same_origin
from topologies.orders.api.metrics import BOOKS, DATABASE, Books, looked
from topologies.orders.api.shop import Shop
from topologies.orders.database import Database
from topologies.orders.migrating import check
from topologies.orders.relay import Relay
from topologies.orders.relay_running import RelayCollector
from topologies.orders.sending import KafkaSender
from topologies.sales import own_topic
from topologies.settings import LOOPBACK, Settings
from topologies.views.guard import ACCESS, BODY_BYTES, PUBLIC, Access, guarded, harden, is_loopback
from topologies.views.metrics import METRICS, HttpMetrics, measured
from topologies.views.openapi import document
from topologies.views.problems import Handler, problems
from topologies.views.server import allow_connections, listen, until_stopped, url_of

logger = logging.getLogger(__name__)

PUBLISH_WAIT_S: Final = 1.0
CLOSE_WITHIN_S: Final = 5.0
RETRY_S: Final = 2.0
# From the outside in: refusals are counted, too.
MIDDLEWARES: Final = [measured, problems, guarded, same_origin, database_problems]
GET: Final[dict[str, Handler]] = {
    "/api/orders/{id}": handlers.order,
    "/api/products": handlers.products,
    "/api/users/{id}/points": handlers.points,
    "/healthz": handlers.healthz,
    "/readyz": handlers.readyz,
    "/metrics": looked,
    "/openapi.json": docs.openapi,
    **docs.PUBLIC,
}
POST: Final[dict[str, Handler]] = {
    "/api/orders": handlers.place,
    "/api/orders/{id}/cancel": handlers.cancel,
    "/api/orders/{id}/refund": handlers.refund,
    "/api/activity": handlers.activity,
}


def orders_app(shop: Shop, teller: Teller, access: Access | None = None) -> web.Application:
    """The order API of a shop. It opens and closes nothing."""
    app = web.Application(middlewares=MIDDLEWARES, client_max_size=BODY_BYTES)
    app[ACCESS] = access = access or Access(purpose="orders")
    app[PUBLIC] = frozenset(docs.PUBLIC.values())
    app[SHOP], app[TELLER], app[DATABASE] = shop, teller, shop.database
    app[METRICS] = HttpMetrics("orders")
    app[BOOKS] = Books(app[METRICS].registry)
    app.on_response_prepare.append(harden)
    described = document(
        ENDPOINTS,
        read_token=access.read_token is not None,
        ops_token=access.ops_token is not None,
        title=TITLE,
        about=ABOUT,
        purpose=access.purpose,
    )
    app[docs.DOCUMENT] = docs.asset_of(described)
    app.add_routes([web.get(path, handler) for path, handler in GET.items()])
    app.add_routes([web.post(path, handler) for path, handler in POST.items()])
    return app


def topics(settings: Settings) -> list[Topic]:
    """What the command side writes and reads."""
    return [own_topic(topic, settings) for topic in (ORDER_EVENTS, USER_ACTIVITY, PAYMENT_NOTIFICATIONS)]


def run(
    settings: Settings,
    database: URL,
    *,
    host: str = LOOPBACK,
    relay: bool = True,
    publish_wait_s: float = PUBLISH_WAIT_S,
    started: Callable[[str], None] = logger.info,
) -> None:
    """Serve on `settings.orders_port` until SIGINT or SIGTERM; `started` is told the URL.

    Raises MillraceError for a port that is taken, a database that cannot be used or has other tables.
    """
    asyncio.run(_serve(settings, database, host, relay, publish_wait_s, started))


async def _serve(
    settings: Settings, url: URL, host: str, relay: bool, publish_wait_s: float, started: Callable[[str], None]
) -> None:
    async with AsyncExitStack() as opened:
        database = await opened.enter_async_context(Database.open(url))
        await check(database)
        shop = Shop.of(settings, database, publish_wait_s)
        line = KafkaLine(settings.cluster, own_topic(USER_ACTIVITY, settings).name)
        opened.push_async_callback(line.close)
        making = asyncio.create_task(_make_topics(settings.cluster, topics(settings)))
        opened.push_async_callback(_cancelled, making)
        relaying: list[asyncio.Task[None]] = []
        relay_of_ours = Relay(database, KafkaSender(settings.cluster), sent=shop.places.tell) if relay else None
        if relay_of_ours is not None:
            shop = replace(shop, committed=relay_of_ours.ring)
            stop = asyncio.Event()
            relaying.append(asyncio.create_task(relay_of_ours.run(stop)))
            opened.push_async_callback(_stopped, relaying[0], stop)
        app = orders_app(shop, Teller(line), _access(settings))
        if relay_of_ours is not None:
            app[METRICS].registry.register(RelayCollector(relay_of_ours.figures))
        await _listening(app, settings, host, started, relaying)


async def _make_topics(cluster: Cluster, wanted: list[Topic]) -> None:
    """Make the topics that are missing; a cluster that is away is asked again."""
    said = ""
    while True:
        try:
            await asyncio.to_thread(ensure_topics, cluster, wanted, timeout_s=CLOSE_WITHIN_S)
            return
        except MillraceError as error:
            if str(error) != said:
                logger.warning("orders are taken, and not published yet: %s", error)
            said = str(error)
        await asyncio.sleep(RETRY_S)


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _stopped(task: "asyncio.Task[None]", stop: asyncio.Event) -> None:
    stop.set()
    await asyncio.gather(task, return_exceptions=True)


def _access(settings: Settings) -> Access:
    return Access(settings.orders_token, settings.ops_token, purpose="orders")


async def _listening(
    app: web.Application,
    settings: Settings,
    host: str,
    started: Callable[[str], None],
    relaying: "list[asyncio.Task[None]]",
) -> None:
    """Answer until a signal comes, or the relay fails for good, which is raised."""
    allow_connections()
    spare_the_collector()
    _warn_if_open(host, settings)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_WITHIN_S)
    try:
        await runner.setup()
        await listen(runner, host, settings.orders_port)
        started(url_of(runner))
        await until_stopped(relaying)
    finally:
        await runner.cleanup()


def _warn_if_open(host: str, settings: Settings) -> None:
    if is_loopback(host):
        return
    if settings.orders_token is None:
        logger.warning("everybody who reaches %s may order for anybody: set MILLRACE_ORDERS_TOKEN", host)
    else:
        logger.warning("tokens go over %s unencrypted: put a proxy with TLS before it", host)
