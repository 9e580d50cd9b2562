"""Lanes: for each key the calls of this process one after the other, with what the last one learned."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from convostore.gateways.batching import Batcher

Item = TypeVar("Item")
Result = TypeVar("Result")
MAX_LANES = 10_000
TRUST_SECONDS = 60.0


class Lane(Generic[Item, Result]):
    """The calls of one key, and a number remembered for it.

    The memory is a hint that a server-side constraint checks; it is forgotten after a minute, long before anything
    that it may rest on is purged from the database.

    Attributes:
        batcher: carries one batch at a time, so that the calls keep their order.
    """

    __slots__ = ("_learned_at", "_remembered", "batcher")

    def __init__(self, batcher: Batcher[Item, Result]) -> None:
        self.batcher = batcher
        self._remembered: int | None = None
        self._learned_at = 0.0

    def recall(self) -> int | None:
        """Return the number remembered, or None if there is none to be trusted."""
        fresh = time.monotonic() - self._learned_at < TRUST_SECONDS
        return self._remembered if fresh else None

    def remember(self, number: int) -> None:
        """Keep a number that the server has just confirmed."""
        self._remembered, self._learned_at = number, time.monotonic()

    def forget(self) -> None:
        """Trust nothing until the server confirms it again."""
        self._remembered = None


class Lanes(Generic[Item, Result]):
    """The lanes of all keys in use; the least recently used idle ones are dropped."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, Lane[Item, Result]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lanes)

    def of(self, key: str, make: Callable[[], Batcher[Item, Result]]) -> Lane[Item, Result]:
        """Return the lane of a key, with a batcher that is made for it if there is none yet."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(make())
            self._drop_idle()
        else:
            self._lanes.move_to_end(key)
        return lane

    def forget(self, key: str) -> None:
        """Trust nothing about a key until the server confirms it again."""
        lane = self._lanes.get(key)
        if lane is not None:
            lane.forget()

    def _drop_idle(self) -> None:
        while len(self._lanes) > MAX_LANES:
            key, lane = next(iter(self._lanes.items()))
            if not lane.batcher.is_idle:
                self._lanes.move_to_end(key)
                return
            del self._lanes[key]

    async def aclose(self) -> None:
        """Wait for what is under way."""
        for lane in list(self._lanes.values()):
            await lane.batcher.aclose()
