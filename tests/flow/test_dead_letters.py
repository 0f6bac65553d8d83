"""Dead letters sent back: applied once, whatever happens in between; and events that no fold can take."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from shop import SECOND, Sale, amounts, by_user, sell, shop

from streams.dead_letters import dead_letter, replay_headers, told
from streams.log import TP, Entry
from streams.memory_log import MemoryRecord
from streams.put_aside import CHUNK, KEPT, PutAside
from tables.partition import TooMuchPoison
from topologies.driver import Driver

DEAD = "sales.dead-letters"
SALES = TP("sales", 0)


def replay(driver: Driver, letter: MemoryRecord, value: bytes | None = None) -> None:
    """Send a dead letter back, mended if a value is given."""
    said = told(letter.headers)
    assert said is not None
    entry = Entry(letter.key, value or letter.value, replay_headers(letter.headers, said))
    driver.log.put(said.tp, entry, said.at_ms)


def mended(amount: int, at_s: float = 1, event_id: str | None = None) -> bytes:
    return msgspec.json.encode(Sale(1, amount, event_id, round(at_s * SECOND)))


class Switch:
    """A fold that fails for 13 until it is mended."""

    def __init__(self) -> None:
        self.broken = True

    def __call__(self, sale: Any) -> list[tuple[Any, ...]]:
        if self.broken and sale.amount == 13:
            raise ZeroDivisionError("unlucky")
        return by_user(sale)


def test_a_mended_dead_letter_is_applied() -> None:
    with Driver(shop()) as driver:
        sell(driver, 1, 1)
        driver.feed("sales", b'{"userId":1,"amount":', partition=0, timestamp_ms=SECOND)
        driver.flush()
        replay(driver, driver.records(DEAD)[0], mended(10))
        driver.flush()
        assert amounts(driver) == {0: 11}
        assert len(driver.records(DEAD)) == 1


@pytest.mark.parametrize("wipe", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_of_two_replays_one_is_applied_also_long_after_and_over_restarts(wipe: bool, together: bool) -> None:
    with Driver(shop()) as driver:
        driver.feed("sales", b"{", partition=0, timestamp_ms=SECOND)
        driver.flush()
        (letter,) = driver.records(DEAD)
        driver.restart(wipe=wipe)
        replay(driver, letter, mended(10))
        if not together:
            driver.flush()
            driver.restart(wipe=wipe)
            for i in range(50):
                sell(driver, 1, 2 + i)  # an event time within the grace, but hundreds of records later
                driver.flush()
            driver.restart(wipe=wipe)
        replay(driver, letter, mended(10))
        driver.flush()
        assert amounts(driver) == {0: 10 + 50 * (not together)}


@pytest.mark.parametrize("entries", range(9))
@pytest.mark.parametrize("wipe", [False, True])
def test_a_flush_torn_anywhere_neither_loses_a_replay_nor_lets_a_second_in(entries: int, wipe: bool) -> None:
    with Driver(shop()) as driver:
        for i in range(3):
            driver.feed("sales", b"{", partition=0, timestamp_ms=i)
        driver.flush()
        letters = driver.records(DEAD)
        for letter in letters:
            replay(driver, letter, mended(10))
            sell(driver, 1, 1)
        driver.feed("sales", b"[", partition=0, timestamp_ms=9)
        driver.deliver()
        driver.log.fail_append_after(entries)
        driver.worker.flush()
        driver.restart(wipe=wipe)
        for letter in letters:
            replay(driver, letter, mended(10))
        driver.flush()
        driver.restart(wipe=wipe)
        driver.log.compact("shop-put-aside")
        driver.restart(wipe=wipe)
        for letter in [*letters, driver.records(DEAD)[-1]]:
            replay(driver, letter, mended(100))
        driver.flush()
        assert amounts(driver) == {0: 133}


@pytest.mark.parametrize("entries", range(6))
def test_a_flush_that_is_put_off_still_keeps_what_was_put_aside(entries: int) -> None:
    with Driver(shop()) as driver:
        driver.feed("sales", b"{", partition=0, timestamp_ms=SECOND)
        driver.deliver()
        driver.log.fail_append_after(entries)
        driver.flush()
        driver.restart(wipe=True)
        replay(driver, driver.records(DEAD)[0], mended(10))
        driver.deliver()
        driver.log.fail_append_after(entries)
        driver.flush()
        driver.restart(wipe=True)
        replay(driver, driver.records(DEAD)[0], mended(10))
        driver.flush()
        assert amounts(driver) == {0: 10}


def test_a_replay_that_is_dead_again_can_be_mended_once_more() -> None:
    with Driver(shop()) as driver:
        driver.feed("sales", b"{", partition=0, timestamp_ms=SECOND)
        driver.flush()
        first = driver.records(DEAD)[0]
        replay(driver, first, b"[")
        driver.flush()
        second = driver.records(DEAD)[1]
        for letter in (first, second, second, first):
            replay(driver, letter, mended(10))
        driver.flush()
        assert amounts(driver) == {0: 10}


def test_a_late_replay_goes_to_the_late_events() -> None:
    with Driver(shop()) as driver:
        driver.feed("sales", b"{", partition=0, timestamp_ms=SECOND)
        sell(driver, 1, 1_000)
        driver.flush()
        replay(driver, driver.records(DEAD)[0], mended(10))
        driver.flush()
        assert amounts(driver) == {960: 1}
        assert len(driver.records("sales.late")) == 1


def test_a_replay_of_what_no_fold_could_take_is_no_duplicate_of_its_own_original() -> None:
    fold = Switch()
    with Driver(shop(fold)) as driver:
        sell(driver, 13, 1, event_id="a")
        sell(driver, 1, 2, event_id="b")
        driver.flush()
        (letter,) = driver.records(DEAD)
        fold.broken = False
        sell(driver, 13, 1, event_id="a")  # this one is: its producer has sent it twice
        replay(driver, letter)
        driver.flush()
        assert amounts(driver) == {0: 14}


def test_a_replay_of_what_was_sent_again_by_its_producer_is_a_duplicate() -> None:
    with Driver(shop()) as driver:
        driver.feed("sales", b'{"eventId":"a"', partition=0, timestamp_ms=SECOND)
        sell(driver, 10, 1, event_id="a")
        driver.flush()
        replay(driver, driver.records(DEAD)[0], mended(10, event_id="a"))
        driver.flush()
        assert amounts(driver) == {0: 10}


@pytest.mark.parametrize("batch", [1, 3, 500])
def test_a_group_that_could_take_the_original_does_not_count_its_replay(batch: int) -> None:
    fold = Switch()
    with Driver(shop(fold)) as driver:
        sell(driver, 13, 1)
        sell(driver, 1, 2)
        driver.flush()
        replay(driver, driver.records(DEAD)[0])
        fold.broken = False
        driver.flush()
        assert amounts(driver) == {0: 14}
        other = shop()
        other.name = "rebuilt"
        with Driver(other, batch=batch, log=driver.log) as rebuilt:
            rebuilt.flush()
            assert amounts(rebuilt) == {0: 14}


@pytest.mark.parametrize("batch", [1, 2, 3, 500])
def test_a_replay_right_behind_its_original_is_taken_in_batches_of_any_size(batch: int) -> None:
    fold = Switch()
    with Driver(shop(fold), batch=batch) as driver:
        for amount in (1, 13, 2):
            sell(driver, amount, 1)
        original = driver.log.records(SALES)[1]
        letter = dead_letter(SALES, original, "as it will be", "fold")
        replay(driver, MemoryRecord(0, 0, letter.key, letter.value, letter.headers), mended(20))
        replay(driver, MemoryRecord(0, 0, letter.key, letter.value, letter.headers), mended(20))
        sell(driver, 4, 1)
        driver.flush()
        assert amounts(driver) == {0: 27}


@pytest.mark.parametrize("origin", [b"", b"sales", b"sales-0-x", b"other-0-0", b"sales-1-0", b"\xff-0-1"])
def test_a_header_that_names_nothing_of_this_partition_changes_nothing(origin: bytes) -> None:
    with Driver(shop()) as driver:
        for _ in range(2):
            driver.log.put(SALES, Entry(None, mended(10), [("replayed-from", origin)]), SECOND)
        driver.flush()
        assert amounts(driver) == {0: 20}


@pytest.mark.parametrize("origin", [b"sales-0-0", b"sales-0-1", b"sales-0-999999999999999999"])
def test_a_header_that_names_what_was_never_put_aside_is_dropped(origin: bytes) -> None:
    with Driver(shop()) as driver:
        sell(driver, 1, 1)
        driver.log.put(SALES, Entry(None, mended(10), [("replayed-from", origin)]), SECOND)
        driver.flush()
        assert amounts(driver) == {0: 1}


def test_a_senders_own_headers_come_back_and_cannot_pose_as_ours() -> None:
    headers = [("id", b"mine"), ("reason", b"none"), ("trace", b"\xff"), ("trace", b"")]
    with Driver(shop()) as driver:
        driver.log.put(SALES, Entry(b"k", b"{", headers), SECOND)
        driver.flush()
        (letter,) = driver.records(DEAD)
        said = told(letter.headers)
        assert said is not None
        assert said.id == "sales-0-0"
        assert replay_headers(letter.headers, said)[: len(headers)] == headers


def test_a_dead_letter_of_a_giant_value_says_how_much_is_missing() -> None:
    letter = dead_letter(SALES, MemoryRecord(5, 0, None, b"x" * (17 << 20)), "too large")
    said = told(letter.headers)
    assert said is not None
    assert letter.value is not None
    assert (len(letter.value), said.cut) == (16 << 20, 1 << 20)


def test_what_lies_too_far_back_is_forgotten_alike_before_and_after_a_restart() -> None:
    aside = PutAside()
    aside.add(5)
    aside.add(KEPT + CHUNK)
    assert not aside.take_back(5, KEPT + CHUNK + 1)
    assert aside.drain() == {0: b"", KEPT // CHUNK + 1: b"\x01"}
    aside.add(KEPT + CHUNK + 7)
    assert not aside.take_back(KEPT + CHUNK + 7, 2 * KEPT + CHUNK + 7)


@pytest.mark.parametrize("key", ["k" * 8_193, "\ud800", None, 7])
def test_a_key_that_no_topic_could_carry_is_poison_and_the_rest_of_its_batch_applied(key: Any) -> None:
    def fold(sale: Any) -> list[tuple[Any, ...]]:
        return [(key if sale.amount == 13 else "all", sale.amount, sale.user_id)]

    with Driver(shop(fold)) as driver:
        for amount in (1, 13, 2):
            sell(driver, amount, 1)
        driver.flush()
        assert amounts(driver) == {0: 3}
        assert len(driver.records(DEAD)) == 1


def failing(when: Callable[[int], bool]) -> Callable[[Any], list[tuple[Any, ...]]]:
    def fold(sale: Any) -> list[tuple[Any, ...]]:
        if when(sale.amount):
            raise OSError(28, "No space left on device")
        return by_user(sale)

    return fold


def test_events_that_fail_now_and_then_never_stop_a_worker() -> None:
    with Driver(shop(failing(lambda amount: amount % 2 == 1)), batch=1) as driver:
        for amount in range(400):
            sell(driver, amount, 1)
        driver.flush()
        assert amounts(driver) == {0: sum(range(0, 400, 2))}
        assert len(driver.records(DEAD)) == 200


@pytest.mark.parametrize("batch", [1, 7, 100, 101, 500])
def test_a_worker_stops_where_everything_fails_and_loses_nothing(batch: int) -> None:
    with Driver(shop(failing(lambda amount: amount >= 1_000)), batch=batch) as driver:
        for amount in (1, 2, *range(1_000, 1_300)):
            sell(driver, amount, 1)
        with pytest.raises(TooMuchPoison, match=r"none of them was skipped.*start again"):
            driver.flush()
        assert driver.records(DEAD) == []
        driver.worker.crash()
        with Driver(shop(), log=driver.log) as again:
            again.flush()
            assert amounts(again) == {0: 3 + sum(range(1_000, 1_300))}


def test_a_worker_started_again_goes_on_counting_what_failed_before_and_says_where_that_is() -> None:
    with Driver(shop(failing(lambda amount: amount >= 1_000)), batch=1) as driver:
        for amount in range(1_000, 1_100):
            sell(driver, amount, 1)
        driver.flush()
        assert len(driver.records(DEAD)) == 100
        for wipe in (False, True):
            driver.restart(wipe=wipe)
            sell(driver, 1_200, 1)
            with pytest.raises(TooMuchPoison, match=r"from 0 up to 99 lie in sales.dead-letters to be replayed"):
                driver.flush()
        assert len(driver.records(DEAD)) == 100


def test_a_decoder_of_ones_own_that_raises_anything_makes_a_dead_letter() -> None:
    def decode(raw: bytes | None) -> Any:
        assert raw is not None
        return Sale(1, int(raw), None, SECOND)

    topology = shop()
    topology.sources["sales"] = replace(topology.sources["sales"], decode=decode)
    with Driver(topology) as driver:
        for value in (b"1", b"two", b"4", None):
            driver.feed("sales", value, partition=0, timestamp_ms=SECOND)
        driver.flush()
        assert amounts(driver) == {0: 5}
        reasons = [dict(r.headers)["reason"] for r in driver.records(DEAD)]
        assert reasons[0].startswith(b"cannot be decoded: ValueError: invalid literal")
        assert reasons[1].startswith(b"cannot be decoded: AssertionError")
