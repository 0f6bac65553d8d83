"""Clicks by page, in slices of ten seconds, and the busiest pages of the last minutes."""

from collections.abc import Iterator, Mapping
from heapq import nlargest
from typing import Any

from msgspec import Struct

from streams.events import EpochMs
from streams.intake import EventTime
from streams.topics import Topic
from tables.aggregates import Count, Distinct
from tables.read_model import ReadModel
from topologies.topology import Topology
from topologies.views import newest_window


class Click(Struct, frozen=True, rename="camel"):
    page: str
    user_id: int
    occurred_at: EpochMs | None = None  # else the record's own timestamp


CLICKS = Topic("clicks", Click)
topology = Topology("click-stats").source(CLICKS, time=EventTime(slice_ms=10_000, grace_ms=5_000))


@topology.table(CLICKS, clicks=Count(), visitors=Distinct())
def clicks_by_page(click: Click) -> Iterator[tuple[str, int, int]]:
    yield click.page, 1, click.user_id


@topology.view("/api/busiest")
def busiest(model: ReadModel, query: Mapping[str, str]) -> dict[str, Any]:
    window = newest_window(model, "clicks_by_page", query.get("window", "5m"))
    pages = model.results("clicks_by_page", window)
    return {"pages": nlargest(10, ({"page": page, **row} for page, row in pages.items()), lambda row: row["clicks"])}
