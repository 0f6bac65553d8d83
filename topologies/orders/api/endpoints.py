"""What each endpoint of the order API takes and answers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from topologies.orders.api.bodies import LARGEST_ID, NewActivity, NewOrder, Points, Products, Ready, Told
from topologies.orders.order import Order
from topologies.orders.schema import KEY_CHARS
from topologies.views.described import Described
from topologies.views.endpoints import DOCS, DOCS_FILE, DOCUMENT
from topologies.views.endpoints import METRICS as VIEWS_METRICS
from topologies.views.parameters import Formed, Integer, Parameter

TITLE: Final = "Millrace orders"
ABOUT: Final = """\
Takes orders, and moves them on. An order is one database transaction: stock and points are taken, or nothing is.

What is acknowledged is committed. Its event is published a moment later; `after` says where it lies in Kafka, as \
`?after=` of the views takes it. Where that takes longer it is null, and `GET /api/orders/{id}` has it later.

Errors are `application/problem+json` (RFC 9457), each with a type of its own: `unknown-user`, `unknown-product`, \
`unknown-order`, `out-of-stock`, `not-enough-points`, `wrong-status`, `idempotency-key-reused`, `bad-body`, \
`bad-parameter`, `busy`. A body has at most 16 KiB, and a `Content-Length`. `X-USER-ID` is set by what stands before \
this server and knows who asks.
"""
BUSY: Final = (503,)
BODY: Final = (411, 413)


@dataclass(frozen=True)
class Whole(Parameter[int | None]):
    """An id: a whole number that every JSON reader keeps exact; None where it is missing and need not be there."""

    place: Literal["query", "path", "header"] = field(default="path", kw_only=True)
    required: bool = field(default=True, kw_only=True)

    def of(self, values: Mapping[str, str]) -> int | None:
        """The number."""
        text = values.get(self.name)
        if text is None and not self.required:
            return None
        if text is None or not re.fullmatch("[0-9]{1,16}", text, re.ASCII) or int(text) > LARGEST_ID:
            found = "is missing" if text is None else "is no id"
            raise self.bad(f"{found}: give a whole number from 0 to {LARGEST_ID}")
        return int(text)

    def needed(self, values: Mapping[str, str]) -> int:
        """The number of one that is required."""
        found = self.of(values)
        assert found is not None
        return found

    def schema(self) -> dict[str, Any]:
        """The bounds."""
        return {"type": "integer", "minimum": 0, "maximum": LARGEST_ID}


ID: Final = Whole("id", example=1_000_000_000_000)
USER: Final = Whole("X-USER-ID", place="header", about="who asks", example=123)
ASKING: Final = Whole(
    "X-USER-ID",
    place="header",
    required=False,
    about="who asks: another user's order is then unknown; without it, any is found",
)
KEY: Final = Formed(
    "Idempotency-Key",
    rf"[!-~]{{1,{KEY_CHARS}}}",
    f"1 to {KEY_CHARS} printable ASCII characters without spaces",
    KEY_CHARS,
    place="header",
    about="the user's own name for this request: a repeat answers the same order, and orders nothing",
)
LIMIT: Final = Integer("limit", 1, 1_000, 100, about="how many")
CURSOR: Final = Whole("cursor", place="query", required=False, about="the `next` of the page before")

PLACE: Final = Described(
    "Place an order",
    (USER, KEY),
    Order,
    (404, 409, 422, *BODY, *BUSY),
    "404: `unknown-user` or `unknown-product`. 409: `out-of-stock` or `not-enough-points`. 422: the key was used with "
    "another body. The answer to a repeat has the header `Idempotency-Replayed: true`, and the order as it is now.",
    method="post",
    body=NewOrder,
    status=201,
    live=False,
)
ORDER: Final = Described("An order as it is now", (ID, ASKING), Order, (404, *BUSY), live=False)
CANCEL: Final = Described(
    "Cancel an order that is not paid yet",
    (ID, ASKING),
    Order,
    (403, 404, 409, *BODY, *BUSY),
    "Stock and points go back. Cancelled again, it stays what it is. 409: it is paid, or refunded.",
    method="post",
    live=False,
)
REFUND: Final = Described(
    "Give back an order that is paid",
    (ID, ASKING),
    Order,
    (403, 404, 409, *BODY, *BUSY),
    "Stock and points go back at once, the payment soon after. Refunded again, it stays what it is. 409: it is not "
    "paid, or cancelled.",
    method="post",
    live=False,
)
PRODUCTS: Final = Described("What is sold", (LIMIT, CURSOR), Products, BUSY, live=False)
POINTS: Final = Described("What a user has to spend", (ID,), Points, (404, *BUSY), live=False)
ACTIVITY: Final = Described(
    "Tell what a user did in the shop",
    (USER,),
    Told,
    (*BODY, *BUSY),
    "The event is in `user-activity` when this answers. 503: Kafka has not acknowledged it in time; it may be there "
    "all the same, so tell it again with the same `eventId`.",
    method="post",
    body=NewActivity,
    status=202,
    live=False,
)
HEALTHZ: Final = Described(
    "Whether the process answers", (), {"type": "object"}, live=False, strict=False, guarded=False
)
READYZ: Final = Described(
    "Whether the database answers, with the tables of this version",
    (),
    Ready,
    others={503: Ready},
    live=False,
    strict=False,
    guarded=False,
)

ENDPOINTS: Final[Mapping[str, Described]] = MappingProxyType(
    {
        "/api/orders": PLACE,
        "/api/orders/{id}": ORDER,
        "/api/orders/{id}/cancel": CANCEL,
        "/api/orders/{id}/refund": REFUND,
        "/api/products": PRODUCTS,
        "/api/users/{id}/points": POINTS,
        "/api/activity": ACTIVITY,
        "/healthz": HEALTHZ,
        "/readyz": READYZ,
        "/metrics": VIEWS_METRICS,
        "/docs": DOCS,
        "/docs/{name}": DOCS_FILE,
        "/openapi.json": DOCUMENT,
    }
)
