"""Views as streams over HTTP: a snapshot, then patches that make each next answer."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from streaming import BEAT, Shop, Stream, streamed

from topologies.views import NotFound, Problem
from topologies.views.channel import Channel
from topologies.views.channels import Pace
from topologies.views.metrics import METRICS

SALES = "/api/sales?by=category"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with Shop(tmp_path / "copy") as shop:
        yield shop


def plain(body: dict[str, Any]) -> dict[str, Any]:
    """An answer without what is another with each moment."""
    return {**body, "freshness": {**body["freshness"], "age_s": None}}


async def test_a_stream_begins_with_the_answer_and_patches_it_to_each_next_one(shop: Shop) -> None:
    shop.sell()
    async with streamed(shop.client, SALES) as stream:
        first = await stream.next()
        assert (first.name, stream.retry_ms) == ("snapshot", 1000)
        assert plain(stream.body) == plain(await shop.get(SALES))
        for minute in (0, 1, 1, 5, 200, 2):
            shop.sell(minute)
            shop.look()
            expected = plain(await shop.get(SALES))
            assert (await stream.next()).name == "delta"
            while plain(stream.body) != expected:
                assert (await stream.next()).name == "delta"


async def test_a_frame_says_when_it_was_computed(shop: Shop) -> None:
    async with streamed(shop.client, "/api/state") as stream:
        (comment,) = (await stream.next()).comments
        assert comment.startswith("computed 1")


@pytest.mark.parametrize(
    "path",
    ["/api/sales", "/api/sales/top?n=3", "/api/tables", "/api/tables/sales_by_total",
     "/api/tables/sales_by_product/rows?window=5m", "/api", "/api/state", "/api/state/7", "/api/batch?view=/api/sales"],
)  # fmt: skip
async def test_every_view_is_a_stream_by_header_and_by_path(shop: Shop, path: str) -> None:
    shop.sell()
    name, _, query = path.partition("?")
    for headers, asked in (({}, f"{name}/live?{query}"), ({"Accept": "text/event-stream"}, path)):
        async with shop.client.get(asked, headers=headers) as response:
            assert response.content_type == "text/event-stream"
            stream = Stream(response)
            assert (await stream.next()).name == "snapshot"
            assert stream.body.keys() == (await shop.get(path)).keys()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/"])
async def test_what_is_no_view_is_no_stream(shop: Shop, path: str) -> None:
    async with shop.client.get(path, headers={"Accept": "text/event-stream"}) as response:
        assert response.content_type != "text/event-stream"
    if path != "/":
        assert (await shop.client.get(path + "/live")).status == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [("/api/sales?by=nothing", 400), ("/api/tables/nothing", 404), ("/api/sales?after=x", 400), ("/api/nothing", 404)],
)
async def test_errors_before_the_stream_are_problems(shop: Shop, path: str, status: int) -> None:
    for asked in (path, path.replace("?", "/live?") if "?" in path else path + "/live"):
        async with shop.client.get(asked, headers={"Accept": "text/event-stream"}) as response:
            assert (response.status, response.content_type) == (status, "application/problem+json")


async def test_a_problem_later_is_an_event_and_a_snapshot_ends_it(shop: Shop) -> None:
    async with streamed(shop.client, "/api/state") as stream:
        await stream.next()
        shop.set(NotFound("it is gone"))
        event = await stream.next()
        assert (event.name, event.data["status"], event.data["detail"]) == ("problem", 404, "it is gone")
        shop.tracker.news.tell()
        shop.set({"n": 5})
        assert (await stream.next()).name == "snapshot"
        assert stream.body["n"] == 5


async def test_an_unexpected_error_is_a_problem_that_tells_nothing_of_the_inside(shop: Shop) -> None:
    async with streamed(shop.client, "/api/state") as stream:
        await stream.next()
        shop.set(RuntimeError("secret"))
        event = await stream.next()
        assert (event.name, event.data["status"]) == ("problem", 500)
        assert "secret" not in str(event.data)


async def test_a_view_that_cannot_answer_yet_is_a_problem_not_a_stream(shop: Shop) -> None:
    shop.state = Problem(503, "not-yet", "Not yet", "still being computed")
    async with shop.client.get("/api/state/live") as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "1")


async def test_a_dropped_connection_resumes_with_what_was_missed_as_one_delta(shop: Shop) -> None:
    async with streamed(shop.client, "/api/state") as other:  # somebody else keeps the channel
        async with streamed(shop.client, "/api/state") as stream:
            await stream.next()
        for n in (1, 2, 3):
            shop.set({"n": n})
            await other.until(n=n)
        for headers, query in (({"Last-Event-ID": stream.id}, ""), ({}, f"?lastEventId={stream.id}")):
            async with streamed(shop.client, "/api/state" + query, headers) as again:
                again.body = stream.body
                assert (await again.next()).name == "delta"
                assert (again.body, again.id) == (other.body, other.id)


async def test_a_channel_lingers_for_who_comes_back_and_ends(shop: Shop) -> None:
    async with streamed(shop.client, "/api/state") as stream:
        await stream.next()
    shop.set({"n": 1})
    async with streamed(shop.client, "/api/state", {"Last-Event-ID": stream.id}) as again:
        again.body = stream.body
        await again.until(n=1)
    async with asyncio.timeout(5):
        while len(shop.channels):
            shop.tracker.news.tell()  # who has gone is noticed when there is something to send
            await asyncio.sleep(0.02)
    asked = shop.asked
    shop.set({"n": 2})
    await asyncio.sleep(0.05)
    assert shop.asked == asked
    async with streamed(shop.client, "/api/state", {"Last-Event-ID": again.id}) as anew:
        assert (await anew.next()).name == "snapshot"


@pytest.mark.parametrize("last", ["nonsense", "abc-1", "-", "{epoch}-999", "{epoch}-x", "{epoch}--1", "{epoch}-²"])
async def test_an_id_from_elsewhere_begins_with_a_snapshot(shop: Shop, last: str) -> None:
    async with streamed(shop.client, "/api/state") as stream:
        await stream.next()
        last = last.format(epoch=stream.id.partition("-")[0])
        async with shop.client.get("/api/state/live", params={"lastEventId": last}) as response:
            assert (await Stream(response).next()).name == "snapshot"


async def test_who_is_up_to_date_is_sent_nothing_but_signs_of_life(shop: Shop) -> None:
    async with streamed(shop.client, "/api/state") as stream:
        await stream.next()
        async with streamed(shop.client, "/api/state", {"Last-Event-ID": stream.id}) as again:
            assert (await again.next()).name == BEAT
        asked = shop.asked
        for _ in range(30):
            shop.tracker.news.tell()
            await asyncio.sleep(0.01)
        assert shop.asked > asked + 5
        async with streamed(shop.client, "/api/state", {"Last-Event-ID": stream.id}) as again:
            assert (await again.next()).name == BEAT


async def test_nothing_is_computed_while_there_is_no_news(shop: Shop) -> None:
    async with streamed(shop.client, "/api/state") as stream:
        await stream.next()
        asked = shop.asked
        for _ in range(3):
            assert (await stream.next()).name == BEAT
        assert shop.asked == asked


async def test_an_answer_that_takes_long_leaves_time_for_others(shop: Shop) -> None:
    async with streamed(shop.client, "/api/state") as stream:
        await stream.next()
        asked, shop.takes_s, began = shop.asked, 0.02, time.monotonic()
        while time.monotonic() < began + 1:
            shop.tracker.news.tell()
            await asyncio.sleep(0.002)
        assert 1 < shop.asked - asked <= 12  # 50 one after the other


async def test_one_question_is_computed_once_for_all_who_ask_it(shop: Shop) -> None:
    paths = [
        "/api/state?a=1&b=2",
        "/api/state?b=2&a=1",
        "/api/state/live?a=1&b=2",
        "/api/state?a=1&b=2&lastEventId=x-1",
    ]
    async with (
        streamed(shop.client, paths[0]) as one,
        streamed(shop.client, paths[1]) as two,
        streamed(shop.client, paths[2]) as three,
        streamed(shop.client, paths[3]) as four,
    ):
        for stream in (one, two, three, four):
            await stream.next()
        assert len({stream.id for stream in (one, two, three, four)}) == len(shop.channels) == 1
        asked = shop.asked
        shop.set({"n": 1})
        for stream in (one, two, three, four):
            await stream.until(n=1)
        assert shop.asked == asked + 1
        async with streamed(shop.client, "/api/state?a=2") as other:
            await other.next()
            assert len(shop.channels) == 2


async def test_views_never_see_what_is_for_the_stream(shop: Shop) -> None:
    body = await shop.get("/api/sales?lastEventId=x&wait=1")
    assert body["rows"] == []


async def test_a_server_that_ends_ends_its_streams(shop: Shop) -> None:
    async with streamed(shop.client, "/api/state") as stream:
        await stream.next()
        ending = asyncio.create_task(shop.client.server.close())
        with pytest.raises(ConnectionError):
            await stream.until(n=-1)
        await asyncio.wait_for(ending, 5)


async def test_a_stream_needs_the_token_that_its_view_needs(tmp_path: Path) -> None:
    async with Shop(tmp_path / "copy", token="12345678") as shop:
        for path in ("/api/state/live", "/api/state"):
            async with shop.client.get(path, headers={"Accept": "text/event-stream"}) as response:
                assert response.status == 401
        async with streamed(shop.client, "/api/state", {"Authorization": "Bearer 12345678"}) as stream:
            await stream.next()


async def raw_client(shop: Shop, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that takes next to nothing before somebody reads."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    server = shop.client.server
    await asyncio.get_running_loop().sock_connect(connection, (server.host, server.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=4096)
    writer.write(f"GET {path} HTTP/1.0\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode())
    return reader, writer


@pytest.mark.parametrize("words", [5_000, 20_000])
async def test_a_slow_client_misses_nothing_and_has_no_queue(tmp_path: Path, words: int) -> None:
    pace = Pace(every_s=0.001, linger_s=1, beat_s=5, stuck_s=30)
    async with Shop(tmp_path / "copy", pace) as shop, streamed(shop.client, "/api/state") as fast:
        reader, writer = await raw_client(shop, "/api/state")
        await asyncio.sleep(0.05)
        for n in range(1, 400):
            shop.set({"n": n, "text": f"{n} " * words})  # 10 MB and more in all: beyond what the system buffers
            await fast.until(n=n)
        raw = bytearray()
        while f'"n":{n},'.encode() not in raw and f'"/n","value":{n}'.encode() not in raw:
            raw += await asyncio.wait_for(reader.read(1 << 20), 5)
        writer.close()
        assert 0 < raw.count(b"event: ") < 400
        assert len(raw) < 8 << 20


async def test_a_client_that_takes_nothing_is_disconnected_and_harms_nobody(shop: Shop) -> None:
    async with streamed(shop.client, "/api/sales") as other:
        await other.next()
        shop.state = {"n": 0, "text": "x" * 30_000_000}
        _, writer = await raw_client(shop, "/api/state")
        async with asyncio.timeout(5):
            while not shop.channels.counts.stuck:
                await asyncio.sleep(0.05)
        writer.close()
        shop.sell()
        await other.until(rows=(await shop.get("/api/sales"))["rows"])


async def test_metrics_tell_of_live_views(shop: Shop) -> None:
    async with streamed(shop.client, "/api/state") as one, streamed(shop.client, "/api/state") as two:
        await one.next()
        await two.next()
        await asyncio.sleep(0.3)
        async with shop.client.get("/metrics") as response:
            text = await response.text()
        assert "millrace_views_live_clients 2.0" in text
        assert "millrace_views_live_channels 1.0" in text
        assert "millrace_views_live_answers_total 1.0" in text


async def test_a_stream_is_timed_until_it_begins(shop: Shop) -> None:
    async with streamed(shop.client, "/api/state") as stream:
        await stream.next()
        await asyncio.sleep(0.3)
        await shop.client.server.close()
    assert shop.client.app is not None
    found = shop.client.app[METRICS].registry.get_sample_value
    route = {"route": "/api/state"}
    assert found("millrace_views_http_requests_total", {**route, "method": "GET", "status": "200"}) == 1
    assert 0 < (found("millrace_views_http_request_seconds_sum", route) or 0) < 0.3


def test_a_channel_keeps_a_bounded_ring() -> None:
    channel = Channel()
    for n in range(1_000):
        channel.publish(orjson.dumps({"n": n}), n)
    kept = [seq for seq in range(1_001) if channel.position(f"{channel.epoch}-{seq}") is not None]
    assert kept == list(range(900, 1_001))
    for n in range(50):
        channel.publish(orjson.dumps({"n": n, "long": f"{n}" * 20_000}), n)
    kept = [seq for seq in range(1_051) if channel.position(f"{channel.epoch}-{seq}") is not None]
    assert 1 <= len(kept) <= 5


def test_frames_are_the_same_bytes_for_all_who_are_equally_far() -> None:
    channel = Channel()
    for n in range(3):
        channel.publish(orjson.dumps({"n": n}), n)
    assert channel.after(None) is channel.after(None)
    assert channel.after(1) is channel.after(1)
    newest = channel.after(2)
    assert newest is not None
    assert newest.seq == 3
    assert newest.raw.endswith(b'data: [{"op":"replace","path":"/n","value":2}]\n\n')
    assert channel.after(3) is None


def test_the_same_answer_in_another_order_is_no_news() -> None:
    channel = Channel()
    assert channel.publish(b'{"a":1,"b":2}', 1)
    assert not channel.publish(b'{"b":2,"a":1}', 2)
    assert channel.publish(b'{"b":2,"a":2}', 3)
    assert channel.seq == 2
