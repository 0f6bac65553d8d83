import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from streams.memory import COLLECT_AFTER, give_back


@pytest.fixture(autouse=True)
def spared() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*COLLECT_AFTER)
    yield
    gc.set_threshold(*before)


class Cycle:
    def __init__(self) -> None:
        self.itself = self


def test_what_holds_itself_is_gone_once_memory_is_given_back() -> None:
    held = weakref.ref(Cycle())
    assert held() is not None, "a cycle that goes without the collector shows nothing"
    asyncio.run(give_back())
    assert held() is None


def test_what_is_in_use_stays() -> None:
    kept = Cycle()
    asyncio.run(give_back())
    assert kept.itself is kept
