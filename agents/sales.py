r"""What an order event adds to the sales tables: four pure folds, from one event to flat rows.

`placed`, `cancelled` and `refunded` are money in minor units, each kept apart; net is left to the reader
(`placed - cancelled - refunded`). `orders` and `units` count placed orders and their pieces, and only those
name a `customer` and an `order_value`. `order.paid` changes nothing.

Total and region take the event's amount. Category and product take their own lines of it, one row for each
distinct category or product in the order of the lines; an event without lines counts its amount as `unknown`,
with no units. Shipping or a discount is in the amount and in no line, so the total need not be the sum over
categories.

Money of another currency than the shop's is never added to it: its rows have the key `<key>\x1f<CURRENCY>`
(the decoder lets no \x1f into a name).

The folds run for every order, so the frequent case comes first: placed, with lines, in the shop's currency.
"""

from collections.abc import Callable
from dataclasses import dataclass

from streams.events import UNKNOWN, OrderEvent, OrderLine

TOTAL = "total"
CURRENCY_MARK = "\x1f"

SalesRow = tuple[str, int, int, int, int, int, int | str | None, int | None]
"""`(key, placed, cancelled, refunded, orders, units, customer, order_value)`; None adds nothing."""
ProductRow = tuple[str, int, int, int, int, int]
"""`(key, placed, cancelled, refunded, orders, units)`"""


@dataclass(frozen=True)
class SalesFolds:
    """The folds of a shop's sales tables. Each is pure, and gives rows with distinct keys."""

    total: Callable[[OrderEvent], list[SalesRow]]
    category: Callable[[OrderEvent], list[SalesRow]]
    region: Callable[[OrderEvent], list[SalesRow]]
    product: Callable[[OrderEvent], list[ProductRow]]


def sales_folds(currency: str) -> SalesFolds:
    """The folds of a shop that counts in `currency`, an event's currency where it names none."""
    return SalesFolds(_total(currency), _category(currency), _region(currency), _product(currency))


def customer_id(user_id: int | str) -> int | str:
    """One identity for `1` and `"1"`, as they share a key and thus a partition.

    >>> customer_id("17"), customer_id("017"), customer_id("ann")
    (17, '017', 'ann')
    """
    if isinstance(user_id, str) and user_id.isdecimal() and len(user_id) < 19:
        number = int(user_id)
        return number if str(number) == user_id else user_id
    return user_id


def _total(shop: str) -> Callable[[OrderEvent], list[SalesRow]]:
    def fold(order: OrderEvent) -> list[SalesRow]:
        currency = order.currency
        key = TOTAL if currency is None or currency == shop else f"{TOTAL}{CURRENCY_MARK}{currency}"
        return _by_amount(order, key)

    return fold


def _region(shop: str) -> Callable[[OrderEvent], list[SalesRow]]:
    def fold(order: OrderEvent) -> list[SalesRow]:
        currency = order.currency
        if currency is None or currency == shop:
            return _by_amount(order, order.region)
        return _by_amount(order, f"{order.region}{CURRENCY_MARK}{currency}")

    return fold


def _by_amount(order: OrderEvent, key: str) -> list[SalesRow]:
    if order.event_type == "order.placed":
        user = order.user_id
        if user.__class__ is str:
            user = customer_id(user)
        units = 0
        for line in order.items:
            units += line.quantity
        amount = order.amount
        return [(key, amount, 0, 0, 1, units, user, amount)]
    if order.event_type == "order.cancelled":
        return [(key, 0, order.amount, 0, 0, 0, None, None)]
    if order.event_type == "order.refunded":
        return [(key, 0, 0, order.amount, 0, 0, None, None)]
    return []


def _category(shop: str) -> Callable[[OrderEvent], list[SalesRow]]:
    def fold(order: OrderEvent) -> list[SalesRow]:
        currency = order.currency
        items = order.items
        if order.event_type != "order.placed" or not items or not (currency is None or currency == shop):
            return _category_otherwise(order, shop)
        user = order.user_id
        if user.__class__ is str:
            user = customer_id(user)
        if len(items) == 1:
            line = items[0]
            money = line.price * line.quantity
            return [(line.category, money, 0, 0, 1, line.quantity, user, money)]
        rows: dict[str, SalesRow] = {}
        for line in items:
            key = line.category
            units = line.quantity
            money = line.price * units
            if key in rows:
                money += rows[key][1]
                units += rows[key][5]
            rows[key] = (key, money, 0, 0, 1, units, user, money)
        return list(rows.values())

    return fold


def _product(shop: str) -> Callable[[OrderEvent], list[ProductRow]]:
    def fold(order: OrderEvent) -> list[ProductRow]:
        currency = order.currency
        items = order.items
        if order.event_type != "order.placed" or not items or not (currency is None or currency == shop):
            return _product_otherwise(order, shop)
        if len(items) == 1:
            line = items[0]
            return [(f"{line.product_id}", line.price * line.quantity, 0, 0, 1, line.quantity)]
        rows: dict[str, ProductRow] = {}
        for line in items:
            key = f"{line.product_id}"
            units = line.quantity
            money = line.price * units
            if key in rows:
                money += rows[key][1]
                units += rows[key][5]
            rows[key] = (key, money, 0, 0, 1, units)
        return list(rows.values())

    return fold


def _category_otherwise(order: OrderEvent, shop: str) -> list[SalesRow]:
    """Everything but placed orders with lines in the shop's currency; those in another one too."""
    kind = order.event_type
    if kind == "order.paid":
        return []
    sums = _sums([(line.category, line) for line in order.items], order.amount).items()
    mark = _mark(order, shop)
    if kind == "order.placed":
        user = customer_id(order.user_id)
        return [(key + mark, money, 0, 0, 1, units, user, money) for key, (money, units) in sums]
    if kind == "order.cancelled":
        return [(key + mark, 0, money, 0, 0, 0, None, None) for key, (money, _) in sums]
    return [(key + mark, 0, 0, money, 0, 0, None, None) for key, (money, _) in sums]


def _product_otherwise(order: OrderEvent, shop: str) -> list[ProductRow]:
    """Likewise; `_category_otherwise` without customers and order values."""
    kind = order.event_type
    if kind == "order.paid":
        return []
    sums = _sums([(str(line.product_id), line) for line in order.items], order.amount).items()
    mark = _mark(order, shop)
    if kind == "order.placed":
        return [(key + mark, money, 0, 0, 1, units) for key, (money, units) in sums]
    if kind == "order.cancelled":
        return [(key + mark, 0, money, 0, 0, 0) for key, (money, _) in sums]
    return [(key + mark, 0, 0, money, 0, 0) for key, (money, _) in sums]


def _sums(keyed: list[tuple[str, OrderLine]], amount: int) -> dict[str, tuple[int, int]]:
    """Money and units for each key, in the order of first mention; without lines the amount is unknown's."""
    if not keyed:
        return {UNKNOWN: (amount, 0)}
    sums: dict[str, tuple[int, int]] = {}
    for key, line in keyed:
        money, units = sums.get(key, (0, 0))
        sums[key] = (money + line.price * line.quantity, units + line.quantity)
    return sums


def _mark(order: OrderEvent, shop: str) -> str:
    return "" if order.currency in (None, shop) else f"{CURRENCY_MARK}{order.currency}"
