"""Records as rows of an Arrow table: what the record had, and the fields of its event beside it.

Columns of the record: `offset`, `timestamp` (Kafka's, ms, UTC), `key`, `value` (bytes), `headers`; `id`, which is the
same whenever the same event comes again (`streams.taking.identity`), and `unreadable`, the reason why there is no
event, else null. The event's own columns follow from its type: whole numbers are int64, ids (numbers or text) are
text, times are timestamps, lists of structs stay lists of structs, and anything else is its JSON. `occurred_at` is the
event time, which without one of its own is the record's timestamp. A number beyond 64 bits is null; `value` has it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import pyarrow as pa
from msgspec import inspect

from streams.codecs import Undecodable, decoder
from streams.events import EPOCH, event_time_ms
from streams.log import TP, Record
from streams.taking import identity
from streams.topics import Topic

TIME: Final = pa.timestamp("ms", "UTC")
HEADERS: Final = pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))
RECORD: Final = (
    pa.field("offset", pa.int64(), nullable=False),
    pa.field("timestamp", TIME, nullable=False),
    pa.field("key", pa.binary()),
    pa.field("value", pa.binary()),
    pa.field("headers", HEADERS),
    pa.field("id", pa.string()),
    pa.field("unreadable", pa.string()),
)
EVENT_TIME: Final = "occurred_at"
INT64: Final = 2**63
MS: Final = timedelta(milliseconds=1)

Convert = Callable[[Any], Any]


@dataclass(frozen=True)
class Column:
    """One field of an event: its type in Arrow, and how its value becomes one of that."""

    type: pa.DataType
    convert: Convert


class Rows:
    """Makes tables of a topic's records. A topic without a type has the record's own columns only."""

    def __init__(self, topic: Topic) -> None:
        """Derive the columns from the topic's type."""
        self._decode: Callable[[bytes | None], Any] | None = None if topic.value is None else decoder(topic.value)
        self._columns = {} if topic.value is None else columns_of(topic.value)
        named = [pa.field(_free(name), column.type) for name, column in self._columns.items()]
        self.schema = pa.schema([*RECORD, *named])

    def table(self, tp: TP, records: Sequence[Record], metadata: Mapping[str, str]) -> pa.Table:
        """One row for each record, in order."""
        events, ids, reasons, times = self._events(tp, records)
        arrays = [
            pa.array([record.offset for record in records], pa.int64()),
            pa.array([record.timestamp for record in records], TIME),
            pa.array([record.key for record in records], pa.binary()),
            pa.array([record.value for record in records], pa.binary()),
            pa.array([_headers(record) for record in records], HEADERS),
            pa.array(ids, pa.string()),
            pa.array(reasons, pa.string()),
        ]
        for name, column in self._columns.items():
            if name == EVENT_TIME:
                arrays.append(pa.array(times, TIME))
                continue
            found = [None if event is None else column.convert(getattr(event, name)) for event in events]
            arrays.append(pa.array(found, column.type))
        return pa.Table.from_arrays(arrays, schema=self.schema.with_metadata(dict(metadata)))

    def _events(self, tp: TP, records: Sequence[Record]) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        events, ids, reasons, times = list[Any](), list[Any](), list[Any](), list[Any]()
        decode = self._decode
        for record in records:
            event, reason, at = None, None, None
            if decode is not None:
                try:
                    event = decode(record.value)
                    at = event_time_ms(event, record.timestamp) if hasattr(event, EVENT_TIME) else None
                except Undecodable as error:
                    event, reason = None, str(error)
            events.append(event)
            ids.append(identity(tp, record, getattr(event, "event_id", None)))
            reasons.append(reason)
            times.append(at)
        return events, ids, reasons, times


def columns_of(kind: type) -> dict[str, Column]:
    """The columns of a msgspec Struct, by field, in the order of their declaration."""
    found = inspect.type_info(kind)
    assert isinstance(found, inspect.StructType), f"{kind} is no msgspec Struct"
    return {field.name: _column(field.type) for field in found.fields}


def _free(name: str) -> str:
    """A field's column, where the record's own columns have its name."""
    return f"event_{name}" if name in {field.name for field in RECORD} else name


def _column(kind: inspect.Type) -> Column:
    if isinstance(kind, inspect.UnionType):
        left = tuple(one for one in kind.types if not isinstance(one, inspect.NoneType))
        if any(isinstance(one, inspect.DateTimeType) for one in left):
            return Column(TIME, _time)
        return _column(left[0]) if len(left) == 1 else _mixed(left)
    if isinstance(kind, inspect.IntType):
        return Column(pa.int64(), _same if kind.ge is not None and (kind.le or kind.lt) else _int)
    if isinstance(kind, inspect.StrType):
        return Column(pa.string(), _same)
    if isinstance(kind, inspect.LiteralType):
        return Column(pa.string(), _text)
    if isinstance(kind, inspect.BoolType):
        return Column(pa.bool_(), _same)
    if isinstance(kind, inspect.FloatType):
        return Column(pa.float64(), _float)
    if isinstance(kind, inspect.DateTimeType):
        return Column(TIME, _time)
    if isinstance(kind, (inspect.VarTupleType, inspect.ListType)):
        return _list(_column(kind.item_type))
    if isinstance(kind, inspect.StructType):
        return _struct(columns_of(kind.cls))
    return Column(pa.string(), _json)


def _mixed(kinds: tuple[inspect.Type, ...]) -> Column:
    scalars = (inspect.IntType, inspect.StrType, inspect.LiteralType)
    return Column(pa.string(), _text if all(isinstance(one, scalars) for one in kinds) else _json)


def _list(item: Column) -> Column:
    def convert(values: Any) -> Any:
        return None if values is None else [item.convert(value) for value in values]

    return Column(pa.list_(item.type), convert)


def _struct(columns: Mapping[str, Column]) -> Column:
    fields = tuple((name, column.convert) for name, column in columns.items())

    def convert(value: Any) -> Any:
        return None if value is None else tuple([to(getattr(value, name)) for name, to in fields])

    return Column(pa.struct([(name, column.type) for name, column in columns.items()]), convert)


def _same(value: Any) -> Any:
    return value


def _int(value: Any) -> Any:
    return value if value is None or -INT64 <= value < INT64 else None


def _float(value: Any) -> Any:
    return None if value is None else float(value)


def _text(value: Any) -> Any:
    return None if value is None else str(value)


def _json(value: Any) -> Any:
    return None if value is None else msgspec.json.encode(value).decode()


def _time(value: Any) -> Any:
    if isinstance(value, datetime):
        return ((value if value.tzinfo else value.replace(tzinfo=UTC)) - EPOCH) // MS
    return _int(value)


def _headers(record: Record) -> list[tuple[str, bytes]] | None:
    return [(name, value) for name, value in record.headers] or None
