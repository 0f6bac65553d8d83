"""The topics that our topologies derive, each with one writer a key; some are read by another topology."""

from typing import Final

from streams.events import (
    AbandonedCart,
    OrderAlert,
    ProductBasket,
    ProductNeighbours,
    UserRecommendations,
    UserSession,
)
from streams.topics import Topic

DAY_S: Final = 86_400.0
# What a crash or a zombie repeats comes again within a few flushes; this is minutes of the fastest replay.
REPEATED_WITHIN: Final = 500_000

USER_SESSIONS: Final = Topic(
    "user-sessions", UserSession, key="JSON [userId, start in ms]", dedupe_records=REPEATED_WITHIN
)
ABANDONED_CARTS: Final = Topic(
    "abandoned-carts", AbandonedCart, key="JSON [userId, since in ms]", cleanup="compact", retention_s=None
)
ORDER_ALERTS: Final = Topic(
    "order-alerts", OrderAlert, key="JSON [userId, time in ms, orderId]", cleanup="compact", retention_s=None
)
PRODUCT_BASKETS: Final = Topic(
    "product-baskets", ProductBasket, key="product-<productId>", dedupe_records=REPEATED_WITHIN
)
PRODUCT_RECOMMENDATIONS: Final = Topic(
    "product-recommendations", ProductNeighbours, key="product-<productId>", cleanup="compact", retention_s=None
)
USER_RECOMMENDATIONS: Final = Topic(
    "user-recommendations", UserRecommendations, key="user-<userId>", cleanup="compact", retention_s=None
)
