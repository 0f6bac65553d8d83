"""One transaction for what many ask for at once: who comes while one is under way is in the next."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")

AT_MOST: Final = 50


@dataclass
class Together(Generic[A, R]):
    """Gathers requests, and answers each with its own result, or all of a batch with the error of their transaction.

    `work` is given up to `at_most` requests, and returns as many results in their order.
    """

    work: Callable[[Sequence[A]], Awaitable[Sequence[R]]]
    at_most: int = AT_MOST
    _asked: "list[tuple[A, asyncio.Future[R]]]" = field(default_factory=list)
    _working: "asyncio.Task[None] | None" = None

    async def ask(self, request: A) -> R:
        """The result of one request. Raises what `work` raised for the batch that it was in."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._asked.append((request, answer))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        while self._asked:
            batch, self._asked = self._asked[: self.at_most], self._asked[self.at_most :]
            # who was cancelled meanwhile wants nothing any more
            batch = [(request, answer) for request, answer in batch if not answer.done()]
            if not batch:
                continue
            try:
                results = await self.work([request for request, _ in batch])
            except Exception as error:
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
            else:
                for (_, answer), result in zip(batch, results, strict=True):
                    if not answer.done():
                        answer.set_result(result)
