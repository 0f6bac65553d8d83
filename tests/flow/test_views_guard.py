"""Who may ask a view server, how much, and what of a request ever comes back."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from views_shop import follow, open_model, order, sales, shop_settings

from streams.errors import MillraceError
from tables.read_model import ReadModel
from topologies.app import build_app
from topologies.driver import Driver
from topologies.sales import sales_topology
from topologies.views import guard
from topologies.views.answers import Views
from topologies.views.freshness import Tracker
from topologies.views.guard import Access, Site, warn_if_open
from topologies.views.server import attach, views_app

Client = TestClient[Any, Any]
READ, OPS = "read-token", "operations-token"
T0 = 1_767_225_600_000


@pytest.fixture
def driver() -> Iterator[Driver]:
    topology = sales(partitions=1)

    @topology.view("/api/slow")
    async def slow(model: ReadModel, query: Mapping[str, str]) -> list[int]:
        await asyncio.sleep(60)
        return []

    @topology.view("/api/broken")
    def broken(model: ReadModel, query: Mapping[str, str]) -> None:
        raise RuntimeError("secret detail")

    with Driver(topology) as driver:
        order(driver, T0, region="<img src=x onerror=alert(1)>&")
        driver.flush()
        yield driver


@pytest.fixture
def tracker(driver: Driver, tmp_path: Path) -> Iterator[Tracker]:
    model = open_model(driver.topology, tmp_path / "copy")
    follow(model, driver)
    yield Tracker(model)
    model.close()


def app_of(driver: Driver, tracker: Tracker, access: Access | None = None) -> web.Application:
    app = views_app([driver.topology], access)
    attach(app, Views(driver.topology, tracker.model, tracker, "KRW"))
    return app


def served(driver: Driver, tracker: Tracker, **tokens: str) -> Client:
    return TestClient(TestServer(app_of(driver, tracker, Access(**tokens))))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def statuses(client: Client, paths: list[str], headers: Mapping[str, str] | None = None) -> dict[str, int]:
    return {path: (await client.get(path, headers=headers)).status for path in paths}


READS = ["/api", "/api/batch?view=/api/sales", "/api/sales", "/api/tables", "/api/tables/sales_by_total"]
READS += ["/nothing", "/api/tables/no"]


async def test_without_tokens_everybody_may_read(driver: Driver, tracker: Tracker) -> None:
    async with served(driver, tracker) as client:
        assert set((await statuses(client, [*READS, "/metrics"])).values()) == {200, 404}
        assert "freshness" in await (await client.get("/healthz")).json()


async def test_reads_need_the_read_token_and_nothing_else_opens_them(driver: Driver, tracker: Tracker) -> None:
    async with served(driver, tracker, read_token=READ, ops_token=OPS) as client:
        for headers in (
            {},
            bearer(OPS),
            bearer(READ[:-1]),
            bearer(READ + "x"),
            bearer(""),
            {"Authorization": READ},
            {"Authorization": f"Basic {READ}"},
            {"Authorization": "Bearer \udcff"},
        ):
            assert set((await statuses(client, READS, headers)).values()) == {401}
        assert set((await statuses(client, READS, bearer(READ))).values()) == {200, 404}
        assert (await client.get("/api", headers={"authorization": f"bearer  {READ}"})).status == 200


async def test_a_refusal_says_what_is_missing_and_not_whether_a_path_exists(driver: Driver, tracker: Tracker) -> None:
    async with served(driver, tracker, read_token=READ) as client:
        bodies = []
        for path in ("/api/sales", "/nothing"):
            response = await client.get(path)
            assert response.content_type == "application/problem+json"
            assert response.headers["WWW-Authenticate"] == 'Bearer realm="millrace"'
            bodies.append(await response.read())
        assert bodies[0] == bodies[1]
        assert orjson.loads(bodies[0])["status"] == 401
        wrong = await client.get("/api/sales", headers=bearer("wrong"))
        assert wrong.headers["WWW-Authenticate"] == 'Bearer realm="millrace", error="invalid_token"'
        assert (await client.post("/api/sales")).status == 401


@pytest.mark.parametrize(
    ("tokens", "opens"),
    [
        ({}, {"", READ, OPS}),
        ({"read_token": READ}, {READ}),
        ({"ops_token": OPS}, {OPS}),
        ({"read_token": READ, "ops_token": OPS}, {OPS}),
    ],
    ids=["none", "read", "operations", "both"],
)
async def test_metrics_need_the_operations_token_or_where_there_is_none_the_read_token(
    driver: Driver, tracker: Tracker, tokens: dict[str, str], opens: set[str]
) -> None:
    async with served(driver, tracker, **tokens) as client:
        asked = {token: await client.get("/metrics", headers=bearer(token)) for token in ("", READ, OPS)}
        assert {token for token, response in asked.items() if response.status == 200} == opens


async def test_reads_are_open_where_only_operations_have_a_token(driver: Driver, tracker: Tracker) -> None:
    async with served(driver, tracker, ops_token=OPS) as client:
        assert (await client.get("/api/sales")).status == 200


async def test_health_is_open_and_says_no_more_than_yes_or_no_without_the_token(
    driver: Driver, tracker: Tracker
) -> None:
    async with served(driver, tracker, read_token=READ) as client:
        assert await (await client.get("/healthz")).json() == {"status": "ok"}
        unready = await client.get("/readyz")
        assert (unready.status, await unready.json()) == (503, {"ready": False})
        tracker.caught_up = True
        assert await (await client.get("/readyz")).json() == {"ready": True}
        assert "freshness" in await (await client.get("/readyz", headers=bearer(READ))).json()


HOSTILE_PATHS = [
    "/%3Cscript%3Ealert(1)%3C/script%3E",
    "/api/tables/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
    "/api/tables/x%0D%0ASet-Cookie:%20a=b",
    "/api/tables/%00",
    "/api/tables/%FF%FE",
    "/api/tables/%ED%A0%80",
    "/%ED%A0%80",
    "/..%2F..%2Fetc/passwd",
    "/api/sales?by=%3Cscript%3E",
    "/api/sales?%3Cscript%3E=1",
    "/api/sales?window=%22%3E%3Cimg%20src=x%3E",
    "/api/sales?from=%3Csvg/onload=alert(1)%3E",
    "/api/sales?by=%ED%A0%80",
    "/api/sales?key=%ED%A0%80",
    "/api/sales?key=%FF",
    "/api/sales?currency=%3Cb%3E",
    "/api/sales?currency=%ED%A0%80",
    "/api/sales/top?n=%3Cb%3E&x=%0D%0A",
    "/api/tables/sales_by_region/rows?key=%3Cimg%20src=x%20onerror=alert(1)%3E%26",
    "/api/broken?x=%3Cscript%3E",
    "/" + "a" * 5_000,
]


@pytest.mark.parametrize("path", HOSTILE_PATHS, ids=range(len(HOSTILE_PATHS)))
async def test_nothing_of_a_request_comes_back_unescaped(driver: Driver, tracker: Tracker, path: str) -> None:
    async with listening(driver, tracker) as port:
        fields = "Host: x\r\nAccept: text/html\r\nConnection: close"
        raw = await talk(port, f"GET {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode())
        assert_harmless(raw)
        status = int(raw.split()[1])
        assert status in (200, 400, 404) or (status == 500 and "broken" in path)
        assert len(raw) < 2_000


def assert_harmless(raw: bytes) -> None:
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"Content-Type: application/" in head
    assert b"json" in head
    for line in (b"X-Content-Type-Options: nosniff", b"Security-Policy: default-src 'none'", b"Server: millrace"):
        assert line in head, raw
    assert b"Set-Cookie" not in head
    assert not set(b"<>&") & set(body), body
    for secret in (b"Traceback", b"secret detail", b"aiohttp", b"Python", b".py"):
        assert secret not in raw
    orjson.loads(body)


async def test_what_tables_hold_comes_back_escaped_too(driver: Driver, tracker: Tracker) -> None:
    async with served(driver, tracker) as client:
        raw = await (await client.get("/api/tables/sales_by_region/rows")).read()
        assert not set(b"<>&") & set(raw)
        assert orjson.loads(raw)["rows"][0]["key"] == "<img src=x onerror=alert(1)>&"


class Listening:
    """An application behind our own site, as the server runs it."""

    def __init__(self, app: web.Application) -> None:
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def __aenter__(self) -> int:
        await self.runner.setup()
        await Site(self.runner, "127.0.0.1", 0).start()
        port: int = self.runner.addresses[0][1]
        return port

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()


def listening(driver: Driver, tracker: Tracker) -> Listening:
    return Listening(app_of(driver, tracker))


async def talk(port: int, request: bytes) -> bytes:
    """Send bytes as they are, and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


SCRIPT = b"<script>alert(1)</script>"
NO_REQUESTS = {
    "no HTTP": SCRIPT + b"\r\n\r\n",
    "method": b"<b> / HTTP/1.1\r\n\r\n",
    "version": b"GET / HTTP/<b>\r\n\r\n",
    "field name": b"GET / HTTP/1.1\r\nHost: x\r\n<script>: 1\r\n\r\n",
    "field value": b"GET / HTTP/1.1\r\nHost: x\r\nX: \x00" + SCRIPT + b"\r\n\r\n",
    "length": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: <b>\r\n\r\n",
    "encoding": b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: <b>\r\n\r\n",
    "both lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "expectation": b"GET /api/sales HTTP/1.1\r\nHost: x\r\nExpect: " + SCRIPT + b"\r\nConnection: close\r\n\r\n",
    "expectation elsewhere": b"GET /no HTTP/1.1\r\nHost: x\r\nExpect: " + SCRIPT + b"\r\nConnection: close\r\n\r\n",
    "long line": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "long field": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    "many fields": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X%d: <b>\r\n" % i for i in range(500)) + b"\r\n",
    "method not there": b"TRACE / HTTP/1.1\r\nHost: x\r\nX: <script>\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("request_", NO_REQUESTS.values(), ids=NO_REQUESTS)
async def test_what_cannot_be_parsed_is_refused_and_not_repeated(
    driver: Driver, tracker: Tracker, request_: bytes
) -> None:
    async with listening(driver, tracker) as port:
        raw = await talk(port, request_)
        assert 400 <= int(raw.split()[1]) < 500
        assert_harmless(raw)
        assert b"script" not in raw
        assert len(raw) < 1_000


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("Content-Length: 16385", 413),
        ("Content-Length: 100000000000", 413),
        ("Transfer-Encoding: chunked", 411),
    ],
)
async def test_a_body_that_is_too_large_or_endless_is_refused_before_it_is_read(
    driver: Driver, tracker: Tracker, head: str, status: int
) -> None:
    async with listening(driver, tracker) as port:
        raw = await talk(port, f"POST /api/sales HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
        assert int(raw.split()[1]) == status
        assert_harmless(raw)


async def test_a_small_body_hurts_nobody(driver: Driver, tracker: Tracker) -> None:
    async with served(driver, tracker) as client:
        assert (await client.get("/api/sales", data=b"x" * 100)).status == 200


async def test_a_request_that_never_ends_is_cut_off(
    driver: Driver, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(guard.LIMITS, "keepalive_timeout", 0.2)
    async with listening(driver, tracker) as port:
        assert await talk(port, b"GET /api/sales HTTP/1.1\r\nX: sl") == b""
        assert await talk(port, b"") == b""
        after = await talk(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HT")
        assert after.count(b"HTTP/1.1 200") == 1


async def test_an_answer_that_takes_too_long_is_given_up(
    driver: Driver, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "ANSWER_S", 0.05)
    async with served(driver, tracker) as client:
        response = await client.get("/api/slow")
        assert response.status == 503
        assert response.headers["Retry-After"] == "1"
        assert (await response.json(content_type=None))["type"].endswith("too-slow")


async def test_a_failing_view_puts_no_line_of_a_client_into_the_log(
    driver: Driver, tracker: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(driver, tracker) as client:
        response = await client.get("/api/broken?x=%0A2026-01-01%20forged")
        assert response.status == 500
        assert "secret" not in await response.text()
    assert not any("\n2026-01-01 forged" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("host", "access", "words"),
    [
        ("127.0.0.1", Access(), []),
        ("localhost", Access(), []),
        ("::1", Access(), []),
        ("0.0.0.0", Access(), ["MILLRACE_READ_TOKEN", "MILLRACE_OPS_TOKEN"]),
        ("192.168.0.7", Access(READ), ["unencrypted"]),
        ("::", Access(None, OPS), ["MILLRACE_READ_TOKEN", "unencrypted"]),
        ("shop.example", Access(READ, OPS), ["unencrypted"]),
    ],
)
def test_listening_to_others_without_a_token_is_warned_of(
    host: str, access: Access, words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_if_open(host, access)
    assert len(caplog.records) == len(words)
    assert all(word in caplog.text for word in words)
    assert READ not in caplog.text


def test_tokens_are_never_shown() -> None:
    settings = shop_settings(read_token=READ, ops_token=OPS)
    for shown in (repr(settings), repr(Access(READ, OPS))):
        assert READ not in shown
        assert OPS not in shown


@pytest.mark.parametrize(
    "tokens", [{"read_token": "short"}, {"read_token": "with space in it"}, {"read_token": READ, "ops_token": READ}]
)
def test_tokens_that_cannot_be_are_refused(tokens: dict[str, str]) -> None:
    with pytest.raises(MillraceError, match="token"):
        shop_settings(**tokens)


def test_a_worker_serves_its_own_two_pages_on_loopback_and_none_of_fausts(tmp_path: Path) -> None:
    settings = shop_settings(state_dir=tmp_path, home=tmp_path)
    app = build_app(sales_topology(settings), settings)
    assert app.conf.web_bind == "127.0.0.1"
    served = {str(prefix): str(blueprint) for prefix, blueprint in app.web.blueprints._enabled}
    assert served == {"": "faust.web.apps.production_index:blueprint"}
