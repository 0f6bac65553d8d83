"""What the views of the behaviour topology take, and the shapes of what they answer."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from topologies.views import Described
from topologies.views.answer_types import Count, Freshness, Iso
from topologies.views.parameters import Formed, Integer, Segment, Text, Time

PAGE_MAX: Final = 500
USER: Final = Segment("userId", about="the user's")
OF_USER: Final = Text("userId", about="of one user only, the newest of theirs")
SESSION_HOURS: Final = Integer("hours", 1, 72, 24, about="how far back from the newest event")
FUNNEL_HOURS: Final = Integer("hours", 1, 24 * 14, 24, about="how far back from `to`")
FUNNEL_TO: Final = Time("to", about="until when, to the next whole slice: the newest unless given")
CATEGORY: Final = Text("category", about="of one category only")
N: Final = Integer("n", 1, PAGE_MAX, 50, about="how many rows at most")
BEFORE: Final = Formed(
    "before",
    "^[0-9]{1,16}:([0-9a-f]{2})*$",
    "the `next` of an earlier answer",
    8_000,
    about="for the page after: the `next` of the one before",
)


class Session(Struct, forbid_unknown_fields=True):
    """What a user did without a longer pause; products and orders by their ids, in the order of their first time."""

    userId: str
    start: Iso
    end: Iso
    events: Count
    viewed: list[str]
    carted: list[str]
    removed: list[str]
    searched: list[str]
    checkout: bool
    bought: list[str]
    orders: list[str]
    truncated: Annotated[bool, Meta(description="whether more was done than is listed, or may have been")]
    open: Annotated[bool, Meta(description="whether it may go on")]


class Sessions(Struct, forbid_unknown_fields=True):
    """A user's sessions, newest first."""

    userId: str
    sessions: list[Session]
    freshness: Freshness


class Step(Struct, forbid_unknown_fields=True):
    """A step of the funnel, and its users for each of the step before, and of the first; null where that had none."""

    step: Literal["viewed", "carted", "checkouts", "ordered", "paid"]
    events: Count
    users: Count
    from_previous: float | None
    from_first: float | None


class Funnel(Struct, forbid_unknown_fields=True):
    """The steps from a look to a paid order, all together and of each category.

    `from` is later than the hours ask for where they are not kept any more, and null where nothing is.
    """

    hours: int
    from_: Iso | None = field(name="from")
    to: Iso | None
    total: list[Step]
    categories: dict[str, list[Step]]
    freshness: Freshness


class Cart(Struct, forbid_unknown_fields=True):
    """A cart that was left; `items` by their ids in the order they were put in."""

    userId: str
    since: Iso
    lastChange: Iso
    abandonedAt: Iso
    occurredAt: Iso
    items: list[str]
    truncated: bool


class Carts(Struct, forbid_unknown_fields=True):
    """Carts that were left, newest first; `next` is where the next page begins, null on the last."""

    rows: list[Cart]
    next: str | None
    freshness: Freshness


class Alert(Struct, forbid_unknown_fields=True):
    """An order that took its user over a limit; `orders` and `amount` (minor units) are of the window that it ends."""

    userId: str
    orderId: str
    occurredAt: Iso
    orders: Count
    amount: int
    reason: Literal["orders", "amount"]
    final: Annotated[bool, Meta(description="whether it can not be taken back any more")]


class Alerts(Struct, forbid_unknown_fields=True):
    """Alerts, newest first; `next` is where the next page begins, null on the last."""

    rows: list[Alert]
    next: str | None
    freshness: Freshness


SESSIONS: Final = Described(
    "A user's sessions, newest first, the open ones too", (USER, SESSION_HOURS), Sessions, (404,)
)
FUNNEL: Final = Described(
    "From a look to a paid order: events and users at each step, in total and by category",
    (FUNNEL_HOURS, FUNNEL_TO, CATEGORY),
    Funnel,
    (404, 503),
)
CARTS: Final = Described("Carts that were left, newest first", (N, BEFORE, OF_USER), Carts)
ALERTS: Final = Described("Users who order too often or too much, newest first", (N, BEFORE, OF_USER), Alerts)
