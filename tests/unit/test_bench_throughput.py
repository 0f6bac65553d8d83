from collections import Counter

import orjson
import pytest

from bench.check import sums_are_right, wrong_cells
from bench.measure import Meter, Outcome, Sum
from bench.orders import Orders, before, truth
from bench.rounds import CONTENDERS
from bench.throughput import Result, Run, summary
from bench.topologies import category_sums
from streams.cluster import Cluster
from streams.codecs import decoder, user_key
from streams.errors import MillraceError
from streams.events import OrderEvent
from streams.partitioners import key_hash

ORDERS = Orders(2_000, start_ms=1_767_225_590_000)


def test_the_same_orders_come_each_time() -> None:
    assert list(ORDERS) == list(ORDERS)


def test_an_order_lies_where_its_key_sends_it_in_a_fresh_topic() -> None:
    ends: Counter[int] = Counter()
    for order in ORDERS:
        assert order.partition == key_hash(user_key(order.user), ORDERS.partitions)
        assert order.offset == ends[order.partition]
        ends[order.partition] += 1


def test_orders_are_as_large_and_as_fast_in_event_time_as_said() -> None:
    orders = list(ORDERS)
    assert 250 < sum(len(order.value()) for order in orders) / len(orders) < 350
    assert orders[-1].at_ms - orders[0].at_ms == 999
    assert {len(order.lines) for order in orders} == {1, 2, 3}
    assert len({order.event_id for order in orders}) == len(orders)


def test_the_workers_decoder_reads_what_is_sent() -> None:
    decode = decoder(OrderEvent)
    for order in ORDERS:
        event = decode(order.value())
        assert (event.order_id, event.amount, event.occurred_at) == (order.number, order.amount, order.at_ms)


def test_every_grouping_comes_to_the_same_revenue() -> None:
    sums = truth(ORDERS)
    revenue = {sum(cell[0] for cell in cells.values()) for cells in vars(sums).values()}
    assert revenue == {sum(order.amount for order in ORDERS)}
    assert sum(cell[1] for cell in sums.total.values()) == sum(cell[1] for cell in sums.region.values()) == 2_000


def test_the_fold_of_one_table_agrees_with_the_truth() -> None:
    decode, found = decoder(OrderEvent), Counter[str]()
    for order in ORDERS:
        for category, placed, _, _, orders, _ in category_sums(decode(order.value())):
            found[category] += placed + orders
    right = Counter[str]()
    for (_, category), (revenue, orders, _) in truth(ORDERS).category.items():
        right[category] += revenue + orders
    assert found == right


def test_before_gives_each_partitions_prefix_and_no_more() -> None:
    positions = {0: 3, 1: 0, 2: 5}
    found = [(order.partition, order.offset) for order in before(ORDERS, positions)]
    assert sorted(found) == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (2, 2), (2, 3), (2, 4)]


def outcome(events: int = 100, seconds: float = 1.0) -> Outcome:
    return Outcome(events, seconds, seconds, seconds)


def test_sums_are_right_only_if_each_cell_is() -> None:
    positions = {0: 40, 1: 30, 2: 20, 3: 10}
    right = truth(before(ORDERS, positions)).category
    sums = [Sum(minute, key, cell[0]) for (minute, key), cell in right.items()]
    split = [Sum(sums[0].minute, sums[0].key, 1), Sum(sums[0].minute, sums[0].key, sums[0].revenue - 1), *sums[1:]]
    for given, expected in ((sums, True), (split, True), (sums[1:], False), ([*sums, Sum(0, "x", 1)], False)):
        told = Outcome(100, 1.0, 1.0, 1.0, positions=positions, sums=given)
        assert sums_are_right(told, ORDERS) is expected


def test_a_cell_that_is_missing_wrong_or_too_many_counts() -> None:
    right = truth(ORDERS)
    assert wrong_cells({"sales_by_total": right.total, "sales_by_product": right.product}, right) == 0
    assert wrong_cells({"sales_by_total": {}}, right) == len(right.total)
    assert wrong_cells({"sales_by_region": {**right.region, (0, "atlantis"): [1, 1, 1]}}, right) == 1


def test_the_clock_starts_with_the_first_batch_after_the_warm_up() -> None:
    started: list[int] = []
    meter = Meter(warmup=10, total=30, on_start=lambda: started.append(meter.seen))
    ends = []
    for batch in (6, 6, 8, 10):
        meter.before()
        ends.append(meter.after(batch))
    assert started == [12]
    assert ends == [False, False, False, True]
    assert meter.outcome().events == 18


def test_there_is_no_outcome_before_the_last_record() -> None:
    meter = Meter(warmup=1, total=3)
    meter.before()
    meter.after(2)
    with pytest.raises(RuntimeError, match="2 of 3"):
        meter.outcome()


def results(factor: float, exact: bool = True) -> list[Result]:
    eps = {"bare_librdkafka": 300, "bare_aiokafka": 200, "plain_faust": 2, "one_table": 150, "all_tables": 60}
    return [Result(c.name, outcome(events=round(eps[c.name] * factor)), exact) for c in CONTENDERS]


def test_the_faster_bare_loop_is_the_limit_and_ratios_are_of_one_round() -> None:
    found = summary([results(1), results(10), results(100)])
    assert (found["bare_loop"], found["bare_loop_eps"], found["one_table_eps"]) == ("bare_librdkafka", 3000, 1500)
    assert found["ratios"]["one_table_of_bare_loop"] == 0.5
    assert found["ratios"]["one_table_of_plain_faust"] == 75
    assert orjson.loads(orjson.dumps(found)) == found


def test_one_wrong_round_makes_the_run_wrong() -> None:
    assert summary([results(1), results(1, exact=True)])["exact"] is True
    assert summary([results(1), results(1, exact=False)])["exact"] is False


def test_what_cannot_be_measured_is_refused_in_one_line() -> None:
    with pytest.raises(MillraceError, match="--events"):
        Run(Cluster("x:1"), events=100)
    with pytest.raises(MillraceError, match="PLAINTEXT"):
        Run(Cluster("x:1", {"security.protocol": "SSL"}), events=200_000)
