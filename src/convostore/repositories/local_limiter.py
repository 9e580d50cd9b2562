"""Limits within the process, for the time that the server does not answer."""

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from convostore.models.redis.rate_limit_result import RateLimitResult, combined
from convostore.models.redis.rate_limits import RateLimitPolicy, WhenUnavailable
from convostore.repositories.rate_limit_keys import BUCKETS, MICROSECONDS, Identifier, Request, Subject, bucket_width

MOST_RINGS = 20_000
CLOSED_RETRY = 1.0  # seconds; the server is tried again as often


class _Ring:
    """The conservative ring of ``limit_ring.lua``: only the sub-buckets that hold something, the oldest first."""

    __slots__ = ("_buckets", "count", "width")

    def __init__(self, width: int) -> None:
        self.width = width
        self.count = 0
        self._buckets: deque[tuple[int, int]] = deque()

    def move_to(self, moment: int) -> None:
        """Drop what has left the window."""
        oldest = moment // self.width - BUCKETS
        while self._buckets and self._buckets[0][0] < oldest:
            self.count -= self._buckets.popleft()[1]

    def take(self, moment: int, units: int) -> None:
        """Count units."""
        index = moment // self.width
        if self._buckets and self._buckets[-1][0] == index:
            units_before = self._buckets.pop()[1]
            self._buckets.append((index, units_before + units))
        else:
            self._buckets.append((index, units))
        self.count += units

    def free_at(self, units: int) -> int:
        """Return the moment at which so many units have left."""
        for index, held in self._buckets:
            units -= held
            if units <= 0:
                return (index + BUCKETS + 1) * self.width
        return 0


class LocalLimiter:
    """Decides by what the policies say for the time that the server is away.

    ``local`` counts in this process alone, from nothing, each algorithm as a trailing window; so the limit holds among
    ``processes`` of them for what is admitted during the outage. The least recently used of many rings are dropped.

    Args:
        processes: how many share a limit; each admits ``limit // processes``.
        clock: microseconds, monotone.
    """

    def __init__(self, processes: int, clock: Callable[[], int] = lambda: time.monotonic_ns() // 1000) -> None:
        self._processes = processes
        self._clock = clock
        self._rings: OrderedDict[tuple[str, Identifier, str, int], _Ring] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rings)

    def check(self, request: Request, *, take: bool = True, force: bool = False) -> RateLimitResult:
        """Do what the server's check does.

        Args:
            request: what is asked for.
            take: whether to take the cost if it is admitted.
            force: whether to take it in any case.
        """
        now = self._clock()
        rings = [self._ring(request.tenant_id, subject, now) for subject in request.subjects]
        answers = [
            self._waits(subject, ring, request.cost, now) for subject, ring in zip(request.subjects, rings, strict=True)
        ]
        if force or (take and not any(answers)):
            for ring in rings:
                ring.take(now, request.cost)
        pairs = zip(request.subjects, rings, answers, strict=True)
        return combined([self._part(subject, ring, wait, now) for subject, ring, wait in pairs])

    def forget(self, tenant_id: str, identifier: Identifier) -> None:
        """Count an identity from nothing again."""
        for key in [key for key in self._rings if key[:2] == (tenant_id, identifier)]:
            del self._rings[key]

    def _ring(self, tenant_id: str, subject: Subject, now: int) -> _Ring:
        policy = subject.policy
        key = (tenant_id, subject.identifier, policy.name, policy.seconds)
        ring = self._rings.pop(key, None) or _Ring(bucket_width(policy.seconds * MICROSECONDS))
        self._rings[key] = ring
        if len(self._rings) > MOST_RINGS:
            self._rings.popitem(last=False)
        ring.move_to(now)
        return ring

    def _share(self, policy: RateLimitPolicy) -> int:
        return policy.limit // self._processes

    def _waits(self, subject: Subject, ring: _Ring, cost: int, now: int) -> float:
        """Return the seconds until a cost is admitted, 0 for at once."""
        policy = subject.policy
        if policy.when_unavailable is not WhenUnavailable.LOCAL:
            return 0.0 if policy.when_unavailable is WhenUnavailable.OPEN else CLOSED_RETRY
        share = self._share(policy)
        missing = ring.count + cost - share
        if missing <= 0:
            return 0.0
        return CLOSED_RETRY if cost > share else (ring.free_at(missing) - now) / MICROSECONDS

    def _part(self, subject: Subject, ring: _Ring, wait: float, now: int) -> RateLimitResult:
        policy = subject.policy
        reset_after = max(0.0, (ring.free_at(ring.count) - now) / MICROSECONDS) if ring.count else 0.0
        share = policy.limit if policy.when_unavailable is WhenUnavailable.OPEN else self._share(policy)
        closed = policy.when_unavailable is WhenUnavailable.CLOSED
        return RateLimitResult.of(
            (wait == 0, ring.count, math.ceil(time.time() + reset_after)),
            {
                "policy": policy,
                "remaining": 0 if closed else max(0, share - ring.count),
                "retry_after": wait,
                "reset_after": max(reset_after, wait),
                "degraded": True,
                "blocked": False,
                "_parts": (),
            },
        )
