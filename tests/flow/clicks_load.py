import time
from collections.abc import Iterator
from random import Random
from typing import Any


def clicks(chance: Random) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Topic, key and value, for ever; some come late, a few twice."""
    while True:
        user, at_ms = chance.randint(1, 500), time.time_ns() // 1_000_000
        at_ms -= round(chance.expovariate(1 / 2_000))
        click = ("clicks", f"user-{user}", {"page": chance.choice("abcdef"), "userId": user, "occurredAt": at_ms})
        yield from [click] * chance.choice((1, 1, 1, 2))
