"""What the shop's users are interested in: folds that trends are made of.

Rows, in the order of the tables' aggregates (a user who clicks a thousand times is one user of a slice):

- `products`: `(product, events, user, (time, event id, category))` for Sum, Distinct and Last, of `product.viewed` and
  `cart.added`; the category is that of the latest event that names one.
- `searches`: `(query, events, user)` for Sum and Distinct, of `search.performed` with something to search for.
"""

from agents.sales import customer_id
from streams.events import UserActivity

QUERY_CHARS = 100

ProductInterest = tuple[str, int, int | str, tuple[int, str, str] | None]
SearchInterest = tuple[str, int, int | str]


def normalised(query: str | None) -> str:
    """A query as it is counted: case folded, runs of blanks one, at most 100 characters; empty if nothing is left.

    >>> normalised("  Red   SHOES ")
    'red shoes'
    """
    if not query:
        return ""
    return " ".join(query[: 4 * QUERY_CHARS].casefold().split())[:QUERY_CHARS].strip()


def products(event: UserActivity, at: int) -> list[ProductInterest]:
    """One row of a look at a product, or of putting it into a cart."""
    if event.product_id is None or event.event_type not in ("product.viewed", "cart.added"):
        return []
    named = None if event.category is None else (at, event.event_id or "", event.category)
    return [(f"{event.product_id}", 1, _user(event), named)]


def searches(event: UserActivity, at: int) -> list[SearchInterest]:
    """One row of a search."""
    if event.event_type != "search.performed":
        return []
    query = normalised(event.query)
    return [(query, 1, _user(event))] if query else []


def _user(event: UserActivity) -> int | str:
    user = event.user_id
    return customer_id(user) if user.__class__ is str else user
