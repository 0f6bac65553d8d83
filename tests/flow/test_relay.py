"""What the relay promises, whatever dies: each event at least once, in order per user, and where it lies is known."""

import asyncio
import random
from contextlib import suppress
from pathlib import Path

import pytest
from relaying import (
    TOPIC,
    Died,
    MemorySender,
    Stumbling,
    assert_first_times_in_order,
    commit,
    event,
    left,
    relaying,
    rows,
    shop_database,
    start,
    until,
    until_all_sent,
)

from streams.errors import MillraceError
from streams.events import OrderEvent
from topologies.orders.leases import Kept, Leases, Owner, owner_is_gone, read_leases
from topologies.orders.outbox import Place, Post
from topologies.orders.places import Places
from topologies.orders.sending import NotSent


async def test_every_row_is_sent_once_in_order_and_noted_where_it_lies(tmp_path: Path) -> None:
    sender = MemorySender()
    async with shop_database(tmp_path) as database:
        await commit(database, *(event(user, 100 * user + n) for n in range(20) for user in range(1, 8)))
        async with relaying(database, sender):
            await until_all_sent(database)
        found = await rows(database)
    assert len(sender.events) == len(set(sender.events)) == len(found) == 140
    for _, name, key, partition, offset in found:
        assert partition is not None
        assert offset is not None
        assert sender.log[partition][offset] == (key, name)
    assert_first_times_in_order(sender, found)


async def test_what_is_rolled_back_is_never_sent(tmp_path: Path) -> None:
    sender = MemorySender()
    async with shop_database(tmp_path) as database, relaying(database, sender):
        with suppress(MillraceError):
            await commit(database, event(1, 1), OrderEvent(2, 1, 1, event_id="large", region="x" * 70_000))
        await commit(database, event(1, 3))
        await until_all_sent(database)
    assert sender.events == ["order-3-placed"]


@pytest.mark.parametrize("seed", range(4))
async def test_relays_that_die_anywhere_lose_nothing_and_let_nothing_overtake(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    sender = MemorySender(before=Stumbling(chance, (NotSent, Died)))
    async with shop_database(tmp_path) as database:
        total, deaths = 0, 0
        running = start(database, sender, "relay-0", lease_s=0.1, batch=chance.choice((1, 7, 50)))
        async with asyncio.timeout(60):
            while total < 120 or await left(database):
                if total < 120:
                    some = [event(chance.randrange(6), total + n) for n in range(chance.randrange(1, 12))]
                    await commit(database, *some)
                    total += len(some)
                running.relay.ring()
                await asyncio.sleep(0.005)
                if running.task.done() or chance.random() < 0.02:
                    deaths += 1
                    await running.kill()
                    running = start(database, sender, f"relay-{deaths}", lease_s=0.1, batch=chance.choice((1, 7, 50)))
        await running.end()
        found = await rows(database)
    assert deaths > 0
    assert set(sender.events) == {name for _, name, *_ in found}
    assert len(found) == total
    assert_first_times_in_order(sender, found)


async def test_a_relay_that_dies_between_publishing_and_noting_is_followed_by_one_that_sends_the_same_again(
    tmp_path: Path,
) -> None:
    sender = MemorySender()
    async with shop_database(tmp_path) as database:
        await commit(database, *(event(n % 3, n) for n in range(10)))
        first = start(database, sender, "first", lease_s=0.1)
        first.relay.sent = lambda _: setattr(first.database, "dead", True)
        await until(lambda: first.database.dead)
        await first.kill()
        assert await left(database) == 10
        assert len(sender.events) == 10
        async with relaying(database, sender, "second"):
            await until_all_sent(database)
        found = await rows(database)
    assert sorted(sender.events) == sorted(2 * [name for _, name, *_ in found])
    assert_first_times_in_order(sender, found)


async def test_a_place_that_is_noted_is_one_where_the_event_lies_also_after_repeats(tmp_path: Path) -> None:
    sender = MemorySender()
    async with shop_database(tmp_path) as database:
        await commit(database, *(event(n % 3, n) for n in range(30)))
        sender.before = Stumbling(random.Random(3), (NotSent,), one_in=20)
        async with relaying(database, sender):
            await until_all_sent(database)
        for _, name, key, partition, offset in await rows(database):
            assert sender.log[partition or 0][offset or 0] == (key, name)
    assert len(sender.events) > 30


async def test_rows_for_a_topic_that_is_refused_hold_up_no_others_and_go_once_it_is_not(tmp_path: Path) -> None:
    sender = MemorySender(refused={"payments"})
    async with shop_database(tmp_path) as database:
        for n in range(0, 60, 2):
            await commit(database, event(n % 3, n), topic="payments")
            await commit(database, event(n % 3, n + 1))
        running = start(database, sender, "a", batch=7)
        running.relay.refused_s = 0.2
        await until(lambda: len(sender.events) == 30)
        await until(lambda: sender.tried > 3)
        assert running.relay.figures.published == 30
        assert not running.relay.figures.connected
        assert (await left(database), len(sender.events)) == (30, 30)
        await until(lambda: running.relay.figures.waiting == 30)  # all that waits, also what is left out
        sender.refused = set()
        await until_all_sent(database)
        await until(lambda: running.relay.figures.connected)
        await running.end()
        found = await rows(database)
    assert sorted(sender.events) == sorted(name for _, name, *_ in found)
    for user in range(3):
        numbers = [int(name.split("-")[1]) for name in sender.first_times(f"user-{user}".encode())]
        for topic in (0, 1):
            mine = [number for number in numbers if number % 2 == topic]
            assert mine == sorted(mine)


async def test_a_row_that_is_committed_after_later_ones_were_sent_is_sent_too(tmp_path: Path) -> None:
    """Ids of several users do not ascend in commit order: 1 may be there after 2 was sent."""
    sender = MemorySender()
    async with shop_database(tmp_path) as database:
        await commit(database, event(1, 1), event(2, 2))
        async with relaying(database, sender):
            await until_all_sent(database)
            await database.write(lambda c: c.exec_driver_sql("UPDATE outbox SET id = id + 100 WHERE id = 2"))
            await commit(database, event(3, 3))
            await database.write(
                lambda c: c.exec_driver_sql("UPDATE outbox SET id = 2 WHERE event_id = 'order-3-placed'")
            )
            await until(lambda: "order-3-placed" in sender.events)


async def test_a_relay_whose_leases_have_lapsed_ends_without_giving_them_back(tmp_path: Path) -> None:
    async with shop_database(tmp_path) as database:
        running = start(database, MemorySender(), "a", lease_s=0.2)
        await until(lambda: len(running.relay.figures.shards) == 8)
        running.relay.leases.keep = away  # type: ignore[method-assign,assignment]
        await until(lambda: not running.relay.leases.held)
        await running.end()
        assert {lease.owner for lease in await database.read(read_leases)} == {"a"}


async def test_only_one_relay_works_on_a_shard_and_another_takes_over_when_it_ends(tmp_path: Path) -> None:
    sender = MemorySender()
    async with shop_database(tmp_path) as database:
        first, second = start(database, sender, "a", lease_s=30), start(database, sender, "b", lease_s=30)
        await until(lambda: len(first.relay.figures.shards | second.relay.figures.shards) == 8)
        assert not first.relay.figures.shards & second.relay.figures.shards
        keeper, other = (first, second) if first.relay.figures.shards else (second, first)
        await keeper.end()  # gives back, so nobody has to wait for 30 s
        await other.end()
        third = start(database, sender, "c", lease_s=30)
        await until(lambda: len(third.relay.figures.shards) == 8)
        await third.end()


async def test_the_shards_of_a_relay_that_was_killed_are_taken_after_its_lease(tmp_path: Path) -> None:
    sender = MemorySender()
    async with shop_database(tmp_path) as database:
        first = start(database, sender, "a")
        await until(lambda: len(first.relay.figures.shards) == 8)
        await first.kill()
        await commit(database, event(1, 1))
        async with relaying(database, sender, "b") as second:
            await until_all_sent(database)
            assert len(second.figures.shards) == 8


async def test_a_relay_that_was_paused_sends_again_only_what_is_known_and_overtakes_nothing(tmp_path: Path) -> None:
    sender, slow = MemorySender(), MemorySender(delay_s=0.05)
    slow.log = sender.log
    async with shop_database(tmp_path) as database:
        await commit(database, *(event(1, n) for n in range(20)))
        zombie = start(database, slow, "zombie", lease_s=0.2)
        await until(lambda: bool(sender.events))
        zombie.relay.leases.keep = away  # type: ignore[method-assign,assignment]  # it renews no more, and sends on
        async with relaying(database, sender, "other", lease_s=0.2):
            await commit(database, *(event(1, n) for n in range(20, 30)))
            await until_all_sent(database)
            await until(lambda: zombie.relay.figures.published > 0)
            await zombie.end()
        found = await rows(database)
    assert len(sender.events) > len(found)
    assert_first_times_in_order(sender, found)


async def away(_: object) -> Kept:
    raise MillraceError("not now")


async def test_a_database_that_is_away_after_sending_is_waited_for_and_nothing_is_sent_twice(tmp_path: Path) -> None:
    sender = MemorySender()
    async with shop_database(tmp_path) as database:
        await commit(database, event(1, 1))
        told: list[str] = []
        running = start(database, sender, "a", lease_s=30)
        running.relay.tell = told.append
        refused = await refusing(database, sender, times=3)
        await until_all_sent(database)
        await running.end()
    assert sender.events == ["order-1-placed"]
    assert refused() == 0
    assert any("wait to be noted" in line for line in told)


async def refusing(database: object, sender: MemorySender, times: int):  # type: ignore[no-untyped-def]
    """Let the database refuse so many writes once something was sent."""
    left_over = [times]
    write = database.write  # type: ignore[attr-defined]

    async def refuse(transaction):  # type: ignore[no-untyped-def]
        if sender.events and left_over[0]:
            left_over[0] -= 1
            raise MillraceError("the database is away")
        return await write(transaction)

    object.__setattr__(database, "write", refuse)
    return lambda: left_over[0]


async def test_rows_that_are_sent_and_old_are_deleted_and_no_others(tmp_path: Path) -> None:
    sender = MemorySender()
    async with shop_database(tmp_path) as database:
        await commit(database, *(event(n, n) for n in range(50)))
        running = start(database, sender, "a")
        running.relay.keep_s = 0.05
        await until(lambda: running.relay.figures.forgotten == 50)
        sender.before = Stumbling(random.Random(1), (NotSent,), one_in=1)
        await commit(database, event(1, 100))
        await asyncio.sleep(0.3)  # longer than it is kept once it is sent
        assert await left(database) == 1
        await running.end()


async def test_who_waits_for_a_place_is_told_at_once_by_a_relay_of_the_process(tmp_path: Path) -> None:
    sender = MemorySender()
    async with shop_database(tmp_path) as database:
        places = Places(database, look_s=60)
        running = start(database, sender, "a")
        running.relay.sent = places.tell
        await commit(database, event(1, 1))
        assert await places.of("order-1-placed", 10) == Place(TOPIC, 0, 0)
        await running.end()


async def test_who_waits_for_a_place_finds_it_in_the_database_when_another_process_relays(tmp_path: Path) -> None:
    sender = MemorySender()
    async with shop_database(tmp_path) as database:
        places = Places(database, look_s=0.01)
        await commit(database, event(1, 1))
        assert await places.of("order-1-placed", 0.05) is None
        async with relaying(database, sender):
            both = await asyncio.gather(places.of("order-1-placed", 10), places.of("order-1-placed", 10))
    assert set(both) == {Place(TOPIC, 0, 0)}
    assert str(both[0]) == "order-events:0:0"


def test_an_owner_is_gone_when_its_process_is_and_never_when_it_is_elsewhere() -> None:
    here = Owner.this()
    assert not owner_is_gone(here.text)
    assert owner_is_gone(Owner(here.place, here.pid, here.started_s - 100).text)
    assert owner_is_gone(Owner(here.place, 2**22 + 1, 0.0).text)
    assert not owner_is_gone(Owner("elsewhere/1", 2**22 + 1, 0.0).text)
    assert not owner_is_gone("somebody")


def test_a_process_of_another_machine_of_the_same_name_is_not_gone() -> None:
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        pytest.skip("this system does not say when it was started")
    here = Owner.this().place
    there = here.replace(boot.read_text().strip(), "b3b9d0f2-7c1e-4a53-9d41-0f6c2a8e5d17")
    assert there != here
    assert not owner_is_gone(Owner(there, 2**22 + 1, 0.0).text)


async def test_a_lease_is_not_held_longer_than_it_was_renewed_for(tmp_path: Path) -> None:
    now = [0.0]
    leases = Leases(owner="a", lease_s=6, clock=lambda: now[0])
    async with shop_database(tmp_path) as database:
        leases.kept(await database.write(leases.keep))
        assert len(leases.held) == 8
        now[0] = 5.9
        assert len(leases.held) == 8
        now[0] = 6.0
        assert not leases.held


def test_an_event_without_an_id_of_its_own_is_not_posted() -> None:
    with pytest.raises(ValueError, match="event_id"):
        Post(TOPIC, OrderEvent(1, 1, 1))


async def test_a_lease_is_taken_only_after_it_stood_still_for_as_long_as_it_lasts(tmp_path: Path) -> None:
    now = [0.0]
    ours, others = (
        Leases(owner=name, lease_s=6, clock=lambda: now[0], gone=lambda _: False) for name in ("ours", "others")
    )
    async with shop_database(tmp_path) as database:

        async def keep(leases: Leases) -> int:
            leases.kept(await database.write(leases.keep))
            return len(leases.held)

        assert await keep(ours) == 8
        for _ in range(3):
            assert await keep(others) == 0
            now[0] += 5.9
            assert await keep(others) == 0  # it has stood still since, but not for long enough
            await asyncio.sleep(0.002)  # renewals are told from each other by their time in ms
            assert await keep(ours) == 8
        assert await keep(others) == 0
        now[0] += 6.0
        assert await keep(others) == 8
        assert await keep(ours) == 0
