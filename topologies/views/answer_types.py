"""The shapes of what the view server answers, for the API's document: Structs that say what the JSON has.

Answers are made as dicts; tests hold each to its shape. Names end with their unit: `_s` seconds, `Ms` milliseconds
since the epoch. Money is in minor units.
"""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

Iso = Annotated[str, Meta(description="ISO-8601, UTC", extra_json_schema={"format": "date-time"})]
EpochMs = Annotated[int, Meta(description="ms since the epoch")]
ByPartition = Annotated[dict[str, int], Meta(description="by topic:partition")]
Count = Annotated[int, Meta(ge=0)]
Next = (
    Annotated[str | None, Meta(description="with `limit`: the cursor of the page after this; null: the last")]
    | UnsetType
)


class Freshness(Struct, forbid_unknown_fields=True):
    """How fresh an answer is: what of the sources it covers, and since when it is known to be complete."""

    watermark: Annotated[Iso | None, Meta(description="the lowest of all partitions that had events")]
    watermarkMs: EpochMs | None
    watermarksMs: ByPartition
    offsets: Annotated[ByPartition, Meta(description="everything before is in the answer")]
    lag: Annotated[ByPartition | None, Meta(description="offsets not covered; null before the sources were looked at")]
    lagTotal: Count | None
    age_s: Annotated[float | None, Meta(description="since the answer was last known to be complete; null: never")]
    connected: Annotated[bool, Meta(description="whether the cluster answers")]
    caughtUp: Annotated[bool, Meta(description="whether what was there at the server's start is applied")]
    versions: Annotated[dict[str, str], Meta(description="of which version it is, by topology")]
    copies: Annotated[dict[str, int | None], Meta(description="lag of each derived topic")] | UnsetType = UNSET


class Problem(Struct):
    """What went wrong (RFC 9457)."""

    type: Annotated[str, Meta(pattern="^urn:millrace:problem:[a-z-]+$")]
    title: Annotated[str, Meta(description="the same for every problem of the type")]
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: Annotated[str, Meta(description="what happened this time, and what would be right")]
    parameter: Annotated[str, Meta(description="which one is bad")] | UnsetType = UNSET


class Span(Struct, forbid_unknown_fields=True):
    """The times [start, end)."""

    start: Iso
    end: Iso
    startMs: EpochMs
    endMs: EpochMs
    final: Annotated[bool, Meta(description="whether no event can change it any more")]


class SalesRow(Span, forbid_unknown_fields=True):
    """What one key sold in one window; money in minor units. net = placed - cancelled - refunded."""

    key: str
    placed: int
    cancelled: int
    refunded: int
    net: int
    orders: Count
    units: int
    customers: Annotated[Count, Meta(description="distinct, estimated; not by product")] | UnsetType = UNSET
    order_value: (
        Annotated[dict[str, float] | None, Meta(description="quantiles of an order's value; not by product")]
        | UnsetType
    ) = UNSET


class Sales(Struct, forbid_unknown_fields=True):
    """Sales by window and key, earliest first."""

    by: str
    currency: str
    window_s: float
    hop_s: float
    from_: Iso = field(name="from")
    to: Iso
    rows: list[SalesRow]
    freshness: Freshness
    next: Next = UNSET


class Ranked(Struct, forbid_unknown_fields=True):
    """What one of the best sold; `value` is of the metric that was asked for."""

    rank: Annotated[int, Meta(ge=1)]
    key: str
    value: int
    placed: int
    cancelled: int
    refunded: int
    net: int
    orders: Count
    units: int
    customers: Count | UnsetType = UNSET
    order_value: dict[str, float] | UnsetType | None = UNSET


class TopSales(Span, forbid_unknown_fields=True):
    """Who sold most in one window, most first."""

    by: str
    metric: str
    currency: str
    rows: list[Ranked]
    freshness: Freshness


class Table(Struct, forbid_unknown_fields=True):
    """What a table keeps, from what, and for how long."""

    name: str
    source: Annotated[str, Meta(description="the topic")]
    changelog: str
    partitions: Annotated[int, Meta(ge=1)]
    aggregates: Annotated[dict[str, str], Meta(description="what is computed of each column")]
    slice_s: float
    grace_s: float
    retention_s: float
    finals: str | None
    stored: Annotated[Span | None, Meta(description="from when to when; null: nothing yet")]


class Tables(Struct, forbid_unknown_fields=True):
    """Every table."""

    tables: list[Table]
    freshness: Freshness


class NewestHour(Span, forbid_unknown_fields=True):
    """The keys of a table's newest hour."""

    keyCount: Count
    keys: Annotated[list[str], Meta(max_length=100, description="the first of them")]


class OneTable(Table, forbid_unknown_fields=True, kw_only=True):
    """What a table keeps, and which keys its newest hour has."""

    newest: NewestHour | None
    freshness: Freshness


class TableRow(Span, forbid_unknown_fields=True):
    """One key's results in one window."""

    key: str
    values: Annotated[dict[str, Any], Meta(description="the result of each of the table's aggregates")]


class TableRows(Struct, forbid_unknown_fields=True):
    """A table's rows by window and key, earliest first."""

    table: str
    window_s: float
    hop_s: float
    from_: Iso = field(name="from")
    to: Iso
    rows: list[TableRow]
    freshness: Freshness
    next: Next = UNSET


class Health(Struct, forbid_unknown_fields=True):
    """Yes; and to those who may read, how fresh everything is, of each topology where there are several."""

    status: Annotated[str, Meta(pattern="^ok$")]
    freshness: Freshness | UnsetType = UNSET
    topologies: dict[str, Freshness] | UnsetType = UNSET


class Ready(Struct, forbid_unknown_fields=True):
    """Yes or no; and to those who may read, how fresh everything is, of each topology where there are several."""

    ready: bool
    freshness: Freshness | UnsetType = UNSET
    topologies: dict[str, Freshness] | UnsetType = UNSET


class Part(Struct, forbid_unknown_fields=True):
    """What one of several views said: `body` is what it alone would have answered, with `status`."""

    view: str
    status: Annotated[int, Meta(ge=200, le=599)]
    body: dict[str, Any]


class Batch(Struct, forbid_unknown_fields=True):
    """What several views said, in the order asked."""

    views: list[Part]
    freshness: Freshness


class Member(Struct, forbid_unknown_fields=True):
    """A worker that is in its group now."""

    name: Annotated[str, Meta(description="its own, or its client's where it has none")]
    member: str
    host: str
    partitions: Count


class OwnedPartition(Struct, forbid_unknown_fields=True):
    """One partition of a source: whose it is, and how far its tables are; offsets, null where not known."""

    topic: str
    partition: Count
    owner: str | None
    end: Count | None
    committed: Count | None
    covered: Annotated[Count, Meta(description="everything before is in the tables that are read here")]
    lag: Count | None
    perSecond: Annotated[float | None, Meta(description="records, in the last ten seconds")]


class RunningTopology(Struct, forbid_unknown_fields=True):
    """A topology as its group runs it; what the cluster does not tell is null, and `problem` says why."""

    name: str
    state: Annotated[str | None, Meta(description="the group's, such as stable or empty")]
    problem: str | None
    members: list[Member] | None
    perSecond: float | None
    partitions: list[OwnedPartition]
    freshness: Freshness


class PutAside(Struct, forbid_unknown_fields=True):
    """How many late events and dead letters are kept of a source."""

    topic: str
    late: Count | None
    deadLetters: Count | None


class Operations(Struct, forbid_unknown_fields=True):
    """What those want to know who run it."""

    at: Iso
    topologies: list[RunningTopology]
    letters: list[PutAside]
    freshness: Freshness


class Index(Struct, forbid_unknown_fields=True):
    """Which endpoints there are."""

    currency: str
    endpoints: list[str]
    freshness: Freshness
    topology: str | UnsetType = UNSET
    topologies: dict[str, Freshness] | UnsetType = UNSET
