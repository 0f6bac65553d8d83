"""What each of the server's own endpoints takes and answers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from topologies.views import answer_types as answers
from topologies.views import explained
from topologies.views.described import Described
from topologies.views.parameters import Choice, Duration, Formed, Integer, Number, Repeated, Segment, Text, Time
from topologies.views.queries import MAX_ROWS

TOP_MAX: Final = 1_000
CURRENCY_CHARS: Final = 16
BY: Final = Choice("by", ("total", "category", "region", "product"), "total", about="what is summed up")
RANKED_BY: Final = Choice("by", BY.options, "product", about="what is ranked; total is all together")
# Products have no customers.
METRIC: Final = Choice(
    "metric",
    ("revenue", "placed", "orders", "units", "customers"),
    "revenue",
    about="what they are ranked by; revenue is net, and products have no customers",
)
CURRENCY: Final = Text("currency", CURRENCY_CHARS, about="the shop's unless given, by its code", example="USD")
KEPT: Final = "a multiple of the table's slice, at most as long as the table is kept"
WINDOW: Final = Duration("window", "1m", about=f"the length of a window: {KEPT}")
SLICES: Final = Duration("window", about=f"the length of a window: {KEPT}; a slice unless given")
TOP_WINDOW: Final = Duration("window", "15m", about=f"the length of the window: {KEPT}")
HOP: Final = Duration(
    "hop", about="from window to window: a multiple of the slice, at most the window, which is the default"
)
FROM: Final = Time("from", about="from when on: an hour before `to` unless given")
TO: Final = Time("to", about="until when: the end of the newest slice unless given")
TOP_TO: Final = Time("to", about="when the window ends, on the next whole slice: at the newest unless given")
KEY: Final = Text("key", about="of one key only")
N: Final = Integer("n", 1, TOP_MAX, 10, about="how many rows at most")
NAME: Final = Segment("name", about="the table's")

AFTER: Final = Formed(
    "after",
    "^[^:,]{1,249}:[0-9]{1,9}:[0-9]{1,18}(,[^:,]{1,249}:[0-9]{1,9}:[0-9]{1,18}){0,99}$",
    "<topic>:<partition>:<offset>, at most 100 of them with commas between",
    8_000,
    about="answer once the view covers these records, as a producer got them back: <topic>:<partition>:<offset>[,...]",
)
WAIT: Final = Number("wait", 0, 30, 5, about="for how many seconds `after` waits, before it is a 504")
LAST_ID: Final = Text("lastEventId", about="the id of the last event that a stream had, to go on from there")
LAST_ID_HEADER: Final = Text("Last-Event-ID", about="the same as lastEventId, as browsers send it", place="header")
# What every view that can be followed takes besides its own.
FOLLOWING: Final = (AFTER, WAIT, LAST_ID)
LIMIT: Final = Integer("limit", 1, MAX_ROWS, MAX_ROWS, about="how many rows at most; the answer has `next` then")
CURSOR: Final = Text("cursor", 6_000, about="go on after another page of rows: its `next`")
RANGE: Final = (HOP, FROM, TO, KEY, LIMIT, CURSOR)
MERGING: Final = "503 asks to come again when a long range has to be merged first; what is done by then stays done."


def _file(summary: str, *parameters: Segment, content: str = "*/*") -> Described:
    """What is the same for everybody, and needs no token."""
    return Described(
        summary,
        parameters,
        {"type": "string"} if content == "text/html" else {},
        problems=(404,) if parameters else (),
        others={304: None},
        content=content,
        live=False,
        strict=False,
        guarded=False,
    )


SALES: Final = Described(
    "Money, orders, units and customers in windows of time",
    (BY, CURRENCY, WINDOW, *RANGE),
    answers.Sales,
    (503,),
    f"Without `from` and `to`, the newest hour. {MERGING}",
)
TOP: Final = Described(
    "Who sold most in the newest window",
    (RANKED_BY, METRIC, CURRENCY, TOP_WINDOW, TOP_TO, N),
    answers.TopSales,
    (503,),
    f"The window slides with the newest event. {MERGING}",
)
TABLES: Final = Described("Every table, in short", (), answers.Tables)
TABLE: Final = Described(
    "What one table keeps, and which keys the newest hour has", (NAME,), answers.OneTable, (404, 503)
)
TABLE_ROWS: Final = Described(
    "Any table's windows and keys",
    (NAME, SLICES, *RANGE),
    answers.TableRows,
    (404, 503),
    f"Without `from` and `to`, the newest hour. {MERGING}",
)
HEALTHZ: Final = Described("Whether the process answers", (), answers.Health, live=False, strict=False, guarded=False)
READYZ: Final = Described(
    "Whether everything that was there at the start is applied",
    (),
    answers.Ready,
    others={503: answers.Ready},
    live=False,
    strict=False,
    guarded=False,
)
METRICS: Final = Described(
    "Figures for Prometheus", (), {"type": "string"}, live=False, strict=False, content="text/plain"
)
VIEWS: Final = Repeated("view", 24, about="a view's path with its query, such as /api/sales/top?by=region")
BATCH: Final = Described(
    "Several views in one answer",
    (VIEWS,),
    answers.Batch,
    detail="Each is answered as it would be alone, problems included. The 200 is of the whole.",
)
OPERATIONS: Final = Described(
    "Workers and what they own, lag, throughput, and what was put aside",
    (),
    answers.Operations,
    detail="What the cluster knows of groups is asked for every 2 s at most; null is what it does not tell.",
    live=False,
)
PAGE: Final = _file("The dashboard", content="text/html")
ASSET: Final = _file("A file of the dashboard", Segment("version"), Segment("name"))
DOCS: Final = _file("This API, to browse and to try", content="text/html")
DOCS_FILE: Final = _file("A file of the page to browse the API", Segment("name"))
DOCUMENT: Final = Described(
    "This document", (), {"type": "object", "required": ["openapi", "paths"]}, others={304: None}, live=False
)
INDEX: Final = Described("Which endpoints there are, and the currency of the money", (), answers.Index)

ENDPOINTS: Final[Mapping[str, Described]] = MappingProxyType(
    {
        "/api/sales": SALES,
        "/api/sales/top": TOP,
        "/api/tables": TABLES,
        "/api/tables/{name}": TABLE,
        "/api/tables/{name}/rows": TABLE_ROWS,
        "/healthz": HEALTHZ,
        "/readyz": READYZ,
        "/metrics": METRICS,
        "/": PAGE,
        "/api": INDEX,
        "/api/batch": BATCH,
        **explained.ENDPOINTS,
        "/api/operations": OPERATIONS,
        "/docs": DOCS,
        "/docs/{name}": DOCS_FILE,
        "/openapi.json": DOCUMENT,
        "/page/{version}/{name}": ASSET,
    }
)
