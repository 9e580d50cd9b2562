"""Breaker: stops asking a server that does not answer, so that callers do not queue for it.

Nygard, "Release It!", 2007: closed while calls succeed, open for a while after several failures in a row, then half
open: one call goes through, and its end decides.
"""

import time
from collections.abc import Callable
from typing import Self


class Breaker:
    """Counts failures in a row.

    Args:
        failures: how many in a row open it.
        pause: seconds before a call is let through again.
        clock: seconds, monotone.
    """

    def __init__(self, failures: int = 5, pause: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._threshold = failures
        self._pause = pause
        self._clock = clock
        self._failures = 0
        self._next_trial = 0.0

    def another(self) -> Self:
        """Return a new one with the same settings."""
        return type(self)(self._threshold, self._pause, self._clock)

    @property
    def is_open(self) -> bool:
        """Whether calls are refused at present, trials apart."""
        return self._failures >= self._threshold

    def admits(self) -> bool:
        """Say whether a call may be made; when open, one in each pause may."""
        if self._failures < self._threshold:
            return True
        now = self._clock()
        if now < self._next_trial:
            return False
        self._next_trial = now + self._pause
        return True

    def succeeded(self) -> None:
        """Take note of a call that the server answered, in whatever way."""
        self._failures = 0

    def failed(self) -> None:
        """Take note of a call that the server did not answer."""
        self._failures += 1
        if self._failures == self._threshold:
            self._next_trial = self._clock() + self._pause
