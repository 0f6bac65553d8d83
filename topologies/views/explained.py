"""What `/api/explain` and `/api/audit` take and answer."""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct, field

from topologies.views.answer_types import Count, EpochMs, Freshness, Iso, Span
from topologies.views.described import Described
from topologies.views.parameters import Choice, Duration, Integer, Text, Time

BY: Final = Choice("by", ("total", "category", "region", "product"), about="of which sales table; or give `table`")
TABLE: Final = Text("table", about="of which table, of any topology; or give `by`", example="sales_by_category")
KEY: Final = Text("key", about="whose number", required=True, example="books")
WINDOW: Final = Time("window", about="when the window begins: a whole slice", required=True)
SIZE: Final = Duration("size", about="how long it is: a multiple of the table's slice, which is the default")
SAMPLE: Final = Integer("sample", 0, 100, 10, about="how many of the very events to show of each partition, at most")


class SampledEvent(Struct, forbid_unknown_fields=True):
    """One event that was counted."""

    offset: Count
    time: Iso
    timeMs: EpochMs
    value: Annotated[dict[str, Any], Meta(description="as it was decoded")]


class Partial(Struct, forbid_unknown_fields=True):
    """What one source partition contributes."""

    topic: str
    partition: Count
    results: dict[str, Any]
    firstOffset: Annotated[int, Meta(description="of the first event that was counted")]
    lastOffset: Annotated[int, Meta(description="of the last one")]
    events: Annotated[Count, Meta(description="how many were counted")]
    sample: Annotated[list[SampledEvent], Meta(description="the first ones")]


class Explained(Span, forbid_unknown_fields=True):
    """A number, and what it comes from."""

    topology: str
    table: str
    key: str
    provisional: Annotated[bool, Meta(description="whether events may still come into the window")]
    results: dict[str, Any]
    events: Count
    partials: list[Partial]
    since: Annotated[
        dict[str, dict[str, int]], Meta(description="by topic:partition, from which offset each table is counted")
    ]
    sampleProblem: Annotated[str | None, Meta(description="why events are missing from the samples")]
    freshness: Freshness


class Differing(Struct, forbid_unknown_fields=True):
    """A cell that is not what its source says."""

    table: str
    window: Iso
    windowMs: EpochMs
    key: str
    partition: Count
    what: Annotated[list[str], Meta(description="which columns; first, last, events; or cell: one of both is missing")]
    stored: dict[str, Any] | None
    recounted: dict[str, Any] | None


class Audited(Struct, forbid_unknown_fields=True):
    """What counting again has come to since the server started. Cells are keys of closed windows of a table."""

    running: bool
    every_s: float
    checked: Annotated[Count, Meta(description="cells that were counted again")]
    agree: Count
    differ: Annotated[list[Differing], Meta(description="of those that differ, the first 100")]
    differing: Annotated[Count, Meta(description="how many differ")]
    unknown: Annotated[Count, Meta(description="cells of which the log does not tell any more, or not soon enough")]
    reasons: Annotated[dict[str, int], Meta(description="why, by table, and of how many cells")]
    windows: Annotated[Count, Meta(description="windows counted again")]
    records: Annotated[Count, Meta(description="records read again for it")]
    lastAt: Iso | None
    last: Annotated[str | None, Meta(description="what was counted last")]
    lastError: str | None = field(default=None)


EXPLAIN: Final = Described(
    "What a number comes from: partials, their offsets, and a sample of the very events",
    (BY, TABLE, KEY, WINDOW, SIZE, SAMPLE),
    Explained,
    (404,),
    "Give `by` or `table`. A window that is still open is provisional.",
    live=False,
)
AUDIT: Final = Described(
    "Whether numbers counted again from the log are what is kept", (), Audited, live=False
)  # fmt: skip
ENDPOINTS: Final = {"/api/explain": EXPLAIN, "/api/audit": AUDIT}
