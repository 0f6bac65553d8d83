"""The README's topology on Kafka: `millrace worker clicks:topology`, `millrace views --topology clicks:topology`."""

import json
from pathlib import Path

from own import Running, forget_topics, headers_of, running

from streams.cluster import Cluster

CLICKS = [("/", 1, 1_000), ("/", 2, 2_000), ("/cart", 1, 3_000), ("/", 1, 12_000)]


def test_a_topology_of_ones_own_runs_whole_without_further_code(kafka: Cluster, tmp_path: Path) -> None:
    forget_topics(kafka, "click")
    with running(kafka, tmp_path, "clicks:topology") as clicks:
        send_clicks(clicks)
        clicks.wait(lambda: seen(clicks) == len(CLICKS))
        assert clicks.views.get("/api/busiest")["pages"] == [
            {"page": "/", "clicks": 3, "visitors": 2},
            {"page": "/cart", "clicks": 1, "visitors": 1},
        ]
        rows = clicks.views.get("/api/tables/clicks_by_page/rows")["rows"]
        assert [(row["startMs"], row["key"], row["values"]["clicks"]) for row in rows] == [
            (0, "/", 2),
            (0, "/cart", 1),
            (10_000, "/", 1),
        ]
        assert "window" in clicks.views.get("/api/busiest", window="7s")["detail"]
        assert_malformed_is_parked(clicks)
        assert_measured(clicks)


def test_a_batch_that_is_lost_on_a_partition_that_stays_quiet_is_read_again(kafka: Cluster, tmp_path: Path) -> None:
    forget_topics(kafka, "click")
    with running(kafka, tmp_path, "lossy:topology") as clicks:
        send_clicks(clicks)
        clicks.wait(lambda: seen(clicks) == len(CLICKS))


def send_clicks(clicks: Running) -> None:
    events = [(f"user-{user}", {"page": page, "userId": user, "occurredAt": at}) for page, user, at in CLICKS]
    clicks.produce("clicks", *((key, json.dumps(event).encode()) for key, event in events))


def seen(clicks: Running) -> int:
    return sum(page["clicks"] for page in clicks.views.get("/api/busiest")["pages"])


def assert_malformed_is_parked(clicks: Running) -> None:
    clicks.produce("clicks", ("user-1", b'{"page":'), ("user-1", b'{"page":"/","userId":1,"occurredAt":13000}'))
    clicks.wait(lambda: seen(clicks) == len(CLICKS) + 1)
    (dead,) = clicks.consume("clicks.dead-letters", 1)
    assert dead.value() == b'{"page":'
    assert headers_of(dead)["source-topic"] == "clicks"
    assert headers_of(dead)["reason"].startswith("not JSON")


def assert_measured(clicks: Running) -> None:
    counts: dict[str, float] = {}
    for line in clicks.text(clicks.worker, "/metrics").splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            counts[name.partition("{")[0]] = counts.get(name.partition("{")[0], 0) + float(value)
    assert counts["millrace_events_total"] == len(CLICKS) + 2
    assert counts["millrace_dead_total"] == 1
    assert counts["millrace_late_total"] == 0
    assert "millrace_views_lag" in clicks.text(clicks.views, "/metrics")
