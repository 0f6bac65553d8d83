"""What each of the server's own endpoints takes and answers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from topologies.views import answer_types as answers
from topologies.views.described import Described
from topologies.views.parameters import Choice, Duration, Integer, Segment, Text, Time

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
WINDOW: Final = Duration("window", "1m", about="the length of a window: a multiple of the table's slice")
SLICES: Final = Duration(
    "window", about="the length of a window: a multiple of the table's slice, which is the default"
)
TOP_WINDOW: Final = Duration("window", "15m", about="the length of the window: a multiple of the table's slice")
HOP: Final = Duration(
    "hop", about="from window to window: a multiple of the slice, at most the window, which is the default"
)
FROM: Final = Time("from", about="from when on: an hour before `to` unless given")
TO: Final = Time("to", about="until when: the end of the newest slice unless given")
TOP_TO: Final = Time("to", about="when the window ends, on the next whole slice: at the newest unless given")
KEY: Final = Text("key", about="of one key only")
N: Final = Integer("n", 1, TOP_MAX, 10, about="how many rows at most")
NAME: Final = Segment("name", about="the table's")

RANGE: Final = (HOP, FROM, TO, KEY)
MERGING: Final = "503 asks to come again when a long range has to be merged first; what is done by then stays done."

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
HEALTHZ: Final = Described("Whether the process answers", (), answers.Health, live=False, strict=False)
READYZ: Final = Described(
    "Whether everything that was there at the start is applied",
    (),
    answers.Ready,
    others={503: answers.Ready},
    live=False,
    strict=False,
)
METRICS: Final = Described(
    "Figures for Prometheus", (), {"type": "string"}, live=False, strict=False, content="text/plain"
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
        "/api": INDEX,
    }
)
