"""Who has the event loop, and for how long, on a clock that only work moves."""

import asyncio

import pytest

from topologies.views import turns
from topologies.views.turns import HURRIED_MOST_S, LEAST_S, MOST_S, PART, PATIENCE_S, Turns


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(turns, "time", clock)
    return clock


async def length_of_turn(clock: Clock, others_s: float, *, hurried: bool = False) -> float:
    """How long a turn lasts after one in which everybody else took so long."""
    mine = Turns()
    asyncio.get_running_loop().call_soon(clock.work, others_s)
    await mine.give()
    mine.begin(hurried=hurried)
    began = clock.now
    while not mine.due():
        clock.work(0.0001)
    return clock.now - began


async def test_a_turn_is_short_while_there_is_little_to_answer(clock: Clock) -> None:
    assert await length_of_turn(clock, 0.0) == pytest.approx(LEAST_S, abs=0.0002)


async def test_a_turn_is_a_part_of_the_time_that_answers_took(clock: Clock) -> None:
    assert await length_of_turn(clock, 0.03) == pytest.approx(0.03 * PART, abs=0.0002)


async def test_answers_never_wait_longer_than_the_longest_turn(clock: Clock) -> None:
    assert await length_of_turn(clock, 10.0) == pytest.approx(MOST_S, abs=0.0002)
    assert await length_of_turn(clock, 10.0, hurried=True) == pytest.approx(HURRIED_MOST_S, abs=0.0002)


async def test_who_needs_several_rounds_of_the_loop_has_them_all_before_the_next_turn(clock: Clock) -> None:
    done = []

    async def request() -> None:
        for _ in range(5):
            clock.work(0.001)
            await asyncio.sleep(0)
        done.append(clock.now)

    answering = asyncio.create_task(request())
    await Turns().give()
    assert done == [pytest.approx(0.005)]
    await answering


async def test_others_who_never_rest_do_not_keep_a_follower_waiting_for_ever(clock: Clock) -> None:
    async def restless() -> None:
        while True:
            clock.work(0.001)
            await asyncio.sleep(0)

    going = asyncio.create_task(restless())
    await Turns().give()
    assert clock.now == pytest.approx(PATIENCE_S, abs=0.0015)
    going.cancel()


async def test_a_copy_that_is_not_complete_takes_as_long_as_the_answers(clock: Clock) -> None:
    assert await length_of_turn(clock, 0.02, hurried=True) == pytest.approx(0.02, abs=0.0002)
