"""The order API over HTTP: what it answers, to whom, and what it does not let through."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient, TestServer
from aiokafka.errors import OutOfOrderSequenceNumber
from openapi_spec_validator import validate
from ordering import (
    OTHER,
    PIECES,
    POINTS,
    PRICE,
    TOPIC,
    USER,
    USERS,
    Bookkeeping,
    MemoryLine,
    bookkeeping,
    sqlite_url,
)
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from streams.cluster import Cluster
from streams.codecs import decoder, user_key
from streams.events import UserActivity
from topologies.orders import outbox
from topologies.orders.api.activity import KafkaLine, Line, Teller
from topologies.orders.api.bodies import LINES
from topologies.orders.api.server import orders_app
from topologies.orders.api.shop import Shop
from topologies.orders.database import Database
from topologies.orders.order import event_id
from topologies.orders.outbox import Place
from topologies.orders.places import Places
from topologies.orders.schema import SHARDS, OrderStatus
from topologies.views.guard import Access

Client = TestClient[Any, Any]
ONE: dict[str, Any] = {"items": [{"productId": 1, "quantity": 2}]}


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Bookkeeping]:
    async with bookkeeping(sqlite_url(tmp_path)) as books:
        yield books


def shop_of(books: Bookkeeping, publish_wait_s: float = 0) -> Shop:
    places = Places(books.database, look_s=0.01)
    return Shop(books.database, books.counter, books.transitions, places, publish_wait_s)


async def client_of(shop: Shop, access: Access | None = None, line: Line | None = None) -> Client:
    client: Client = TestClient(TestServer(orders_app(shop, Teller(line or MemoryLine()), access)))
    await client.start_server()
    return client


@pytest.fixture
async def client(books: Bookkeeping) -> AsyncIterator[Client]:
    client = await client_of(shop_of(books))
    yield client
    await client.close()


async def asked(client: Client, method: str, path: str, **more: Any) -> tuple[int, dict[str, Any]]:
    """Status and body of an answer, which is held to what the document says of it."""
    async with client.request(method, path, **more) as response:
        raw, status = await response.read(), response.status
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    found: dict[str, Any] = orjson.loads(raw)
    document = await (await client.get("/openapi.json")).json()
    template = path.partition("?")[0]
    for known in document["paths"]:
        if len(known.split("/")) == len(template.split("/")) and all(
            a == b or a.startswith("{") for a, b in zip(known.split("/"), template.split("/"), strict=True)
        ):
            told = document["paths"][known][method.lower()]["responses"][str(status)]
            (content,) = told["content"].values()
            jsonschema.validate(found, {**content["schema"], "components": document["components"]})
            return status, found
    raise AssertionError(f"{path} is not in the document")


async def order(client: Client, body: Any = None, user: int | str | None = USER, **headers: str) -> Any:
    given = {**({} if user is None else {"X-USER-ID": str(user)}), **headers}
    return await asked(client, "POST", "/api/orders", data=orjson.dumps(ONE if body is None else body), headers=given)


def kind(body: dict[str, Any]) -> str:
    return str(body["type"]).removeprefix("urn:millrace:problem:")


async def test_an_order_is_answered_with_all_that_it_is(client: Client, books: Bookkeeping) -> None:
    status, placed = await order(client)
    assert status == 201
    assert placed == {
        "orderId": placed["orderId"],
        "userId": USER,
        "status": "placed",
        "amount": 2 * PRICE[1],
        "pointsUsed": 2 * PRICE[1],
        "currency": "KRW",
        "region": "seoul",
        "createdAtMs": placed["createdAtMs"],
        "updatedAtMs": placed["createdAtMs"],
        "reason": None,
        "items": [{"productId": 1, "category": "stationery", "quantity": 2, "price": PRICE[1]}],
        "after": None,
    }
    assert await asked(client, "GET", f"/api/orders/{placed['orderId']}") == (200, placed)
    assert await asked(client, "GET", f"/api/users/{USER}/points") == (
        200,
        {"userId": USER, "points": POINTS - 2 * PRICE[1]},
    )
    await books.assert_conserved()


async def test_a_product_in_two_lines_is_ordered_as_often_as_both_say(client: Client, books: Bookkeeping) -> None:
    lines = [{"productId": 1, "quantity": 1}, {"productId": 2, "quantity": 1}, {"productId": 1, "quantity": 2}]
    _, placed = await order(client, {"items": lines})
    assert [(item["productId"], item["quantity"]) for item in placed["items"]] == [(1, 3), (2, 1)]
    assert await books.left(1) == PIECES - 3


@pytest.mark.parametrize(
    ("user", "body", "status", "problem"),
    [
        (9, ONE, 404, "unknown-user"),
        (USER, {"items": [{"productId": 99, "quantity": 1}]}, 404, "unknown-product"),
        (USER, {"items": [{"productId": 1, "quantity": 29}]}, 409, "not-enough-points"),
        (None, ONE, 400, "bad-parameter"),
        ("me", ONE, 400, "bad-parameter"),
        ("-1", ONE, 400, "bad-parameter"),
        ("9007199254740992", ONE, 400, "bad-parameter"),
        (USER, {}, 400, "bad-body"),
        (USER, [], 400, "bad-body"),
        (USER, {"items": []}, 400, "bad-body"),
        (USER, {"items": [{"productId": 1, "quantity": 0}]}, 400, "bad-body"),
        (USER, {"items": [{"productId": 1, "quantity": 1.5}]}, 400, "bad-body"),
        (USER, {"items": [{"productId": "1", "quantity": 1}]}, 400, "bad-body"),
        (USER, {"items": [{"productId": 1}]}, 400, "bad-body"),
        (USER, {"items": [{"productId": 1, "quantity": 1}] * (LINES + 1)}, 400, "bad-body"),
        (USER, {**ONE, "coupon": 1}, 400, "bad-body"),
    ],
)
async def test_each_refusal_has_a_type_of_its_own_and_changes_nothing(
    client: Client, books: Bookkeeping, user: int | str | None, body: Any, status: int, problem: str
) -> None:
    before = await books.everything()
    found = await order(client, body, user)
    assert (found[0], kind(found[1])) == (status, problem)
    assert await books.everything() == before


async def test_what_is_sold_out_says_what_is_left(books: Bookkeeping, client: Client) -> None:
    async def rich(connection: AsyncConnection) -> None:
        await connection.execute(text("UPDATE users SET points = 1000000000"))

    await books.database.write(rich)
    status, found = await order(client, {"items": [{"productId": 1, "quantity": PIECES + 1}]})
    assert (status, kind(found), found["productId"], found["available"]) == (409, "out-of-stock", 1, PIECES)


@pytest.mark.parametrize("raw", [b"", b" ", b"{", b"\xff\xfe", b"[" * 10_000, b'{"items":\x00}', b"null", b"1e999"])
async def test_what_is_no_json_is_a_bad_body(client: Client, raw: bytes) -> None:
    found = await asked(client, "POST", "/api/orders", data=raw, headers={"X-USER-ID": "123"})
    assert (found[0], kind(found[1])) == (400, "bad-body")


async def test_a_body_is_neither_large_nor_endless(client: Client) -> None:
    headers = {"X-USER-ID": "123"}
    found = await asked(client, "POST", "/api/orders", data=b" " * 20_000, headers=headers)
    assert (found[0], kind(found[1])) == (413, "too-large")

    async def endless() -> AsyncIterator[bytes]:
        yield b"{"

    found = await asked(client, "POST", "/api/orders", data=endless(), headers=headers)
    assert found[0] == 411


async def test_a_repeat_with_the_key_answers_the_same_order_and_says_so(client: Client, books: Bookkeeping) -> None:
    key = {"Idempotency-Key": "a-1"}
    _, first = await order(client, **key)
    headers = {"X-USER-ID": str(USER), **key}
    async with client.post("/api/orders", json=ONE, headers=headers) as response:
        assert (response.status, await response.json()) == (201, first)
        assert response.headers["Idempotency-Replayed"] == "true"
        assert response.headers["Location"] == f"/api/orders/{first['orderId']}"
    status, found = await order(client, {"items": [{"productId": 1, "quantity": 3}]}, **key)
    assert (status, kind(found)) == (422, "idempotency-key-reused")
    assert await books.left(1) == PIECES - 2
    await books.assert_conserved()


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "한글"])
async def test_a_key_is_short_and_printable(client: Client, key: str) -> None:
    status, found = await order(client, **{"Idempotency-Key": key})
    assert (status, found["parameter"]) == (400, "Idempotency-Key")


async def test_a_header_that_is_given_twice_is_no_header(client: Client) -> None:
    async with client.post("/api/orders", json=ONE, headers=[("X-USER-ID", "123"), ("X-USER-ID", "1001")]) as response:
        assert response.status == 400


async def test_cancelling_gives_back_and_may_be_repeated(client: Client, books: Bookkeeping) -> None:
    _, placed = await order(client)
    path = f"/api/orders/{placed['orderId']}/cancel"
    for _ in range(2):
        status, found = await asked(client, "POST", path, headers={"X-USER-ID": str(USER)})
        assert (status, found["status"], found["reason"]) == (200, "cancelled", "by the customer")
    status, found = await asked(client, "POST", path.replace("cancel", "refund"))
    assert (status, kind(found), found["orderStatus"]) == (409, "wrong-status", "cancelled")
    assert (await books.left(1), await books.points()) == (PIECES, POINTS)
    await books.assert_conserved()


async def test_refunding_is_for_what_is_paid_and_may_be_repeated(client: Client, books: Bookkeeping) -> None:
    _, placed = await order(client)
    path = f"/api/orders/{placed['orderId']}/refund"
    status, found = await asked(client, "POST", path)
    assert (status, kind(found), found["orderStatus"]) == (409, "wrong-status", "placed")
    await books.pay(placed["orderId"])
    status, found = await asked(client, "POST", path.replace("refund", "cancel"))
    assert (status, kind(found), found["orderStatus"]) == (409, "wrong-status", "paid")
    for _ in range(2):
        status, found = await asked(client, "POST", path)
        assert (status, found["status"]) == (200, "refunded")
    await books.assert_conserved()


@pytest.mark.parametrize("step", ["", "/cancel", "/refund"])
async def test_an_order_of_another_user_is_unknown(client: Client, books: Bookkeeping, step: str) -> None:
    _, placed = await order(client)
    before = await books.everything()
    method = "POST" if step else "GET"
    for path, asking in ((placed["orderId"], OTHER), (5, USER), (5, None)):
        headers = {} if asking is None else {"X-USER-ID": str(asking)}
        status, found = await asked(client, method, f"/api/orders/{path}{step}", headers=headers)
        assert (status, kind(found)) == (404, "unknown-order")
    assert await books.everything() == before


async def published(books: Bookkeeping, order_id: int, status: OrderStatus, place: Place) -> None:
    """Note a place, as a relay of another process does."""

    async def mark(connection: AsyncConnection) -> None:
        rows = await outbox.unsent(connection, range(SHARDS), 1_000)
        (row,) = [row for row in rows if row.event_id == event_id(order_id, status)]
        await outbox.mark(connection, {row.id: place})

    await books.database.write(mark)


async def test_an_order_says_where_its_newest_event_lies_once_that_is_known(client: Client, books: Bookkeeping) -> None:
    _, placed = await order(client)
    number = placed["orderId"]
    await published(books, number, OrderStatus.PLACED, Place(TOPIC, 2, 17))
    assert (await asked(client, "GET", f"/api/orders/{number}"))[1]["after"] == f"{TOPIC}:2:17"
    await asked(client, "POST", f"/api/orders/{number}/cancel")
    assert (await asked(client, "GET", f"/api/orders/{number}"))[1]["after"] == f"{TOPIC}:2:17"
    await published(books, number, OrderStatus.CANCELLED, Place(TOPIC, 2, 19))
    assert (await asked(client, "GET", f"/api/orders/{number}"))[1]["after"] == f"{TOPIC}:2:19"


async def test_an_answer_waits_for_the_place_of_its_event_a_while_and_not_longer(books: Bookkeeping) -> None:
    client = await client_of(shop_of(books, publish_wait_s=0.1))
    assert (await order(client))[1]["after"] is None
    await client.close()
    client = await client_of(shop_of(books, publish_wait_s=20))

    async def relay() -> None:
        while len(await books.events()) < 2:
            await asyncio.sleep(0.005)
        number = (await books.events())[1].order_id
        assert isinstance(number, int)
        await published(books, number, OrderStatus.PLACED, Place(TOPIC, 0, 3))

    (_, placed), _ = await asyncio.gather(order(client), relay())
    assert placed["after"] == f"{TOPIC}:0:3"
    await client.close()


async def test_products_come_in_pages(client: Client) -> None:
    found, cursor = [], ""
    while True:
        status, page = await asked(client, "GET", f"/api/products?limit=2{cursor}")
        assert status == 200
        found += page["products"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert [product["productId"] for product in found] == [1, 2, 3, 4, 5]
    assert all(product["stock"] == PIECES for product in found)
    assert (await asked(client, "GET", "/api/products?limit=0"))[0] == 400
    assert (await asked(client, "GET", "/api/products?page=2"))[0] == 400


async def test_a_page_of_another_origin_cannot_order_in_its_visitors_name(client: Client, books: Bookkeeping) -> None:
    _, placed = await order(client)
    path = f"/api/orders/{placed['orderId']}/cancel"
    status, found = await asked(client, "POST", path, headers={"Origin": "https://elsewhere.example"})
    assert (status, kind(found)) == (403, "foreign-origin")
    own = f"http://{client.host}:{client.port}"
    assert (await asked(client, "POST", path, headers={"Origin": own}))[0] == 200
    for foreign in ("null", "http://[", "http://[x]"):
        async with client.post(path, data=FormData({"a": "b"}), headers={"Origin": foreign}) as response:
            assert response.status == 403


async def test_a_token_is_asked_for_where_one_is_set(books: Bookkeeping) -> None:
    client = await client_of(shop_of(books), Access("order-token", "operations-token", purpose="orders"))
    try:
        async with client.post("/api/orders", json=ONE, headers={"X-USER-ID": "123"}) as response:
            assert response.status == 401
            assert "for orders" in (await response.json())["detail"]
        allowed = {"Authorization": "Bearer order-token"}
        async with client.post("/api/orders", json=ONE, headers={"X-USER-ID": "123", **allowed}) as response:
            assert response.status == 201
        assert (await client.get("/metrics", headers=allowed)).status == 401
        assert (await client.get("/metrics", headers={"Authorization": "Bearer operations-token"})).status == 200
        assert [(await client.get(path)).status for path in ("/healthz", "/readyz", "/docs")] == [200, 200, 200]
        document = await (await client.get("/openapi.json", headers=allowed)).json()
        assert document["paths"]["/api/orders"]["post"]["security"] == [{"orders": []}]
    finally:
        await client.close()


async def test_the_document_is_openapi_and_has_every_route(client: Client) -> None:
    document = await (await client.get("/openapi.json")).json()
    validate(document)
    assert client.app is not None
    routes = {
        (route.resource.canonical, route.method.lower())
        for route in client.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert {(path, method) for path, methods in document["paths"].items() for method in methods} == routes
    responses = document["paths"]["/api/orders"]["post"]["responses"]
    assert set(responses) == {"201", "400", "404", "409", "411", "413", "422", "503"}
    assert document["info"]["title"] == "Millrace orders"


async def test_a_method_that_there_is_not_is_405_and_a_path_404(client: Client) -> None:
    async with client.delete("/api/orders/1000000000000") as response:
        assert response.status == 405
        assert "GET" in response.headers["Allow"]
    async with client.get("/api/order") as response:
        assert response.status == 404
        assert response.content_type == "application/problem+json"


async def test_an_activity_is_an_event_of_its_user_and_of_now(books: Bookkeeping) -> None:
    line = MemoryLine()
    client = await client_of(shop_of(books), line=line)
    told = {"eventType": "search.performed", "query": "tea", "sessionId": "s1", "eventId": "mine"}
    headers = {"X-USER-ID": "123"}
    answer = (202, {"eventId": "mine", "after": "user-activity:0:0"})
    assert await asked(client, "POST", "/api/activity", json=told, headers=headers) == answer
    ((key, value),) = line.records
    event = decoder(UserActivity)(value)
    assert key == user_key(123)
    assert (event.user_id, event.event_type, event.query, event.session_id) == (123, "search.performed", "tea", "s1")
    assert isinstance(event.occurred_at, int)
    assert abs(event.occurred_at / 1000 - time.time()) < 60
    for body in ({"eventType": "order.placed"}, {"eventType": "product.viewed", "category": "a\x1fb"}):
        status, found = await asked(client, "POST", "/api/activity", json=body, headers=headers)
        assert (status, kind(found)) == (400, "bad-body")
    assert len(line.records) == 1
    await client.close()


async def test_a_producer_that_refuses_once_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Producer:
        made = stopped = 0

        def __init__(self, **_: Any) -> None:
            self.number, Producer.made = Producer.made, Producer.made + 1

        async def start(self) -> None: ...

        async def send_and_wait(self, topic: str, value: bytes, key: bytes) -> Place:
            if self.number == 0:
                raise OutOfOrderSequenceNumber  # of one that lost count: it answers so from then on
            return Place(topic, 0, 7)

        async def stop(self) -> None:
            Producer.stopped += 1

    monkeypatch.setattr("topologies.orders.api.activity.AIOKafkaProducer", Producer)
    line = KafkaLine(Cluster("nobody:1"), "user-activity")
    with pytest.raises(OutOfOrderSequenceNumber):
        await line.send(b"user-1", b"{}")
    assert [await line.send(b"user-1", b"{}") for _ in range(2)] == [Place("user-activity", 0, 7)] * 2
    await line.close()
    assert (Producer.made, Producer.stopped) == (2, 2)


async def test_an_activity_that_kafka_does_not_take_is_not_acknowledged(books: Bookkeeping) -> None:
    client = await client_of(shop_of(books), line=MemoryLine(away=True))
    told = {"eventType": "product.viewed", "productId": 1, "eventId": "mine"}
    status, found = await asked(client, "POST", "/api/activity", json=told, headers={"X-USER-ID": "123"})
    assert (status, kind(found), found["eventId"]) == (503, "cluster-away", "mine")
    await client.close()


async def test_readiness_is_that_of_the_database(client: Client, books: Bookkeeping, tmp_path: Path) -> None:
    assert (await asked(client, "GET", "/readyz"))[0] == 200

    async def forget(connection: AsyncConnection) -> None:
        await connection.execute(text("DELETE FROM alembic_version"))

    await books.database.write(forget)
    status, found = await asked(client, "GET", "/readyz")
    assert status == 503
    assert "millrace db migrate" in found["detail"]


async def test_a_database_that_is_locked_is_busy_and_nothing_is_changed(tmp_path: Path) -> None:
    async with bookkeeping(sqlite_url(tmp_path), wait_s=0.2) as books, Database.open(sqlite_url(tmp_path)) as other:
        client = await client_of(shop_of(books))
        before = await books.everything()

        async def hold(connection: AsyncConnection) -> None:
            async with client.post("/api/orders", json=ONE, headers={"X-USER-ID": "123"}) as response:
                assert (response.status, kind(await response.json())) == (503, "busy")
                assert response.headers["Retry-After"] == "1"

        await other.write(hold)
        assert await books.everything() == before
        assert (await order(client))[0] == 201
        await client.close()


@pytest.mark.parametrize("trouble", ["PRAGMA query_only = ON", "PRAGMA max_page_count = 1", "DROP TABLE order_lines"])
async def test_a_database_that_takes_nothing_now_is_no_fault_of_ours(tmp_path: Path, trouble: str) -> None:
    async with bookkeeping(sqlite_url(tmp_path)) as books:
        client = await client_of(shop_of(books))
        await books.database.write(lambda connection: connection.exec_driver_sql(trouble))
        headers = {"X-USER-ID": "123"}
        answers = [await asked(client, "POST", "/api/orders", json=ONE, headers=headers) for _ in range(20)]
        assert (answers[-1][0], kind(answers[-1][1])) == (503, "no-database")
        assert {status for status, _ in answers} <= {201, 503}
        await client.close()


async def test_metrics_count_orders_refusals_and_what_waits(client: Client) -> None:
    await order(client, **{"Idempotency-Key": "k"})
    await order(client, **{"Idempotency-Key": "k"})
    await order(client, user=9)
    shown = await (await client.get("/metrics")).text()
    for line in (
        "millrace_orders_placed_total 1.0",
        "millrace_orders_repeated_total 1.0",
        'millrace_orders_refused_total{type="unknown-user"} 1.0',
        'millrace_orders_amount_total{currency="KRW"} 7000.0',
        "millrace_orders_outbox_waiting 1.0",
        "millrace_orders_database_up 1.0",
        'millrace_orders_http_requests_total{method="POST",route="/api/orders",status="201"} 2.0',
    ):
        assert line in shown.splitlines()


async def test_many_at_once_are_all_answered_and_the_books_balance(client: Client, books: Bookkeeping) -> None:
    async def one(number: int) -> int:
        body = {"items": [{"productId": number % 5 + 1, "quantity": 1 + number % 3}]}
        headers = {"X-USER-ID": str(OTHER + number % USERS), "Idempotency-Key": f"k{number % 40}"}
        async with client.post("/api/orders", json=body, headers=headers) as response:
            return response.status

    statuses = await asyncio.gather(*(one(number) for number in range(80)))
    assert set(statuses) <= {201, 409, 422}
    assert statuses.count(201) > 20
    await books.assert_conserved()
