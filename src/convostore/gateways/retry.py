"""Retry of what may be repeated: few attempts, full jitter, under the deadline of the call.

Full jitter: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from convostore.repositories.exceptions import RepositoryError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently a repeatable call is tried.

    Attributes:
        attempts: at most so many, the first included.
        wait: seconds before the second attempt, at most; doubled with each further one.
        longest_wait: seconds between two attempts, at most.
    """

    attempts: int = 4
    wait: float = 0.05
    longest_wait: float = 1.0

    def pause_before(self, attempt: int) -> float:
        """Return how many seconds to wait at most before an attempt, the second being 1."""
        return min(self.longest_wait, self.wait * 2.0 ** (attempt - 1))

    def retrying(self) -> AsyncRetrying:
        """Return the loop over the attempts after the first; the last error is raised as it is."""
        return AsyncRetrying(
            stop=stop_after_attempt(self.attempts - 1),
            wait=wait_random_exponential(multiplier=self.wait, max=self.longest_wait),
            retry=retry_if_exception(is_retryable),
            reraise=True,
        )


async def pause(longest: float) -> None:
    """Sleep for a random part of a time, given in seconds: who collided once shall not collide again."""
    await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - jitter is no secret


def is_retryable(error: BaseException) -> bool:
    """Say whether the same call may succeed if it is made again."""
    return isinstance(error, RepositoryError) and error.retryable


async def call_again(policy: RetryPolicy, attempt: Callable[[], Awaitable[T]]) -> T:
    """Go on after a first attempt has failed: wait, then try until the attempts are used up."""

    async def again() -> T:
        return await attempt()  # tenacity awaits only what it can see to be a coroutine function

    await pause(policy.pause_before(1))
    return await policy.retrying()(again)
