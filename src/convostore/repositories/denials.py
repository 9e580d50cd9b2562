"""Denials: what the server has just denied is denied again without asking it."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from convostore.models.redis.rate_limit_result import RateLimitResult, combined
from convostore.repositories.rate_limit_keys import Request

MOST_DENIALS = 10_000
Key = tuple[str, tuple[tuple[object, str, bytes], ...]]


@dataclass(frozen=True, slots=True)
class _Denial:
    result: RateLimitResult
    cost: int
    began: float
    ends: float


class Denials:
    """A short memory of denials.

    A denial is true until its ``retry_after``, unless somebody resets the identity or gives units back. This process
    then forgets everything; of others it learns nothing, so nothing is remembered for longer than a bound.

    Args:
        longest: seconds at most that a denial is remembered; 0 for not at all.
        clock: seconds, monotone.
    """

    def __init__(self, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest = longest
        self._clock = clock
        self._denials: OrderedDict[Key, _Denial] = OrderedDict()
        self._generation = 0

    def __len__(self) -> int:
        return len(self._denials)

    def recall(self, request: Request) -> RateLimitResult | None:
        """Return the denial of a request that costs no less than one denied before, or None."""
        if not self._denials:
            return None
        key = _key(request)
        denial = self._denials.get(key)
        if denial is None or request.cost < denial.cost:
            return None
        now = self._clock()
        if now >= denial.ends:
            del self._denials[key]
            return None
        return _aged(denial.result, now - denial.began)

    def began(self) -> tuple[float, int]:
        """Return what ``remember`` needs to know of the moment before the server is asked."""
        return self._clock(), self._generation

    def remember(self, request: Request, result: RateLimitResult, began: tuple[float, int]) -> None:
        """Keep a denial of the server's, counted from before it was asked, so never for longer than it is true."""
        moment, generation = began
        ends = moment + min(result.retry_after, self._longest)
        if generation != self._generation or ends <= self._clock():
            return
        key = _key(request)
        self._denials[key] = _Denial(result, request.cost, moment, ends)
        self._denials.move_to_end(key)
        if len(self._denials) > MOST_DENIALS:
            self._denials.popitem(last=False)

    def forget(self) -> None:
        """Remember nothing, nor what is on its way."""
        self._denials.clear()
        self._generation += 1


def _key(request: Request) -> Key:
    return request.tenant_id, tuple((each.identifier, each.policy.name, each.rule) for each in request.subjects)


def _aged(result: RateLimitResult, seconds: float) -> RateLimitResult:
    parts = []
    for part in result.each:
        waits = {name: max(0.0, getattr(part, name) - seconds) for name in ("retry_after", "reset_after")}
        parts.append(
            RateLimitResult.of(
                (part.allowed, part.current_count, part.reset_time), {**part.__dict__, **waits, "_parts": ()}
            )
        )
    return combined(parts)
