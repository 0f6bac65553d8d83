"""What customers are told, how often, and what becomes of what cannot be delivered."""

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from streams.codecs import encode
from streams.consuming import Again, Backoff
from streams.dead_letters import told
from streams.events import OrderEvent, PaymentNotification
from streams.log import TP, Entry, LogError, Span
from streams.memory_log import MemoryLog, MemoryRecord
from streams.taking import Taking
from streams.topics import ORDER_EVENTS, PAYMENT_NOTIFICATIONS
from topologies.notifications.channels import Away, LogChannel, NotNow, Refused
from topologies.notifications.channels import Channel as AnyChannel
from topologies.notifications.delivering import CHANNEL_HEADER, Delivering
from topologies.notifications.notices import Notice
from topologies.notifications.notifying import Notifying, Resending

TP0 = TP("order-events", 0)
OTHER = TP("order-events", 1)
ASIDE = TP("order-notification-group.dead-letters", 0)
TOPICS = [ORDER_EVENTS, PAYMENT_NOTIFICATIONS]
Fails = Callable[[Notice], Exception | None]


class Channel:
    def __init__(self, name: str = "test", fails: Fails = lambda notice: None) -> None:
        self.name = name
        self.fails = fails
        self.sent: list[Notice] = []

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, notice: Notice) -> None:
        error = self.fails(notice)
        await asyncio.sleep(0)  # others are under way meanwhile
        if error is not None:
            raise error
        self.sent.append(notice)

    def ids(self) -> list[str]:
        return [notice.id for notice in self.sent]


class Unwritable(MemoryLog):
    async def append(self, appends: Mapping[TP, Sequence[Entry]]) -> dict[TP, list[Span]]:
        raise LogError("away")


class Shop:
    """A partition of orders, and a group that may be killed and started again."""

    def __init__(self, *channels: AnyChannel, tries: int = 3) -> None:
        self.channels, self.tries = channels, tries
        self.log = MemoryLog()
        self.now = 100.0
        self.committed = 0
        self.told: list[str] = []
        self.restart()

    def restart(self) -> None:
        self.delivering = Delivering(
            self.channels,
            self.log,
            ASIDE.topic,
            self.tries,
            backoff=Backoff(1, 1),
            patience=Backoff(8, 8),
            clock=lambda: self.now,
            tell=self.told.append,
        )
        notifying = Notifying(self.delivering, self.log, TOPICS, "KRW")
        self.handle = Taking(self.log, TOPICS, notifying)

    def order(self, number: int, user: int = 1, **fields: Any) -> int:
        event = OrderEvent(number, user, 50_000, **{"event_id": f"order-{number}-placed", **fields})
        return self.put(encode(event))

    def put(self, value: bytes) -> int:
        return self.log.put(TP0, Entry(b"user-1", value), 1_000)

    async def step(self, commit: bool = True) -> float | None:
        """One call with all that is not committed; seconds until the next, None if nothing is left."""
        records = self.log.records(TP0, self.committed)
        if not records:
            return None
        try:
            await self.handle(TP0, records)
        except Again as again:
            if commit and again.at is not None:
                self.committed = max(self.committed, again.at)
            return again.after_s
        if commit:
            self.committed = records[-1].offset + 1
        return None

    async def run(self, steps: int = 100) -> None:
        for _ in range(steps):
            wait_s = await self.step()
            if wait_s is None:
                return
            self.now += wait_s
        raise AssertionError(f"not done after {steps} calls")

    def letters(self) -> list[Any]:
        return [told(record.headers) for record in self.log.records(ASIDE)]


async def test_each_event_is_told_once_on_every_channel_with_its_own_id() -> None:
    one, two = Channel("one"), Channel("two")
    shop = Shop(one, two)
    for number in range(5):
        shop.order(number, user=number % 2)
    await shop.run()
    assert sorted(one.ids()) == sorted(two.ids()) == [f"order-{number}-placed" for number in range(5)]
    assert shop.committed == 5


async def test_notices_say_what_happened_in_the_money_of_the_order() -> None:
    channel = Channel()
    shop = Shop(channel)
    shop.order(17)
    shop.order(18, event_type="order.refunded", currency="EUR", event_id="b")
    payment = PaymentNotification("payment.failed", 18, 1, 5, "payment-18-failed")
    taking = Taking(shop.log, TOPICS, Notifying(shop.delivering, shop.log, TOPICS, "KRW"))
    await shop.run()
    await taking(TP("payment-notifications", 0), [MemoryRecord(0, 5, b"user-1", encode(payment))])
    placed, refunded, failed = channel.sent
    assert (placed.subject, placed.currency) == ("We have your order 17", "KRW")
    assert "50,000 KRW" in placed.text
    assert "500.00 EUR" in refunded.text
    assert (failed.kind, failed.order, failed.id) == ("payment.failed", "18", "payment-18-failed")


async def test_what_is_tried_again_holds_up_the_same_customer_and_no_other() -> None:
    failures = {"order-0-placed": 2}

    def fails(notice: Notice) -> Exception | None:
        failures[notice.id] = failures.get(notice.id, 0) - 1
        return NotNow("busy") if failures[notice.id] >= 0 else None

    channel = Channel(fails=fails)
    shop = Shop(channel)
    for number, user in ((0, 1), (1, 1), (2, 2)):
        shop.order(number, user)
    assert await shop.step()
    assert channel.ids() == ["order-2-placed"]
    assert shop.committed == 0
    await shop.run()
    assert channel.ids() == ["order-2-placed", "order-0-placed", "order-1-placed"]
    assert shop.letters() == []


async def test_after_so_many_tries_it_is_a_dead_letter_and_the_next_goes_on() -> None:
    tried: dict[str, int] = defaultdict(int)

    def fails(notice: Notice) -> Exception | None:
        tried[notice.id] += 1
        return NotNow("busy") if notice.id == "order-0-placed" else None

    channel = Channel(fails=fails)
    shop = Shop(channel, tries=3)
    shop.order(0)
    shop.order(1)
    await shop.run()
    assert tried == {"order-0-placed": 3, "order-1-placed": 1}
    (letter,) = shop.letters()
    assert (letter.id, letter.stage, letter.reason) == (
        "order-events-0-0", "effect", "test: not delivered in 3 tries: busy",
    )  # fmt: skip
    assert channel.ids() == ["order-1-placed"]


async def test_a_refused_one_is_a_dead_letter_at_once() -> None:
    shop = Shop(Channel(fails=lambda notice: Refused("no such customer")))
    shop.order(0)
    assert await shop.step() is None
    assert [letter.reason for letter in shop.letters()] == ["test: refused: no such customer"]


async def test_a_mistake_of_ours_about_one_notice_ends_as_a_dead_letter_not_the_group() -> None:
    shop = Shop(Channel(fails=lambda notice: ValueError("oops") if notice.order == "0" else None))
    shop.order(0)
    shop.order(1, user=2)
    await shop.run()
    assert [letter.reason for letter in shop.letters()] == ["test: not delivered in 3 tries: ValueError: oops"]


async def test_a_channel_that_is_away_makes_no_dead_letters_however_long() -> None:
    away = True
    channel = Channel(fails=lambda notice: Away("nobody listens") if away else None)
    other = Channel("other")
    shop = Shop(channel, other)
    for number in range(20):
        shop.order(number, user=number)
    for _ in range(50):
        shop.now += await shop.step() or 0
    assert shop.committed == 0
    assert len(other.sent) == 20
    away = False
    await shop.run()
    assert len(channel.sent) == len(other.sent) == 20
    assert shop.letters() == []
    assert len(shop.told) == 2  # that it is away, and that it is back


async def test_one_that_finds_the_channel_away_while_all_others_get_through_is_a_dead_letter() -> None:
    channel = Channel(fails=lambda notice: Away("status 503") if notice.id == "order-0-placed" else None)
    shop = Shop(channel)
    shop.order(0)
    for number in range(1, 50):
        if number < 20:
            shop.order(number, user=number + 1)
        wait_s = await shop.step()
        shop.now += wait_s or 0.0
    assert shop.committed == 20
    assert channel.ids() == [f"order-{number}-placed" for number in range(1, 20)]
    [letter] = shop.letters()
    assert "not delivered in 3 tries: status 503" in letter.reason


@pytest.mark.parametrize(
    ("bad", "elsewhere"),
    [
        ([0], False), ([0, 150], False), ([0, 1, 3], False), ([*range(40)], False),
        ([199], True), ([*range(0, 200, 7)], True), ([*range(200)], True),
    ],
)  # fmt: skip
async def test_those_that_always_find_the_channel_away_are_dead_letters_once_others_got_through_after_them(
    bad: list[int], elsewhere: bool
) -> None:
    """As a lane has them: nothing new comes while one of the batch is left, but to other partitions."""
    names = {f"order-{number}-placed" for number in bad}
    channel = Channel(fails=lambda notice: Away("status 503") if notice.id in names else None)
    shop = Shop(channel)
    for number in range(200):
        shop.order(number, user=number)
    for number in range(1_000, 1_100):
        if (wait_s := await shop.step()) is None:
            break
        shop.now += wait_s
        if elsewhere:
            shop.log.put(OTHER, Entry(b"", encode(OrderEvent(number, number, 1))), 1_000)
            with suppress(Again):
                await shop.handle(OTHER, shop.log.records(OTHER, number - 1_000))
    assert shop.committed == 200
    assert len([notice for notice in channel.sent if int(notice.order) < 1_000]) == 200 - len(bad)
    assert sorted(letter.id for letter in shop.letters()) == sorted(f"order-events-0-{number}" for number in bad)
    assert all("not delivered in 3 tries: status 503" in letter.reason for letter in shop.letters())


async def test_one_that_was_suspected_is_none_while_the_channel_is_away_for_others_too() -> None:
    away = {"order-0-placed"}
    channel = Channel(fails=lambda notice: Away("status 503") if not away or notice.id in away else None)
    shop = Shop(channel)
    for number in range(40):
        shop.order(number, user=number)
    for _ in range(2):
        shop.now += await shop.step() or 0.0
    assert len(channel.sent) == 39
    away.clear()  # for everybody, from now on
    shop.log.put(OTHER, Entry(b"user-99", encode(OrderEvent(99, 99, 1, event_id="order-99-placed"))), 1_000)
    for _ in range(50):
        with pytest.raises(Again):
            await shop.handle(OTHER, shop.log.records(OTHER))
        shop.now += await shop.step() or 0.0
    assert shop.letters() == []


async def test_what_lies_at_the_offsets_of_a_log_that_was_cut_is_told_too() -> None:
    channel = Channel()
    shop = Shop(channel)
    for number in range(4):
        shop.order(number, event_id=None)
    await shop.run()
    bad = MemoryRecord(3, 2_000, b"user-1", b"{")
    after = [MemoryRecord(2, 2_000, b"user-1", encode(OrderEvent(17, 1, 50_000))), bad]
    await shop.handle(TP0, after)
    assert [notice.order for notice in channel.sent] == ["0", "1", "2", "3", "17"]
    await shop.handle(TP0, [MemoryRecord(3, 3_000, b"user-1", b"[")])
    letters = [record.value for record in shop.log.records(TP("order-events.dead-letters", 0))]
    assert letters == [b"{", b"["]


async def test_a_channel_that_takes_only_so_many_a_second_makes_no_dead_letters() -> None:
    left = 0

    def fails(notice: Notice) -> Exception | None:
        nonlocal left
        left -= 1
        return None if left >= 0 else Away("status 429", 1.0)

    channel = Channel(fails=fails)
    shop = Shop(channel)
    for number in range(300):
        shop.order(number, user=number)
    for _ in range(1_000):
        left = 10
        if (wait_s := await shop.step()) is None:
            break
        shop.now += max(wait_s, 1.0)
    assert sorted(channel.ids()) == sorted(f"order-{number}-placed" for number in range(300))
    assert shop.letters() == []


async def test_one_that_is_away_is_asked_once_in_a_while_not_by_every_notice() -> None:
    asked = 0

    def fails(notice: Notice) -> Exception:
        nonlocal asked
        asked += 1
        return Away("overloaded", after_s=30)

    shop = Shop(Channel(fails=fails))
    for number in range(100):
        shop.order(number, user=number)
    assert await shop.step() == 30
    first = asked
    shop.now += 20
    assert await shop.step() == 10
    assert asked == first <= 16


async def test_many_that_find_it_away_at_the_same_time_make_it_wait_no_longer() -> None:
    shop = Shop(Channel(fails=lambda notice: Away("nobody listens")))
    shop.delivering.patience = Backoff(1, 64)
    for number in range(100):
        shop.order(number, user=number)
    for most in (1, 2, 4, 8):
        wait_s = await shop.step()
        assert wait_s is not None
        assert most / 2 <= wait_s <= most
        shop.now += wait_s


async def test_a_death_before_the_commit_repeats_under_the_same_ids_and_loses_nothing() -> None:
    channel = Channel()
    shop = Shop(channel)
    for number in range(4):
        shop.order(number)
    assert await shop.step(commit=False) is None
    shop.restart()
    await shop.run()
    assert channel.ids() == [f"order-{number}-placed" for number in range(4)] * 2


async def test_what_a_producer_sent_twice_is_told_once_also_after_a_restart() -> None:
    channel = Channel()
    shop = Shop(channel)
    shop.order(0)
    shop.order(0)
    await shop.run()
    shop.order(0)
    shop.restart()
    shop.order(1)
    await shop.run()
    assert channel.ids() == ["order-0-placed", "order-1-placed"]
    assert shop.delivering.told.duplicates == 1


async def test_what_does_not_decode_goes_to_the_dead_letters_of_its_topic() -> None:
    channel = Channel()
    shop = Shop(channel)
    shop.put(b"{")
    shop.order(1)
    await shop.run()
    assert channel.ids() == ["order-1-placed"]
    assert len(shop.log.records(TP("order-events.dead-letters", 0))) == 1
    assert shop.letters() == []


async def test_an_order_of_before_1970_ends_neither_notices_nor_those_sent_again() -> None:
    channel = Channel()
    shop = Shop(channel)
    early = b'{"orderId":1,"userId":1,"amount":1,"occurredAt":"1969-12-31T00:00:00Z"}'
    shop.put(early)
    shop.order(1)
    await shop.run()
    assert channel.ids() == ["order-1-placed"]
    [letter] = shop.log.records(TP("order-events.dead-letters", 0))
    assert told(letter.headers)
    headers = [(CHANNEL_HEADER, b"test"), *letter.headers]
    shop.log.put(ASIDE, Entry(letter.key, letter.value, headers))
    await Resending(shop.delivering, shop.log, TOPICS, "KRW")(ASIDE, shop.log.records(ASIDE))
    assert channel.ids() == ["order-1-placed"]


async def test_dead_letters_are_sent_again_on_their_own_channel_only() -> None:
    broken = True
    bad = Channel("bad", fails=lambda notice: Refused("no") if broken else None)
    good = Channel("good")
    shop = Shop(bad, good)
    shop.order(0)
    shop.order(1, event_id=None)
    await shop.run()
    assert len(shop.letters()) == len(good.sent) == 2
    broken = False
    again = Resending(shop.delivering, shop.log, TOPICS, "KRW")
    await again(ASIDE, shop.log.records(ASIDE))
    assert bad.ids() == ["order-0-placed", "order-events-0-1"]
    assert len(good.sent) == 2


async def test_dead_letters_for_a_channel_that_is_not_here_stay_in_the_queue() -> None:
    shop = Shop(Channel("absent", fails=lambda notice: Refused("no")))
    shop.order(0)
    await shop.run()
    other = Delivering([Channel("other")], shop.log, ASIDE.topic)
    again = Resending(other, shop.log, TOPICS, "KRW")
    letters = shop.log.records(ASIDE)
    await again(ASIDE, letters)
    first, last = shop.log.records(ASIDE)
    assert (first.value, first.headers) == (last.value, last.headers)
    assert again.kept == 1


async def test_dead_letters_for_other_channels_are_moved_once_and_before_anything_behind_them_is_committed() -> None:
    refused = {"webhook": ("0", "1", "4"), "smtp": ("2", "3")}

    def refusing(name: str) -> Channel:
        return Channel(name, fails=lambda notice: Refused("no") if notice.order in refused[name] else None)

    shop = Shop(refusing("webhook"), refusing("smtp"))
    for number in range(5):
        shop.order(number, user=number)
    await shop.run()
    busy = True
    smtp = Channel("smtp", fails=lambda notice: NotNow("busy") if busy else None)
    delivering = Delivering([smtp], shop.log, ASIDE.topic, backoff=Backoff(1, 1), clock=lambda: shop.now)
    again, letters = Resending(delivering, shop.log, TOPICS, "KRW"), shop.log.records(ASIDE)
    left, at = letters, 0
    for _ in range(3):
        with pytest.raises(Again) as waiting:
            await again(ASIDE, left)
        at = waiting.value.at or at
        left = [letter for letter in letters if letter.offset >= at]
        shop.now += 1
    busy = False
    await again(ASIDE, left)
    moved = shop.log.records(ASIDE)[5:]
    assert at == 2
    assert [letter.headers for letter in moved] == [letters[offset].headers for offset in (0, 1, 4)]
    assert (smtp.ids(), again.kept) == (["order-2-placed", "order-3-placed"], 3)


async def test_no_dead_letter_is_sent_again_while_those_for_other_channels_cannot_be_moved() -> None:
    shop = Shop(Channel("webhook", fails=lambda notice: Refused("no")), Channel("smtp", fails=lambda _: Refused("no")))
    shop.order(0)
    await shop.run()
    smtp = Channel("smtp")
    again = Resending(Delivering([smtp], shop.log, ASIDE.topic), Unwritable(), TOPICS, "KRW")
    with pytest.raises(Again) as waiting:
        await again(ASIDE, shop.log.records(ASIDE))
    assert (waiting.value.at, smtp.sent, again.kept) == (None, [], 0)


async def test_a_dead_letter_that_fails_again_is_one_again_with_the_same_id() -> None:
    shop = Shop(Channel(fails=lambda notice: Refused("no")))
    shop.order(0)
    await shop.run()
    await Resending(shop.delivering, shop.log, TOPICS, "KRW")(ASIDE, shop.log.records(ASIDE))
    assert [letter.id for letter in shop.letters()] == ["order-events-0-0"] * 2


async def test_a_line_that_was_torn_is_ended_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "notices.jsonl"
    path.write_bytes(b'{"id":"order-1-pl')
    channel = LogChannel(path, sys.stdout.buffer)
    await channel.open()
    shop = Shop(channel)
    shop.order(1)
    await shop.run()
    await channel.close()
    torn, whole, end = path.read_bytes().split(b"\n")
    assert torn == b'{"id":"order-1-pl'
    assert orjson.loads(whole)["id"] == "order-1-placed"
    assert end == b""
