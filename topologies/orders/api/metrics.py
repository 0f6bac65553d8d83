"""What the order API tells Prometheus: requests, orders placed and refused, and what waits in the outbox."""

from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from streams.errors import MillraceError
from topologies.orders import outbox
from topologies.orders.database import Database
from topologies.orders.outbox import Waiting
from topologies.orders.placing import Placed
from topologies.orders.refusals import kind_of
from topologies.views.metrics import metrics
from topologies.views.problems import Problem


class Books(Collector):
    """Counts orders, and knows what waited in the outbox when it was last looked at."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register with a server's registry."""
        self.waiting: Waiting | None = None
        self._orders = Counter(
            "millrace_orders_placed", "Orders placed; repeats with a key are not.", registry=registry
        )
        self._amount = Counter(
            "millrace_orders_amount", "Money of orders placed, in minor units.", ["currency"], registry=registry
        )
        self._repeated = Counter(
            "millrace_orders_repeated", "Requests answered with the order of an earlier one.", registry=registry
        )
        self._refused = Counter("millrace_orders_refused", "Orders refused.", ["type"], registry=registry)
        registry.register(self)

    def placed(self, placed: Placed) -> None:
        """Count an order."""
        if not placed.is_new:
            self._repeated.inc()
            return
        self._orders.inc()
        self._amount.labels(placed.order.currency).inc(placed.order.amount)

    def refused(self, problem: Problem) -> None:
        """Count one that was none."""
        self._refused.labels(kind_of(problem)).inc()

    async def look(self, database: Database) -> None:
        """Look into the outbox; where the database does not answer, nothing is said of it."""
        try:
            self.waiting = await database.read(outbox.waiting)
        except (MillraceError, SQLAlchemyError):
            self.waiting = None

    def collect(self) -> Iterator[Metric]:
        """What waited; times are in seconds."""
        reachable = float(self.waiting is not None)
        yield GaugeMetricFamily("millrace_orders_database_up", "1 while the database answers.", reachable)
        if self.waiting is not None:
            rows, oldest_s = self.waiting.rows, self.waiting.oldest_s
            yield GaugeMetricFamily("millrace_orders_outbox_waiting", "Events committed, not yet published.", rows)
            yield GaugeMetricFamily("millrace_orders_outbox_oldest_seconds", "How long the oldest waits.", oldest_s)


BOOKS = web.AppKey("books", Books)
DATABASE = web.AppKey("database", Database)


async def looked(request: web.Request) -> web.Response:
    """`GET /metrics`, with the outbox as it is."""
    await request.app[BOOKS].look(request.app[DATABASE])
    return await metrics(request)
