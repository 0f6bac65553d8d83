"""What `--from` may say, and which topics a replay concerns."""

from pathlib import Path

import pytest

from streams.admin.topics import Stretch
from streams.cluster import Cluster
from streams.errors import MillraceError
from streams.log import TP
from topologies.loading import load_topology
from topologies.replay.concerned import concerned, stores
from topologies.replay.origin import parse_origin
from topologies.settings import Settings

HELD = {TP("orders", p): Stretch(TP("orders", p), first=10, end=100, at=40 + p) for p in range(2)}
TWO = {**HELD, TP("clicks", 0): Stretch(TP("clicks", 0), first=0, end=7)}


def settings(path: Path) -> Settings:
    return Settings(cluster=Cluster("nowhere:1"), home=path, state_dir=path)


def test_earliest_is_the_first_record_that_there_is() -> None:
    origin = parse_origin("earliest")
    assert origin.whole
    assert origin.starts(HELD) == {TP("orders", 0): 10, TP("orders", 1): 10}


def test_a_time_is_the_first_record_from_then_on_and_the_end_where_there_is_none() -> None:
    origin = parse_origin("2026-11-22T23:39:00Z")
    assert origin.at_ms == 1795390740000
    assert not origin.whole
    assert origin.starts(TWO) == {TP("orders", 0): 40, TP("orders", 1): 41, TP("clicks", 0): 7}


def test_partitions_that_offsets_do_not_name_begin_at_their_first_record() -> None:
    assert parse_origin("1=55").starts(HELD) == {TP("orders", 0): 10, TP("orders", 1): 55}
    assert parse_origin("orders:0=100, clicks:0=3").starts(TWO)[TP("clicks", 0)] == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0=9", "holds offsets 10 to 100, not 9"),
        ("0=101", "not 101"),
        ("7=12", "orders[7] is no source"),
        ("sales:0=12", "there are orders"),
    ],
)
def test_offsets_that_are_not_there_are_refused_with_those_that_are(text: str, said: str) -> None:
    with pytest.raises(MillraceError) as refused:
        parse_origin(text).starts(HELD)
    assert said in str(refused.value)


def test_an_offset_without_a_topic_is_refused_where_there_are_several() -> None:
    with pytest.raises(MillraceError, match="which topic"):
        parse_origin("0=12").starts(TWO)


@pytest.mark.parametrize("text", ["yesterday", "0=", "=5", "orders=0=5", "0=1;1=2", ""])
def test_what_is_neither_is_refused_with_what_can_be_given(text: str) -> None:
    with pytest.raises(MillraceError, match="--from"):
        parse_origin(text)


def test_what_a_group_writes_for_itself_is_dropped_and_what_others_write_is_not(tmp_path: Path) -> None:
    found = concerned(load_topology("recommendations", settings(tmp_path)))
    assert [topic.name for topic in found.inner] == ["product-baskets"]
    assert not {"user-activity", "order-events", "user-sessions"} & set(found.dropped)
    assert found.upserted == ("product-recommendations", "user-recommendations")
    sales = concerned(load_topology("analytics", settings(tmp_path)))
    assert [topic.name.rsplit("-", 1)[-1] for topic in sales.inner] == ["partials"] * 3
    assert sales.upserted == ("sales-per-minute",)


def test_results_that_do_not_replace_each_other_are_dropped_since_they_would_be_there_twice(tmp_path: Path) -> None:
    found = concerned(load_topology("behaviour", settings(tmp_path)))
    assert found.streams == ("user-sessions",)
    assert found.upserted == ("abandoned-carts", "order-alerts")


def test_stores_of_partitions_are_dropped_and_copies_and_locks_are_not(tmp_path: Path) -> None:
    for name in ("0", "12", "3.w1", "views-8090", "published-w0", "replay"):
        (tmp_path / "shop" / name).mkdir(parents=True)
    (tmp_path / "shop" / "w0.lock").write_text("1")
    assert [path.name for path in stores(tmp_path, "shop")] == ["0", "12", "3.w1"]
    assert stores(tmp_path, "nobody") == []
