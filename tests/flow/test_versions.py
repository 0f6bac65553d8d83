"""Versions of a topology: names of their own, the same numbers, what differs between two, and requests over a swap."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from behaving import behaviour, done, recommendations, simulated
from streaming import streamed
from views_shop import MINUTE, T0, follow, line, look, open_model, order, sales, shop_settings

from bench.changed_sales import KEY, PIECES, is_changed
from bench.changed_sales import changed as changed_logic
from streams.errors import MillraceError
from streams.log import TP, Entry, Record
from tables.read_model import ReadModel
from topologies.driver import Driver
from topologies.loading import OURS, load_topology
from topologies.topology import FIRST, Topology
from topologies.versions.comparing import compare_models
from topologies.versions.dropping import refuse_served
from topologies.versions.giving_way import LEAST_SHARE, Behind, Share
from topologies.versions.loading import load_version, shaping
from topologies.versions.naming import as_version, group_name, own_topics
from topologies.versions.register import Register, Seen, Served, Version, entry, now_ms
from topologies.views.answers import SERVING, Views
from topologies.views.freshness import Tracker
from topologies.views.hosting import covers
from topologies.views.server import attach, views_app


def second(topology: Topology, version: str = "v2") -> Topology:
    return as_version(topology, topology.name, version)


@pytest.mark.parametrize("name", list(OURS))
def test_two_versions_have_only_the_sources_in_common(name: str) -> None:
    first = load_topology(name, shop_settings())
    other = second(first)
    sources = {topic for topic in first.sources if topic in other.sources}
    assert {t.name for t in first.topics()} & {t.name for t in other.topics()} == sources
    assert sources
    assert not {t.name for t in own_topics(first)} & {t.name for t in own_topics(other)}
    assert other.name == f"{first.name}.v2"
    assert (other.family, other.version) == (first.name, "v2")


def test_a_version_of_a_version_bears_the_first_ones_name() -> None:
    changed = Topology("quite-another-name", sources=dict(sales().sources))
    assert as_version(changed, "order-analytics-group", "v3").name == "order-analytics-group.v3"
    first = sales()
    assert as_version(first, first.name, FIRST) is first


@pytest.mark.parametrize("version", ["", "2", "v0", "v01", "V2", "v2-x", "v2.1", "v1234567"])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(MillraceError, match="named v1, v2"):
        second(sales(), version)


def test_what_a_version_puts_aside_is_its_own() -> None:
    with done(sales(partitions=2), []) as first, Driver(second(sales(partitions=2)), log=first.log) as other:
        for minute in (0, 60, 1):
            order(first, T0 + minute * MINUTE, partition=0)
        first.feed("order-events", b"{", timestamp_ms=T0)
        for driver in (first, other):
            driver.flush()
        assert len(first.records("order-events.late")) == 1
        assert len(other.records("order-events.order-analytics-group.v2.late")) == 1
        assert len(other.records("order-events.order-analytics-group.v2.dead-letters")) == 1
        assert len(first.records("order-events.dead-letters")) == 1


def test_a_version_says_the_same_as_the_first() -> None:
    with done(behaviour(), simulated()) as first, Driver(second(behaviour()), log=first.log) as other:
        other.flush()
        for table in (table.name for source in first.topology.sources.values() for table in source.tables):
            assert other.digest(table) == first.digest(table)
        for topic in ("user-sessions", "abandoned-carts", "order-alerts"):
            assert last(other, f"{topic}.v2") == last(first, topic)
            assert last(first, topic)


def last(driver: Driver, topic: str) -> dict[bytes | None, bytes | None]:
    return {record.key: record.value for record in driver.records(topic)}


def test_a_versions_publications_read_its_own_copies() -> None:
    with done(behaviour(), simulated(1_500)) as before, done(recommendations(), [], before.log) as first:
        first.publish()
        with done(second(recommendations()), [], before.log) as other:
            other.publish()
            for topic in ("product-recommendations", "user-recommendations"):
                found = last(first, topic)
                assert len(found) > 10
                assert last(other, f"{topic}.v2") == found


REGIONS = ("seoul", "busan", "daegu")
MINUTES = 20


def fill(driver: Driver, first: int = 0, count: int = MINUTES) -> None:
    """An order in each region each minute; the last two minutes stay open."""
    for at in range(first, first + count):
        for user, region in enumerate(REGIONS):
            items = [line(1, "books", 100)]
            order(driver, T0 + at * MINUTE, 100, user, partition=user % 2, region=region, items=items)
    driver.flush()


class Pair:
    """The first version and another one over the same log, and a server of them."""

    def __init__(self, directory: Path, changed: bool) -> None:
        self.first = Driver(sales(partitions=2))
        made = sales(partitions=2)
        self.other = Driver(second(changed_logic(made) if changed else made), log=self.first.log)
        self.views = [self.served(driver, directory / str(at)) for at, driver in enumerate(self.drivers)]
        self.app = views_app([self.first.topology])
        attach(self.app, self.views[0])
        self.serving = self.app[SERVING]
        fill(self.first)
        self.catch_up()

    @property
    def drivers(self) -> tuple[Driver, Driver]:
        return self.first, self.other

    @property
    def models(self) -> tuple[ReadModel, ReadModel]:
        return self.views[0].model, self.views[1].model

    @staticmethod
    def served(driver: Driver, directory: Path) -> Views:
        return Views(driver.topology, model := open_model(driver.topology, directory), Tracker(model), "KRW")

    def catch_up(self, *numbers: int) -> None:
        for number in numbers or (0, 1):
            driver, views = self.drivers[number], self.views[number]
            driver.flush()
            changed = follow(views.model, driver)
            look(views.tracker, driver, 1_767_230_000.0)
            views.tracker.caught_up = True
            views.tracker.news.note(changed)
            views.tracker.news.tell()

    def swap(self) -> None:
        """Serve the other one."""
        old = self.serving.now.all[0]
        self.serving.swap(old, next(views for views in self.views if views is not old))

    def close(self) -> None:
        for views, driver in zip(self.views, self.drivers, strict=True):
            views.model.close()
            driver.close()


@pytest.fixture
def pair(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(tmp_path, changed=getattr(request, "param", True))
    yield pair
    pair.close()


@pytest.mark.parametrize("pair", [False], indirect=True)
def test_the_same_logic_differs_in_nothing(pair: Pair) -> None:
    found = compare_models(*pair.models)
    assert found.same
    assert [table.table for table in found.tables] == list(pair.models[0].tables)
    for table in found.tables:
        assert table.windows == MINUTES - 2
        assert table.cells[0] == table.cells[1] > 0
        assert all(one == other for one, other in table.sums.values())


def test_a_changed_logic_differs_in_exactly_what_it_changes(pair: Pair) -> None:
    found = compare_models(*pair.models, examples=1_000)
    assert not found.same
    assert {(cell.table, cell.key, cell.columns) for cell in found.examples} == {("sales_by_region", KEY, ("units",))}
    assert found.differing == len(found.examples) == MINUTES - 2
    assert [cell.start_ms for cell in found.examples] == [T0 + at * MINUTE for at in range(MINUTES - 2)]
    (cell, *_) = found.examples
    assert cell.one is not None
    assert cell.other is not None
    assert (cell.one["units"], cell.other["units"]) == (1, 1 + PIECES)
    (by_region,) = (table for table in found.tables if table.table == "sales_by_region")
    assert by_region.sums["units"] == (3 * (MINUTES - 2), (3 + PIECES) * (MINUTES - 2))
    assert by_region.sums["orders"] == (3 * (MINUTES - 2),) * 2


def test_examples_are_limited_and_counts_are_not(pair: Pair) -> None:
    found = compare_models(*pair.models, examples=3)
    assert (len(found.examples), found.differing) == (3, MINUTES - 2)
    assert compare_models(*pair.models, tables=["sales_by_total"]).same
    span = (T0 + 5 * MINUTE, T0 + 7 * MINUTE)
    assert compare_models(*pair.models, span=span).differing == 2
    with pytest.raises(MillraceError, match="no table 'sales'"):
        compare_models(*pair.models, tables=["sales"])


def test_only_windows_that_both_have_closed_are_compared(pair: Pair) -> None:
    fill(pair.first, MINUTES, 10)
    pair.catch_up(0)
    assert compare_models(*pair.models).tables[0].windows == MINUTES - 2
    pair.catch_up(1)
    assert compare_models(*pair.models).tables[0].windows == MINUTES + 8


def test_cells_that_one_version_lacks_differ(pair: Pair, tmp_path: Path) -> None:
    empty = open_model(second(sales(partitions=2), "v3"), tmp_path / "empty")
    empty.progress |= pair.models[0].progress
    found = compare_models(pair.models[0], empty)
    empty.close()
    assert found.differing == sum(table.cells[0] for table in found.tables) > 0
    assert all(cell.other is None for cell in found.examples)


def test_tables_and_columns_that_one_version_has_alone_are_named(pair: Pair, tmp_path: Path) -> None:
    topology = sales(partitions=2)
    (source,) = topology.sources.values()
    less = [table for table in source.tables if table.name != "sales_by_product"]
    total = replace(less[0], aggregates=dict(list(less[0].aggregates.items())[:-1]))
    topology.sources[source.topic.name] = replace(source, tables=(total, *less[1:]))
    fewer = open_model(second(topology, "v3"), tmp_path / "fewer")
    found = compare_models(pair.models[0], fewer)
    fewer.close()
    assert found.only == (("sales_by_product",), ())
    assert found.tables[0].only == (("order_value",), ())
    assert not found.same


SALES = "/api/sales?by=region&window=1m"
BATCH = "/api/batch?view=/api/sales?by=region&view=/api/sales?by=total&view=/api/tables/sales_by_region/rows"


@pytest.fixture
async def client(pair: Pair) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(pair.app)) as client:
        yield client


async def get(client: TestClient[Any, Any], path: str) -> dict[str, Any]:
    async with client.get(path) as response:
        body: dict[str, Any] = orjson.loads(await response.read())
        assert response.status == 200, body
        return body


def version_of(body: dict[str, Any]) -> str:
    return str(body["freshness"]["versions"]["order-analytics-group"])


def says(body: dict[str, Any]) -> str:
    """The version that its numbers are of."""
    return "v2" if is_changed(body["rows"]) else "v1"


async def test_answers_say_of_which_version_they_are(pair: Pair, client: TestClient[Any, Any]) -> None:
    for version in ("v1", "v2", "v1"):
        body = await get(client, SALES)
        assert (version_of(body), says(body)) == (version, version)
        for path in ("/api", "/healthz", "/api/tables", "/api/tables/sales_by_total", "/api/sales/top"):
            assert version_of(await get(client, path)) == version
        pair.swap()


async def test_no_answer_mixes_versions_and_none_fails_while_they_are_swapped(
    pair: Pair, client: TestClient[Any, Any]
) -> None:
    asked: set[str] = set()
    swaps = 0

    async def ask() -> None:
        while swaps < 40:
            one = await get(client, SALES)
            assert version_of(one) == says(one)
            parts = (await get(client, BATCH))["views"]
            assert {part["status"] for part in parts} == {200}
            assert len({version_of(part["body"]) for part in parts}) == 1
            assert {says(part["body"]) for part in (parts[0], parts[2])} == {version_of(parts[0]["body"])}
            asked.add(version_of(one))

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    while swaps < 40 and not any(task.done() for task in asking):
        await asyncio.sleep(0.01)
        pair.swap()
        swaps += 1
    await asyncio.gather(*asking)
    assert asked == {"v1", "v2"}


async def test_a_live_stream_goes_on_with_a_snapshot_of_the_other_version(
    pair: Pair, client: TestClient[Any, Any]
) -> None:
    paths = (SALES, "/api/sales/top?by=region&window=1h", BATCH)
    for path in paths:
        async with streamed(client, path) as stream:
            await stream.next()
            fill(pair.first, MINUTES + paths.index(path), 1)
            pair.catch_up()
            while (event := await stream.next()).name != "delta":
                pass
            before = version_of(stream.body)
            pair.swap()
            while not (event := await stream.next()).name:
                pass
            assert event.name == "snapshot"
            assert version_of(stream.body) != before
            fill(pair.first, MINUTES + 5 + paths.index(path), 1)
            pair.catch_up()
            while (event := await stream.next()).name != "delta":
                assert not event.name
            assert version_of(stream.body) != before
            assert stream.body["freshness"]["offsets"] == (await get(client, path))["freshness"]["offsets"]


async def test_what_answers_from_a_version_keeps_it_open(pair: Pair, client: TestClient[Any, Any]) -> None:
    old = pair.views[0]
    offset = pair.models[0].covered("order-events")[0]
    waiting = asyncio.create_task(get(client, f"{SALES}&after=order-events:0:{offset}&wait=10"))
    while not old.holders.count:
        await asyncio.sleep(0.01)
    pair.swap()
    gone = asyncio.create_task(old.holders.gone())
    await asyncio.sleep(0.05)
    assert not gone.done()
    fill(pair.first, MINUTES, 1)
    pair.catch_up()
    assert version_of(await waiting) == "v1"
    await asyncio.wait_for(gone, 5)


async def test_a_stream_does_not_keep_a_version_open(pair: Pair, client: TestClient[Any, Any]) -> None:
    async with streamed(client, SALES) as stream:
        await stream.next()
        pair.swap()
        await asyncio.wait_for(pair.views[0].holders.gone(), 5)


async def test_views_of_a_later_version_answer_once_it_is_served(pair: Pair) -> None:
    later = pair.views[1].topology

    @later.view("/api/news")
    def news(reader: Any, parameters: Any) -> dict[str, Any]:
        return {"news": "good"}

    app = views_app([pair.first.topology], later=[later])
    attach(app, pair.views[0])
    async with TestClient(TestServer(app)) as client:
        async with client.get("/api/news") as response:
            assert response.status == 404
            assert "version v1 of order-analytics-group" in (await response.json())["detail"]
        app[SERVING].swap(pair.views[0], pair.views[1])
        assert (await get(client, "/api/news"))["news"] == "good"


def test_a_version_that_is_behind_does_not_cover_the_other(pair: Pair) -> None:
    assert covers(pair.views[1], pair.views[0])
    fill(pair.first, MINUTES, 1)
    pair.catch_up(0)
    assert not covers(pair.views[1], pair.views[0])
    assert covers(pair.views[0], pair.views[1])


def record(written: Any) -> Record:
    class Written(NamedTuple):
        offset: int
        timestamp: int
        key: bytes | None
        value: bytes | None
        headers: Any

    return Written(0, 0, written.key, written.value, ())


def test_the_register_says_what_was_written_last() -> None:
    register = Register()
    assert register.served("shop").version == FIRST
    assert list(register.known("shop")) == [FIRST]
    write = [
        entry("version", "shop", "v10", value=Version("mine:shop", "shop", {"grace_s": 5})),
        entry("version", "shop", "v2", value=Version("mine:shop", "shop")),
        entry("served", "shop", value=Served("v2", "v1", 5)),
        entry("server", "shop", "here:8090", value=Seen("v1", "v2", "soon", now_ms())),
        entry("server", "shop", "dead:8090", value=Seen("v1", at_ms=1)),
    ]
    register.apply(map(record, write))
    assert register.served("shop") == Served("v2", "v1", 5)
    assert list(register.known("shop")) == ["v1", "v2", "v10"]
    assert list(register.serving("shop", now_ms())) == ["here:8090"]
    assert register.topologies == ["shop"]
    assert register.first_of("shop") == "shop"
    register.apply(
        map(
            record,
            [
                entry("version", "shop", "v1", value=Version(first="shop", dropped=True)),
                entry("server", "shop", "here:8090", value=None),
            ],
        )
    )
    assert list(register.known("shop")) == ["v2", "v10"]
    assert not register.serving("shop", now_ms())


@pytest.mark.parametrize("key", [None, b"", b"{}", b"[]", b'["other","x"]', b'["served"]', b'["version","a","b","c"]'])
def test_the_register_passes_over_what_it_does_not_know(key: bytes | None) -> None:
    register = Register()
    register.apply([record(Entry(key or b"", b'{"version":"v2"}', ()))])
    register.apply([record(entry("served", "shop", value=Served("v3")))])
    assert register.served("shop").version == "v3"


def test_a_version_is_loaded_with_the_settings_that_it_was_made_with() -> None:
    settings = shop_settings(grace_s=300, slice_s=300, partitions=2)
    register = Register()
    register.apply(
        [record(entry("version", sales().name, "v2", value=Version("analytics", "analytics", shaping(settings))))]
    )
    made = load_version(sales(), "v2", shop_settings(partitions=2), register)
    (source,) = made.sources.values()
    assert (source.time.grace_ms, source.time.slice_ms) == (300_000, 300_000)
    assert made.name == group_name(sales().name, "v2")
    with pytest.raises(MillraceError, match="there is no version v3"):
        load_version(sales(), "v3", shop_settings(), register)


def test_a_dropped_version_is_there_only_for_who_drops_what_is_left_of_it() -> None:
    register, first = Register(), sales()
    register.apply([record(entry("version", first.name, "v2", value=Version("analytics", "analytics", dropped=True)))])
    with pytest.raises(MillraceError, match="there is no version v2"):
        load_version(first, "v2", shop_settings(), register)
    left = load_version(first, "v2", shop_settings(), register, dropped=True)
    assert (left.name, left.version) == (group_name(first.name, "v2"), "v2")
    assert list(register.known(first.name)) == [FIRST]
    assert list(register.known(first.name, dropped=True)) == [FIRST, "v2"]


def test_a_version_that_is_served_or_that_a_view_server_still_has_is_not_dropped() -> None:
    first = sales()
    other, register = second(first), Register()
    refuse_served(register, other)
    with pytest.raises(MillraceError, match="v1 of order-analytics-group is served"):
        refuse_served(register, first)
    register.apply([record(entry("server", first.name, "here:8090", value=Seen("v1", "v2", "soon", now_ms())))])
    with pytest.raises(MillraceError, match="here:8090 still has v2"):
        refuse_served(register, other)
    register.apply([record(entry("served", first.name, value=Served("v2", "v1")))])
    with pytest.raises(MillraceError, match="here:8090 still has v1"):
        refuse_served(register, first)


def test_a_rebuild_takes_less_the_further_the_served_version_is_behind() -> None:
    share = Share(bound_s=2.0)
    for _ in range(30):
        share.hear(0.2)
    assert share.share == 1.0
    assert share.hear(1.5) == 0.5
    assert share.hear(1.5) == 0.25
    assert share.hear(2.5) == LEAST_SHARE
    assert LEAST_SHARE < share.hear(0.2) < 0.2
    before = share.share
    assert share.hear(None) == before


def test_a_rebuild_gives_way_to_a_version_that_was_behind_before_it_began() -> None:
    tps = [TP("orders", 0)]
    behind, share = Behind(tps), Share(bound_s=2.0)
    for number in range(12):
        at = 100.0 + number / 4
        assert behind.look(at, {tps[0]: 1_000 + number}, {tps[0]: number}) is None
        assert behind.least(at) == (number / 4 or None)
        share.hear(behind.least(at))
    assert share.share == LEAST_SHARE


def test_the_age_of_what_is_committed_grows_until_it_covers_a_look() -> None:
    tps = [TP("orders", 0), TP("orders", 1)]
    behind = Behind(tps)
    assert behind.look(100.0, {tps[0]: 10, tps[1]: 5}, {tps[0]: 9}) is None
    assert behind.look(101.0, {tps[0]: 20, tps[1]: 5}, {tps[0]: 10, tps[1]: 5}) == 1.0
    assert behind.look(103.0, {tps[0]: 30, tps[1]: 5}, {tps[0]: 20, tps[1]: 5}) == 2.0
    assert behind.look(104.0, {tps[0]: 30, tps[1]: 5}, {tps[0]: 30, tps[1]: 5}) == 0.0
