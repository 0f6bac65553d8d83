"""Why a command is refused: a problem of a type of its own each (`application/problem+json`); nothing was changed."""

from http import HTTPStatus

from topologies.orders.schema import OrderStatus
from topologies.views.problems import Problem


class UnknownUser(Problem):
    """Nobody has that id: 404."""

    def __init__(self, user_id: int) -> None:
        """Name who was asked for."""
        super().__init__(HTTPStatus.NOT_FOUND, "unknown-user", "Unknown user", f"there is no user {user_id}")


class UnknownProduct(Problem):
    """Something that is not sold here: 404."""

    def __init__(self, product_id: int) -> None:
        """Name it."""
        detail = f"there is no product {product_id}; GET /api/products lists what there is"
        super().__init__(HTTPStatus.NOT_FOUND, "unknown-product", "Unknown product", detail, productId=product_id)


class UnknownOrder(Problem):
    """There is no such order, or it is somebody else's: 404."""

    def __init__(self, order_id: int) -> None:
        """Name it."""
        detail = f"there is no order {order_id}, or it is another user's"
        super().__init__(HTTPStatus.NOT_FOUND, "unknown-order", "Unknown order", detail)


class OutOfStock(Problem):
    """There is less of a product than was ordered: 409."""

    def __init__(self, product_id: int, wanted: int, left: int) -> None:
        """Say what is left."""
        detail = f"product {product_id}: {wanted:,} wanted, {left:,} left"
        super().__init__(
            HTTPStatus.CONFLICT, "out-of-stock", "Out of stock", detail, productId=product_id, available=left
        )


class NotEnoughPoints(Problem):
    """The order costs more than the user has: 409."""

    def __init__(self, amount: int, points: int) -> None:
        """Say what both are."""
        detail = f"the order costs {amount:,} points, and there are {points:,}"
        super().__init__(
            HTTPStatus.CONFLICT, "not-enough-points", "Not enough points", detail, amount=amount, points=points
        )


class KeyReused(Problem):
    """The idempotency key belongs to another order of the same user: 422."""

    def __init__(self, key: str) -> None:
        """Name it."""
        detail = (
            f"Idempotency-Key {key!r} was used with another body: a repeat has the same, a new order a key of its own"
        )
        super().__init__(HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency-key-reused", "Idempotency key reused", detail)


class WrongStatus(Problem):
    """The order is not where the step begins: 409."""

    def __init__(self, order_id: int, status: OrderStatus, wanted: OrderStatus, step: str) -> None:
        """Say where it is."""
        detail = f"order {order_id} is {status}, and only what is {wanted} can be {step}"
        super().__init__(HTTPStatus.CONFLICT, "wrong-status", "Wrong status", detail, orderStatus=str(status))


class BadBody(Problem):
    """The body is not what the endpoint takes: 400."""

    def __init__(self, detail: str) -> None:
        """Say what is wrong, and what would be right."""
        super().__init__(HTTPStatus.BAD_REQUEST, "bad-body", "Bad body", detail)


def kind_of(problem: Problem) -> str:
    """The last part of a problem's type.

    >>> kind_of(UnknownUser(7))
    'unknown-user'
    """
    return str(problem.body["type"]).rpartition(":")[2]
