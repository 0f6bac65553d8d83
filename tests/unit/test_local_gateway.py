"""The local gateway's books: what passes by itself is no answer for now, everything else an error."""

import sqlite3
from pathlib import Path

import pytest

from topologies.payments import local_gateway
from topologies.payments.gateway import Charge, Charged, NoAnswer
from topologies.payments.local_gateway import LocalGateway, Manners, holdings

CHARGE = Charge("order-1", 500, "KRW")
PROMPT = Manners(latency_s=0.0, declines=0.0, timeouts=0.0, duplicates=0.0)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_gateway, "BUSY_S", 0.05)


@pytest.mark.parametrize("opened", [False, True])
async def test_locked_books_are_no_answer_and_the_same_charge_goes_through_afterwards(
    tmp_path: Path, opened: bool
) -> None:
    path = tmp_path / "gateway.db"
    gateway = LocalGateway(path, PROMPT)
    if opened:
        await gateway.charge(Charge("order-0", 300, "KRW"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(NoAnswer, match="locked"):
        await gateway.charge(CHARGE)
    with pytest.raises(NoAnswer, match="locked"):
        await gateway.give_back("order-1")
    other.execute("ROLLBACK")
    other.close()
    assert isinstance(await gateway.charge(CHARGE), Charged)
    await gateway.close()
    assert holdings(path)["order-1"].amount == 500


async def test_books_that_nobody_can_mend_by_waiting_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    path.write_text("this is no database, and never will be one" * 50)
    gateway = LocalGateway(path, PROMPT)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        await gateway.charge(CHARGE)
