"""A plain Faust app as its documentation teaches it, for the harness to break: a table on RocksDB, an event at a time.

It keeps the number and the value of placed orders by minute and region, in a plain table whose key names the minute:
Faust's own windowed tables expire by the wall clock, which would be another reason to be wrong. All settings are
Faust's defaults but two. The session timeout is short, as the harness has it for all workers. And with `exactly_once`
the consistency check of recovery is off: it compares the local store with a highwater that was not fetched yet, and
with it most rebalances end in a loop of crashes (`... is higher than the last offset in that topic (651 > -1)`).

`python -m topologies.chaos.plain_faust GUARANTEE DIRECTORY PORT` runs one worker; where Kafka is, and the prefix of
the names, come from the environment, as for `millrace worker`. A worker has a directory of its own: Faust's workers
cannot share one.
"""

import sys
from pathlib import Path
from typing import Any, Final, Literal, get_args

import faust
from yarl import URL

from streams.errors import MillraceError
from streams.topics import ORDER_EVENTS
from topologies.settings import Settings

Guarantee = Literal["at_least_once", "exactly_once"]
GUARANTEES: Final[tuple[Guarantee, ...]] = get_args(Guarantee)
GROUP: Final = "plain-faust"
TABLE: Final = "sales"
MINUTE_MS: Final = 60_000
# A session ends after three heartbeats that did not come, as Kafka recommends.
HEARTBEATS: Final = 3


class Order(faust.Record):
    """An order event, as far as the agent needs it."""

    eventType: str
    amount: int
    region: str
    occurredAt: int


def changelog(settings: Settings) -> str:
    """The name of the changelog that Faust makes of the table."""
    return f"{settings.prefix}{GROUP}-{TABLE}-changelog"


def build(settings: Settings, guarantee: Guarantee, directory: Path, port: int) -> faust.App:
    """The app of one worker. Raises MillraceError for a cluster that it could not log in to."""
    if settings.cluster.security:
        raise MillraceError("plain Faust is compared on a cluster without log-in: use the embedded broker")
    app = faust.App(
        settings.prefix + GROUP,
        broker=[URL(f"kafka://{server}") for server in settings.cluster.bootstrap.split(",")],
        store="rocksdb://?driver=rocksdict",
        datadir=str(directory),
        processing_guarantee=guarantee,
        recovery_consistency_check=guarantee == "at_least_once",
        topic_partitions=settings.partitions,
        topic_disable_leader=True,
        broker_session_timeout=settings.session_s,
        broker_heartbeat_interval=settings.session_s / HEARTBEATS,
        web_bind="127.0.0.1",
        web_host="127.0.0.1",
        web_port=port,
    )
    orders = app.topic(settings.prefix + ORDER_EVENTS.name, key_type=bytes, value_type=Order)
    sales = app.Table(TABLE, default=lambda: [0, 0], partitions=settings.partitions)

    @app.agent(orders, name=f"{GROUP}.add_up")
    async def add_up(stream: faust.StreamT[Order]) -> None:
        async for order in stream:
            if order.eventType == "order.placed":
                key = f"{order.occurredAt - order.occurredAt % MINUTE_MS}/{order.region}"
                count, placed = sales[key]
                sales[key] = [count + 1, placed + order.amount]

    _add_page(app, settings)
    return app


def _add_page(app: faust.App, settings: Settings) -> None:
    """Serve `/readyz` as our own workers do: the source partitions, once they are assigned and restored."""
    topic = settings.prefix + ORDER_EVENTS.name
    tables: Any = app.tables  # its declared type does not know of the recovery

    @app.page("/readyz", name="readyz")
    async def readyz(page: Any, request: Any) -> Any:
        restoring = app.rebalancing or not tables.recovery.completed.is_set()
        owned = sorted(tp.partition for tp in app.consumer.assignment() if tp.topic == topic)
        return page.json({"ready": not restoring, "partitions": owned}, status=503 if restoring else 200)


def main(arguments: list[str]) -> None:
    """Run one worker until a signal ends it."""
    wanted, directory, port = arguments
    guarantee = next((known for known in GUARANTEES if known == wanted), None)
    if guarantee is None:
        raise MillraceError(f"there is no guarantee {wanted!r}: give {' or '.join(GUARANTEES)}")
    app = build(Settings.from_environment(), guarantee, Path(directory), int(port))
    app.finalize()
    Path(directory).mkdir(parents=True, exist_ok=True)
    app.Worker(loglevel="warning").execute_from_commandline()


if __name__ == "__main__":
    main(sys.argv[1:])
