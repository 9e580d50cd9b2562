"""Lanes: one caller at a time for each key within the process, with what the last one learned."""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field

MAX_LANES = 10_000
TRUST_SECONDS = 60.0


@dataclass(slots=True)
class Lane:
    """The serial order of one key, and a number remembered for it.

    The memory is a hint that a server-side constraint checks; it is forgotten after a minute, long before anything
    that it may rest on is purged from the database.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _remembered: int | None = None
    _learned_at: float = 0.0

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


class Lanes:
    """The lanes of all keys in use; the least recently used idle ones are dropped."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, Lane] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lanes)

    def of(self, key: str) -> Lane:
        """Return the lane of a key."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane()
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
            if lane.lock.locked():
                self._lanes.move_to_end(key)
                return
            del self._lanes[key]
