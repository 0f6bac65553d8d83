"""The archive as tables of DuckDB: one for each topic, and for orders also what the sales tables count.

A table has the topic's name with `_` for what is no letter or digit (`order_events`), the columns of
`topologies.archive.rows`, and from the path `date` and `partition`.

`order_events_counted` has the orders that the sales tables count, by the rules of `streams.intake` in SQL: an event
that came before in its partition is out, one that was late when it came, and one from the future. It is a second,
independent way to every number of the views, from the log alone (where a repeat is the same event, its time included).
Money of other currencies than the shop's has their name in `currency`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb

from streams.errors import MillraceError
from streams.intake import EventTime
from streams.topics import ORDER_EVENTS
from topologies.archive.files import Files

COUNTED: Final = """
CREATE VIEW {name}_counted AS
WITH readable AS (
    SELECT *, epoch_ms(occurred_at) AS at_ms FROM {name}
    WHERE unreadable IS NULL AND epoch_ms(occurred_at) <= epoch_ms("timestamp") + {max_ahead_ms}
), marked AS (
    -- an event is never late by its own time, so it may be among those that the watermark is made of
    SELECT *,
        max(at_ms) OVER (PARTITION BY "partition" ORDER BY "offset") AS watermark,
        row_number() OVER (PARTITION BY "partition", id ORDER BY "offset") AS nth
    FROM readable
)
SELECT * EXCLUDE (at_ms, watermark, nth), make_timestamptz(at_ms // {slice_ms} * {slice_ms} * 1000) AS slice
FROM marked
WHERE (nth = 1 OR at_ms < watermark - {dedupe_ms})
    AND (at_ms // {slice_ms} + 1) * {slice_ms} + {grace_ms} > watermark
"""


@dataclass(frozen=True)
class Answer:
    """A query's columns and rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Tables:
    """A DuckDB in memory over an archive. Use as a context manager."""

    def __init__(self, files: Files, rules: EventTime, *, prefix: str = "") -> None:
        """Make a table for each topic that the archive has; `prefix` is the shop's, which names of tables leave out."""
        self._connection = duckdb.connect()
        self._connection.execute("SET TimeZone = 'UTC'")
        if not files.local:
            self._connection.register_filesystem(files.fs)
        self.names: list[str] = []
        for topic in files.topics():
            if files.places(topic):
                self._add(files, topic, table_of(topic.removeprefix(prefix)))
        if (orders := table_of(ORDER_EVENTS.name)) in self.names:
            times = {"slice_ms": rules.slice_ms, "grace_ms": rules.grace_ms, "max_ahead_ms": rules.max_ahead_ms}
            dedupe_ms = round(ORDER_EVENTS.dedupe_s * 1000)
            self._connection.execute(COUNTED.format(name=orders, dedupe_ms=dedupe_ms, **times))
            self.names.append(f"{orders}_counted")

    def _add(self, files: Files, topic: str, name: str) -> None:
        root = files.root if files.local else files.fs.unstrip_protocol(files.root)
        glob = f"{root}/{topic}/*/*/*.parquet".replace("'", "''")
        self._connection.execute(
            f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{glob}', hive_partitioning = true, "
            "hive_types = {'date': DATE, 'partition': BIGINT}, union_by_name = true)"
        )
        self.names.append(name)

    def query(self, sql: str) -> Answer:
        """Run it. Raises MillraceError with DuckDB's words."""
        try:
            done = self._connection.execute(sql)
            return Answer([name for name, *_ in done.description or ()], done.fetchall())
        except duckdb.Error as error:
            known = ", ".join(self.names) or "none yet"
            raise MillraceError(f"{' '.join(str(error).split())} (tables: {known})") from error

    def __enter__(self) -> "Tables":
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self._connection.close()


def table_of(topic: str) -> str:
    """The name of a topic's table.

    >>> table_of("order-events")
    'order_events'
    """
    name = re.sub(r"\W", "_", topic)
    return name if name[:1].isalpha() else f"t_{name}"
