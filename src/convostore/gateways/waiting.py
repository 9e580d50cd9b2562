"""Calls that wait for a place, or to leave in a batch: whose turn it is, and whose time is over."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


MOST_WAITING = 10_000


class CrowdedError(Exception):
    """Too many wait already, so that one more was turned away at once."""


class Places:
    """So many calls may be under way; further ones wait, first come, first served, unless too many do; ``async with``.

    Args:
        size: calls under way at most.
        waiting: calls that wait at most.
    """

    def __init__(self, size: int, waiting: int = MOST_WAITING) -> None:
        self._free = asyncio.Semaphore(size)
        self._most = waiting
        self._waiting = 0

    async def __aenter__(self) -> None:
        if self._waiting >= self._most:
            raise CrowdedError
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1

    async def __aexit__(self, *_: object) -> None:
        self._free.release()


class Waiting(Generic[Item, Result]):
    """A call that waits for its flight, then for its answer."""

    __slots__ = ("answer", "departed", "end", "item", "owner", "size", "writes")

    def __init__(self, owner: str, item: Item, size: int, answer: "asyncio.Future[Result]") -> None:
        self.owner = owner
        self.item = item
        self.size = size
        self.answer = answer
        self.departed = False
        self.end = 0.0
        self.writes = False


class FairQueue(Generic[Item, Result]):
    """Waiting calls, taken in turns from their owners, so that one who brings many delays no other."""

    def __init__(self) -> None:
        self._by_owner: OrderedDict[str, deque[Waiting[Item, Result]]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, waiting: Waiting[Item, Result]) -> None:
        """Add a call behind the others of its owner."""
        self._by_owner.setdefault(waiting.owner, deque()).append(waiting)
        self._count += 1

    def remove(self, waiting: Waiting[Item, Result]) -> None:
        """Take out a call that nobody waits for any more."""
        line = self._by_owner[waiting.owner]
        line.remove(waiting)
        self._count -= 1
        if not line:
            del self._by_owner[waiting.owner]

    def take(self, items: int, size: int) -> list[Waiting[Item, Result]]:
        """Take the next calls, one of each owner in turn, up to a number and a size in bytes."""
        taken: list[Waiting[Item, Result]] = []
        total = 0
        while self._by_owner and len(taken) < items:
            owner, line = next(iter(self._by_owner.items()))
            total += line[0].size
            if taken and total > size:
                break
            taken.append(line.popleft())
            self._count -= 1
            if line:
                self._by_owner.move_to_end(owner)
            else:
                del self._by_owner[owner]
        return taken


class Alarm(Generic[Item, Result]):
    """Wakes those whose time is over: one timer for all, for one each costs more than the rest of a batched call.

    Args:
        ring: called with each of them.
    """

    def __init__(self, ring: Callable[[Waiting[Item, Result]], None]) -> None:
        self._ring = ring
        self._sleepers: deque[Waiting[Item, Result]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, waiting: Waiting[Item, Result], loop: asyncio.AbstractEventLoop) -> None:
        """Wake a call at its end, unless it has its answer by then."""
        while self._sleepers and self._sleepers[0].answer.done():
            self._sleepers.popleft()
        self._sleepers.append(waiting)
        if self._timer is None or waiting.end < self._timer.when():
            self._set(waiting.end, loop)

    def stop(self) -> None:
        """Forget everybody; to be called once all have their answers."""
        self._sleepers.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, end: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(end, self._wake, loop)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        late = loop.time()
        for waiting in self._sleepers:
            if waiting.end <= late and not waiting.answer.done():
                self._ring(waiting)
        self._sleepers = deque([waiting for waiting in self._sleepers if not waiting.answer.done()])
        if self._sleepers:
            self._set(min(waiting.end for waiting in self._sleepers), loop)
