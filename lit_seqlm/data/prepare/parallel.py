"""A function over many things in several processes, answers in the order of the questions."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from lit_seqlm.errors import UserError

Item = TypeVar("Item")
Answer = TypeVar("Answer")
AHEAD = 4  # questions a process has waiting: bounds the memory


class Workers:
    """Processes, or with one of them this process alone.

    Args:
        count: of the processes.
    """

    def __init__(self, count: int):
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        if self.count > 1:
            # A forked copy of a process with threads may hang.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.count, mp_context=context)
        return self

    def __exit__(self, *error: Any) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, function: Callable[[Item], Answer], items: Iterable[Item]) -> Iterator[Answer]:
        """Answers in the order of the items, which are taken only as they are needed."""
        if self._pool is None:
            yield from map(function, items)
            return
        waiting: deque[Future[Answer]] = deque()
        try:
            for item in items:
                waiting.append(self._pool.submit(function, item))
                if len(waiting) >= AHEAD * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                f"one of {self.count} processes was ended from outside, most often for want of "
                "memory. Give fewer --workers."
            ) from None
