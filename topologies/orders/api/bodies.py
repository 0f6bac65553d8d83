"""What a request's body may be, and what answers have that are not orders."""

from typing import Annotated, Any, Final, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from streams.events import ActivityType, EventId, Id, Name
from topologies.orders.refusals import BadBody
from topologies.views.answer_types import Count

# An order of so many lines is an event that fits into a record with any names its products may have.
LINES: Final = 50
PIECES: Final = 10_000
LARGEST_ID: Final = 2**53 - 1
Number = Annotated[int, Meta(ge=0, le=LARGEST_ID)]
T = TypeVar("T")


class Line(Struct, frozen=True, forbid_unknown_fields=True):
    """So many pieces of a product."""

    productId: Number
    quantity: Annotated[int, Meta(ge=1, le=PIECES)]


class NewOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """What is ordered; a product in two lines is ordered as often as both say."""

    items: Annotated[
        tuple[Line, ...],
        Meta(min_length=1, max_length=LINES, examples=[[{"productId": 1, "quantity": 2}]]),
    ]

    @property
    def quantities(self) -> dict[int, int]:
        """Pieces by product."""
        found: dict[int, int] = {}
        for line in self.items:
            found[line.productId] = found.get(line.productId, 0) + line.quantity
        return found


class NewActivity(Struct, frozen=True, forbid_unknown_fields=True):
    """What a user did in the shop; when, is when it is told. `eventId` is made where there is none."""

    eventType: Annotated[ActivityType, Meta(examples=["product.viewed"])]
    eventId: EventId | None = None
    sessionId: Id | None = None
    productId: Annotated[Id | None, Meta(examples=[1])] = None
    category: Name | None = None
    query: Annotated[str, Meta(max_length=1_000)] | None = None


class Told(Struct, frozen=True, forbid_unknown_fields=True):
    """An event that Kafka has acknowledged; `after` is what `?after=` of the views takes."""

    eventId: str
    after: str


class Product(Struct, frozen=True, forbid_unknown_fields=True):
    """Something that is sold, at `price` minor units each, and how many pieces there are."""

    productId: int
    name: str
    category: str
    price: Count
    stock: Count


class Products(Struct, frozen=True, forbid_unknown_fields=True):
    """What is sold, by id."""

    currency: str
    products: list[Product]
    next: Annotated[str | None, Meta(description="the cursor of the page after this; null: the last")]


class Points(Struct, frozen=True, forbid_unknown_fields=True):
    """What a user has to spend."""

    userId: int
    points: Count


class Ready(Struct, forbid_unknown_fields=True):
    """Whether orders are taken; `detail` says why not."""

    ready: bool
    detail: str | None


async def read_body(request: web.Request, kind: type[T]) -> T:
    """A request's body. Raises BadBody, which says what would be right."""
    raw = await request.read()
    if not raw.strip():
        raise BadBody("there is no body; it is a JSON object")
    try:
        found: Any = msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise BadBody(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadBody(f"it is not JSON: {error}") from error
    except RecursionError as error:
        raise BadBody("it is not JSON: nested too deep") from error
    return found  # type: ignore[no-any-return]  # of a type that is an argument
