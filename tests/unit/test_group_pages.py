"""What processes say whose work is a side effect: a member of two groups, a relay."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from streams.consuming import Meter
from streams.log import TP
from topologies.group_pages import group_pages
from topologies.orders.relay import Figures
from topologies.orders.relay_running import relay_pages
from topologies.views.guard import Access

PAID, STEPS = TP("order-events", 0), TP("payment-notifications", 1)
Client = TestClient[Any, Any]


@pytest.fixture
def meters() -> dict[str, Meter]:
    return {
        "payments": Meter(position={PAID: 3}, end={PAID: 5}, assigned=frozenset({PAID}), connected=True),
        "saga": Meter(position={STEPS: 1}, end={STEPS: 90}, assigned=frozenset({STEPS}), connected=True),
    }


@pytest.fixture
async def client(meters: dict[str, Meter]) -> AsyncIterator[Client]:
    async with TestClient(TestServer(group_pages(meters, lambda: {"saga_undecodable": 2}, Access()))) as client:
        yield client


async def test_lag_and_connection_of_every_group_are_metrics(client: Client, meters: dict[str, Meter]) -> None:
    meters["saga"].connected = False
    shown = (await (await client.get("/metrics")).text()).splitlines()
    for line in (
        'millrace_group_lag{group="payments",partition="0",topic="order-events"} 2.0',
        'millrace_group_lag{group="saga",partition="1",topic="payment-notifications"} 89.0',
        'millrace_group_connected{group="payments"} 1.0',
        'millrace_group_connected{group="saga"} 0.0',
        "millrace_saga_undecodable_total 2.0",
    ):
        assert line in shown
    assert len([line for line in shown if line.startswith("# TYPE millrace_group_lag ")]) == 1


@pytest.mark.parametrize("away", ["payments", "saga"])
async def test_it_is_ready_while_every_group_has_let_it_in(client: Client, meters: dict[str, Meter], away: str) -> None:
    response = await client.get("/readyz")
    assert (response.status, await response.json()) == (200, {"ready": True, "partitions": [[*PAID], [*STEPS]]})
    meters[away].connected = False
    response = await client.get("/readyz")
    assert (response.status, (await response.json())["ready"]) == (503, False)


async def test_a_relay_is_ready_while_all_goes_well_and_says_what_waits() -> None:
    figures = Figures(shards=frozenset({2, 1}), waiting=3)
    async with TestClient(TestServer(relay_pages(figures, Access()))) as client:
        for connected, status in ((False, 503), (True, 200)):
            figures.connected = connected
            response = await client.get("/readyz")
            assert response.status == status
            assert await response.json() == {"ready": connected, "shards": [1, 2], "waiting": 3}
        assert "millrace_relay_waiting 3.0" in (await (await client.get("/metrics")).text()).splitlines()
