"""The archive as tables of DuckDB: one for each topic, and for orders also what the sales tables count.

A table has the topic's name with `_` for what is no letter or digit (`order_events`), the columns of
`topologies.archive.rows`, and from the path `date` and `partition`. Where another one has that name already, a number
makes it its own (`a-b` is `a_b`, `a.b` then `a_b_2`; the shop's topics come first), and where SQL has it for itself it
is written in quotes (`"order"`). The names are told with what a query fails with.

`order_events_counted` has the orders that the sales tables count, by the rules of `streams.intake` in SQL: an event
that came before in its partition is out, one that was late when it came, and one from the future. It is a second,
independent way to every number of the views, from the log alone (where a repeat is the same event, its time included).
Money of other currencies than the shop's has their name in `currency`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, Final

import duckdb

from streams.errors import MillraceError, in_one_line
from streams.intake import EventTime
from streams.topics import ORDER_EVENTS
from topologies.archive.files import Files

COUNTED: Final = """
CREATE VIEW {counted} AS
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
ORDERS: Final = "order_events"
ORDERS_COUNTED: Final = "order_events_counted"
# What no table can be called without quotes.
WORDS: Final = "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category IN ('reserved', 'type_function')"


@dataclass(frozen=True)
class Answer:
    """A query's columns and rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Tables:
    """A DuckDB in memory over an archive. Use as a context manager."""

    def __init__(self, files: Files, rules: EventTime, *, prefix: str = "") -> None:
        """Make a table for each topic that the archive has; `prefix` is the shop's, which names of tables leave out.

        Raises MillraceError where DuckDB cannot read what is there.
        """
        self._connection = duckdb.connect()
        self._connection.execute("SET TimeZone = 'UTC'")
        if not files.local:
            self._connection.register_filesystem(files.fs)
        self._words = {word for (word,) in self._connection.execute(WORDS).fetchall()}
        self.names: dict[str, str] = {}  # and how each is told
        orders = prefix + ORDER_EVENTS.name
        topics = [topic for topic in files.topics() if files.places(topic)]
        for topic in sorted(topics, key=lambda topic: (topic != orders, not topic.startswith(prefix))):
            self._add(files, topic, table_of(topic.removeprefix(prefix)))
        if orders in topics:
            times = {"slice_ms": rules.slice_ms, "grace_ms": rules.grace_ms, "max_ahead_ms": rules.max_ahead_ms}
            dedupe_ms = round(ORDER_EVENTS.dedupe_s * 1000)
            self._create(orders, COUNTED.format(name=ORDERS, counted=ORDERS_COUNTED, dedupe_ms=dedupe_ms, **times))
            self.names[ORDERS_COUNTED] = ORDERS_COUNTED

    def _add(self, files: Files, topic: str, plain: str) -> None:
        root = files.root if files.local else files.fs.unstrip_protocol(files.root)
        glob = f"{root}/{topic}/*/*/*.parquet".replace("'", "''")
        name = self._free(plain)
        self._create(
            topic,
            f"CREATE VIEW \"{name}\" AS SELECT * FROM read_parquet('{glob}', hive_partitioning = true, "
            "hive_types = {'date': DATE, 'partition': BIGINT}, union_by_name = true)",
        )
        written = f'"{name}"' if name.lower() in self._words else name
        self.names[name] = written if name == plain else f"{written} of topic {topic}"

    def _free(self, name: str) -> str:
        """The name, or with a number if there is such a table; DuckDB takes `A` and `a` for the same."""
        taken = {ORDERS_COUNTED, *map(str.lower, self.names)}
        numbered = (f"{name}_{number}" for number in count(2))
        return next(one for one in chain([name], numbered) if one.lower() not in taken)

    def _create(self, topic: str, sql: str) -> None:
        try:
            self._connection.execute(sql)
        except duckdb.Error as error:
            raise MillraceError(f"the archive of topic {topic} cannot be read: {in_one_line(error)}") from error

    def query(self, sql: str) -> Answer:
        """Run it. Raises MillraceError with DuckDB's words."""
        try:
            done = self._connection.execute(sql)
            return Answer([name for name, *_ in done.description or ()], done.fetchall())
        except duckdb.Error as error:
            known = ", ".join(self.names.values()) or "none yet"
            raise MillraceError(f"{in_one_line(error)} (tables: {known})") from error

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
