"""What the views of the recommendations topology take, and the shapes of what they answer."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from streams.events import Recommendation
from topologies.views import Described
from topologies.views.answer_types import Count, Freshness, Iso
from topologies.views.parameters import Choice, Integer, Segment, Text

LISTED: Final = 200
KIND: Final = Choice("kind", ("products", "searches"), "products", about="what trends")
CATEGORY: Final = Text("category", about="of the products of one category only")
TRENDS: Final = Integer("n", 1, LISTED, 20, about="how many rows at most")
PRODUCT: Final = Segment("id", about="the product's")
USER: Final = Segment("id", about="the user's")
BY: Final = Choice("by", ("seen", "bought"), "seen", about="what they have in common: a session, or an order")
N: Final = Integer("n", 1, 50, 10, about="how many rows at most")


class Trending(Struct, forbid_unknown_fields=True):
    """What draws more users than it usually does: `lift` is `users` for each that is `expected`."""

    key: str
    users: float
    expected: float
    lift: float


class Trends(Struct, forbid_unknown_fields=True):
    """What trends, most first, as of the event time `at`."""

    kind: str
    category: str | None
    at: Iso
    rows: list[Trending]
    freshness: Freshness


class Related(Struct, forbid_unknown_fields=True):
    """A product that goes with another: `share` is that of the other's baskets that hold this one, too."""

    productId: str
    score: Annotated[float, Meta(description="a cosine")]
    share: float


class RelatedProducts(Struct, forbid_unknown_fields=True):
    """What is seen or bought with a product, nearest first."""

    productId: str
    by: str
    baskets: Count
    sharesLowBy: Annotated[float, Meta(description="how much too low a share may be")]
    rows: list[Related]
    freshness: Freshness


class ForUser(Struct, forbid_unknown_fields=True):
    """Products for a user, each with its reason; `known` says whether anything is known of them."""

    userId: str
    known: bool
    favourite: Annotated[str | None, Meta(description="the category that they like most")]
    rows: list[Recommendation]
    freshness: Freshness


TRENDING: Final = Described("What draws more users than it usually does", (KIND, CATEGORY, TRENDS), Trends, (404, 503))
OF_PRODUCT: Final = Described("What is seen or bought with a product", (PRODUCT, BY, N), RelatedProducts, (404,))
OF_USER: Final = Described(
    "Products for a user, with reasons", (USER, N), ForUser, detail="Who is not known gets what is trending."
)
