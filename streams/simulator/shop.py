"""What is in the shop and who buys there: the catalogue, the planted pairs, the customers.

Everything is drawn once from the seed. Popularity follows Zipf's law over products in a random order; the
planted pairs are disjoint and lie in the more popular part of the catalogue, so that each can be found.
"""

from dataclasses import dataclass
from itertools import accumulate
from random import Random

from streams.codecs import user_key
from streams.simulator.settings import ShopSettings

# category: price range in minor units (KRW has none smaller)
CATEGORIES = {
    "books": (8_000, 40_000),
    "beauty": (5_000, 90_000),
    "electronics": (20_000, 1_500_000),
    "fashion": (10_000, 300_000),
    "garden": (5_000, 200_000),
    "grocery": (1_000, 30_000),
    "home": (10_000, 400_000),
    "kitchen": (5_000, 250_000),
    "pets": (3_000, 80_000),
    "sports": (10_000, 500_000),
    "stationery": (500, 20_000),
    "toys": (5_000, 120_000),
}
REGIONS = {
    "seoul": 19,
    "gyeonggi": 26,
    "busan": 7,
    "incheon": 6,
    "daegu": 5,
    "daejeon": 3,
    "gwangju": 3,
    "jeju": 1,
}
FOREIGN_CURRENCY = "USD"


@dataclass(frozen=True, slots=True)
class Product:
    """`price` in the shop's minor units; `partner` is the id of what is often bought with it, if planted."""

    product_id: int
    category: str
    price: int
    partner: int | None


@dataclass(frozen=True, slots=True)
class User:
    """A customer; `favourite` is the category that most of the browsing is in, if there is one."""

    user_id: int
    key: bytes
    region: str
    favourite: str | None
    currency: str


@dataclass(frozen=True)
class Shop:
    """`products[i]` has the id `i + 1`; cumulative weights say how often it is looked at, and who comes.

    `shelves` holds, for each category, its products and their cumulative weights. `pairs` are the planted
    pairs of product ids, smaller id first.
    """

    products: tuple[Product, ...]
    product_weights: tuple[float, ...]
    shelves: dict[str, tuple[tuple[Product, ...], tuple[float, ...]]]
    pairs: tuple[tuple[int, int], ...]
    users: tuple[User, ...]
    user_weights: tuple[float, ...]


def open_shop(settings: ShopSettings) -> Shop:
    """The shop of these settings; its seed decides every detail."""
    rng = Random(f"shop {settings.seed}")
    ids = list(range(1, settings.products + 1))
    by_popularity = rng.sample(ids, len(ids))
    weight = {product: (rank + 1) ** -settings.zipf for rank, product in enumerate(by_popularity)}
    pairs = _plant_pairs(rng, by_popularity, settings.pairs)
    partner = dict(pairs) | {b: a for a, b in pairs}
    names = list(CATEGORIES)
    products = []
    for product_id in ids:
        category = names[product_id % len(names)]
        low, high = CATEGORIES[category]
        price = round(low * (high / low) ** rng.random(), -2)
        products.append(Product(product_id, category, int(price), partner.get(product_id)))
    shelves = {}
    for name in sorted({product.category for product in products}):
        shelf = tuple(product for product in products if product.category == name)
        shelves[name] = (shelf, tuple(accumulate(weight[product.product_id] for product in shelf)))
    users = tuple(_user(rng, user_id, sorted(shelves), settings) for user_id in range(1, settings.users + 1))
    # a few come often, most now and then; mildly, so that every user is seen
    user_weights = tuple(accumulate(rng.paretovariate(2.5) for _ in users))
    return Shop(tuple(products), tuple(accumulate(weight[i] for i in ids)), shelves, pairs, users, user_weights)


def _plant_pairs(rng: Random, by_popularity: list[int], count: int) -> tuple[tuple[int, int], ...]:
    """Disjoint pairs from the most popular products, half as many again as the pairs need."""
    known = by_popularity[: 3 * count]
    chosen = rng.sample(known, 2 * count)
    return tuple(sorted((min(a, b), max(a, b)) for a, b in zip(chosen[::2], chosen[1::2], strict=True)))


def _user(rng: Random, user_id: int, categories: list[str], settings: ShopSettings) -> User:
    region = rng.choices(list(REGIONS), list(REGIONS.values()))[0]
    favourite = rng.choice(categories) if rng.random() < settings.favourites else None
    currency = FOREIGN_CURRENCY if rng.random() < settings.foreign else settings.currency
    return User(user_id, user_key(user_id), region, favourite, currency)
