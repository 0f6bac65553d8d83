"""What a payment gateway is to the shop: two requests, both of which may be repeated, and one way not to answer.

Write an adapter for a provider as a class with these two methods, and name it with `millrace payments --gateway
module:attribute`; providers take the key as their idempotency key.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Charge:
    """What is asked for: `amount` minor units of a currency, once for a key."""

    key: str
    amount: int
    currency: str

    def __post_init__(self) -> None:
        """Raise ValueError for what no gateway takes."""
        if not self.key or self.amount < 0:
            raise ValueError("a charge has a key, and an amount that is not negative")


@dataclass(frozen=True)
class Charged:
    """The money was taken; `gateway_id` is the gateway's own name for the payment."""

    gateway_id: str


@dataclass(frozen=True)
class Declined:
    """It was not, and will not be under this key."""

    reason: str


@dataclass(frozen=True)
class Returned:
    """Nothing is held under the key any more, and nothing will be; `amount` was given back by this or a former request.

    0: there was nothing to give back.
    """

    amount: int


class NoAnswer(Exception):
    """A time-out, a broken connection, an error of the gateway's own: whether it did something is not known."""


class Gateway(Protocol):
    """A payment gateway. The same request with the same key has the same answer, and one effect."""

    async def charge(self, charge: Charge) -> Charged | Declined:
        """Take the money. Raises NoAnswer."""
        ...

    async def give_back(self, key: str) -> Returned:
        """Give back what was taken under a key, and take nothing under it from now on. Raises NoAnswer."""
        ...

    async def close(self) -> None:
        """Let connections go."""
        ...
