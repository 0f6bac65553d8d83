"""Figures of Kafka's own tools are read as they print them."""

import pytest

from bench.perf import their_consumed, their_produced
from streams.errors import MillraceError

SENT = (
    "52301 records sent, 10460.2 records/sec (9.98 MB/sec), 1084.5 ms avg latency, 1683.0 ms max latency.\n"
    "100000 records sent, 33134.526180 records/sec (31.60 MB/sec), 184.47 ms avg latency, 683.00 ms max latency, "
    "120 ms 50th, 576 ms 95th, 629 ms 99th, 680 ms 99.9th.\n"
)
READ = (
    "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, "
    "fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec\n"
    "2026-11-23 08:26:46:797, 2026-11-23 08:26:47:956, 9.5367, 8.2284, 10000, 8628.1277, 724, 435, 21.9235, "
    "22988.5057\n"
)


def test_the_last_line_of_the_producer_is_its_result() -> None:
    told = their_produced(SENT)
    assert (told["records"], told["rate"], told["megabytes"]) == (100_000, 33134.52618, 31.60)
    assert [told[name] for name in ("average", "max", "p50", "p95", "p99", "p99.9")] == [
        184.47,
        683,
        120,
        576,
        629,
        680,
    ]


def test_the_line_of_the_consumer_is_read_by_its_columns() -> None:
    assert their_consumed(READ) == {
        "records": 10_000,
        "rate": 8628.1277,
        "megabytes": 8.2284,
        "join_s": 0.724,
        "fetch_rate": 22988.5057,
    }


def test_a_tool_without_figures_is_told() -> None:
    with pytest.raises(MillraceError, match="no figures"):
        their_produced("org.apache.kafka.common.errors.TimeoutException")
    with pytest.raises(MillraceError, match="no figures"):
        their_consumed("nothing")
