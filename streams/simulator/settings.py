"""How a simulated shop behaves: one frozen value, from which everything it does follows."""

from dataclasses import dataclass, fields

from streams.errors import MillraceError
from streams.topics import ORDER_EVENTS, PAYMENT_NOTIFICATIONS, USER_ACTIVITY

TOPICS = (ORDER_EVENTS.name, USER_ACTIVITY.name, PAYMENT_NOTIFICATIONS.name)
DAY_MS = 86_400_000


@dataclass(frozen=True)
class ShopSettings:
    """The shop, its customers and its faults. Rates are probabilities, `0 <= rate <= 1`.

    `start_ms` is the event time at which the shop opens. `events_per_s` is how many events of the chosen
    `topics` happen in a second of event time as it opens; a daily curve moves that by `daily_swing` (0.7:
    from 0.3 to 1.7 times the day's mean, highest at 20:00 UTC). `zipf` is the exponent of the popularity,
    `pairs` how many products are planted as bought together, `favourites` the share of the users that have
    a favourite category, `partial` of what is cancelled or refunded only in part, `without_lines` of that
    without naming lines, `foreign` of the users who pay in another currency.

    Faults: `out_of_order` of the events are sent up to 5 s after they happened; in `late_sessions` of the
    sessions everything is sent 2 to 10 minutes after it happened, which is beyond a grace of 60 s;
    `duplicates` of the other events are sent twice, same eventId and bytes, the copy up to 10 s later.
    """

    seed: int = 1
    start_ms: int = 1_735_689_600_000  # 2025-01-01
    events_per_s: float = 2000.0
    topics: tuple[str, ...] = TOPICS
    products: int = 1000
    users: int = 10_000
    currency: str = "KRW"
    zipf: float = 0.9
    pairs: int = 150
    pair_strength: float = 0.5
    favourites: float = 0.6
    daily_swing: float = 0.7
    cancelled: float = 0.04
    refunded: float = 0.06
    partial: float = 0.4
    without_lines: float = 0.1
    foreign: float = 0.01
    out_of_order: float = 0.05
    late_sessions: float = 0.003
    duplicates: float = 0.002

    def __post_init__(self) -> None:
        """Raise MillraceError naming the setting that no shop can have."""
        for name in RATES:
            if not 0 <= getattr(self, name) <= 1:
                raise MillraceError(f"{name} is a rate: give a number from 0 to 1, not {getattr(self, name)}")
        if unknown := sorted(set(self.topics) - set(TOPICS)):
            raise MillraceError(f"topics: the shop has no {unknown[0]!r}; choose from {', '.join(TOPICS)}")
        if not self.topics:
            raise MillraceError(f"topics: none; choose from {', '.join(TOPICS)}")
        if not self.events_per_s > 0:
            raise MillraceError(f"events_per_s must be above 0, not {self.events_per_s}")
        if self.zipf < 0:
            raise MillraceError(f"zipf must not be negative, not {self.zipf}")
        if self.products < 2 or self.users < 1:
            raise MillraceError("a shop has at least two products and one user")
        if not 0 <= 2 * self.pairs <= self.products:
            raise MillraceError(f"pairs: from 0 to {self.products // 2} fit into {self.products} products")
        if self.start_ms < DAY_MS:
            raise MillraceError("start_ms must be after 1970-01-01")


RATES = tuple(
    field.name
    for field in fields(ShopSettings)
    if field.type in (float, "float") and field.name not in ("events_per_s", "zipf")
)
