"""Rows of the outbox in rounds, each of which is acknowledged before the next is sent."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from topologies.orders.outbox import Row
from topologies.orders.sending import rounds


@given(st.lists(st.tuples(st.sampled_from(["orders", "payments"]), st.sampled_from([b"1", b"2", b"3"]))))
def test_a_round_has_one_row_of_each_user_and_topic_the_next_that_waits(places: list[tuple[str, bytes]]) -> None:
    rows = [Row(n, 0, topic, key, b"", f"event-{n}", 0) for n, (topic, key) in enumerate(places)]
    waiting: dict[tuple[str, bytes], list[Row]] = defaultdict(list)
    for row in rows:
        waiting[row.topic, row.key].append(row)
    found = rounds(rows)
    for n, some in enumerate(found):
        assert some == sorted(those[n] for those in waiting.values() if n < len(those))
    assert len(found) == max(map(len, waiting.values()), default=0)
