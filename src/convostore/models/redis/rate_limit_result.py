"""What a rate limit answers."""

import math
from collections.abc import Sequence
from typing import Any, NoReturn, Self

from convostore.models.redis.rate_limits import RateLimitPolicy


class RateLimitResult(tuple[bool, int, int]):  # noqa: SLOT001 - a tuple cannot have any
    """The answer to a check: a tuple of ``allowed``, ``current_count`` and ``reset_time``, with more to it.

    Attributes:
        allowed: whether the call may be made.
        current_count: units that count at present, those of this call included if it is allowed.
        reset_time: Unix time in whole seconds at which all units will be free again, if nobody takes any.
        policy: the policy that decided: of several the one that denied for longest, else the one with least left.
        remaining: units left.
        retry_after: seconds until the same call is admitted, if nobody else takes units or gives them back; 0 if it is
            allowed.
        reset_after: seconds until ``reset_time``.
        degraded: the server did not answer, and the policy said what happens then.
        blocked: the guard against abuse has blocked the identity.
        each: the answer of each policy, in the order in which they were given.
    """

    policy: RateLimitPolicy
    remaining: int
    retry_after: float
    reset_after: float
    degraded: bool
    blocked: bool
    _parts: tuple[Self, ...]

    @classmethod
    def of(cls, triple: tuple[bool, int, int], details: dict[str, Any]) -> Self:
        """Return the answer; the details are its further attributes."""
        result = tuple.__new__(cls, triple)
        object.__setattr__(result, "__dict__", details)
        return result

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name}: a result does not change")

    def __repr__(self) -> str:
        shown = f"allowed={self.allowed}, current_count={self.current_count}, reset_time={self.reset_time}"
        return f"RateLimitResult({shown}, policy={self.policy.name!r}, retry_after={self.retry_after})"

    @property
    def allowed(self) -> bool:
        """Whether the call may be made."""
        return self[0]

    @property
    def current_count(self) -> int:
        """Units that count at present."""
        return self[1]

    @property
    def reset_time(self) -> int:
        """Unix time in whole seconds at which all units will be free again."""
        return self[2]

    @property
    def limit(self) -> int:
        """The limit of the policy."""
        return self.policy.limit

    @property
    def each(self) -> tuple[Self, ...]:
        """The answer of each policy."""
        return self._parts or (self,)

    def headers(self) -> dict[str, str]:
        """Return the fields of a response.

        ``RateLimit-Policy`` and ``RateLimit`` by draft-ietf-httpapi-ratelimit-headers-10 (structured fields, RFC 9651),
        and ``Retry-After`` in whole seconds (RFC 9110, 10.2.3) if the call was denied.
        """
        fields = {
            "RateLimit-Policy": ", ".join(_policy_item(part.policy) for part in self.each),
            "RateLimit": ", ".join(_item(part) for part in self.each),
        }
        if not self.allowed:
            fields["Retry-After"] = str(max(1, math.ceil(self.retry_after)))
        return fields


def combined(parts: Sequence[RateLimitResult]) -> RateLimitResult:
    """Return the answer of several policies as one: allowed if all allow it."""
    if len(parts) == 1:
        return parts[0]
    decisive = min(parts, key=lambda part: (part.allowed, -part.retry_after, part.remaining))
    details = {**decisive.__dict__, "degraded": any(part.degraded for part in parts), "_parts": tuple(parts)}
    return RateLimitResult.of((decisive.allowed, decisive.current_count, decisive.reset_time), details)


def _policy_item(policy: RateLimitPolicy) -> str:
    return f'"{policy.name}";q={policy.limit};w={policy.seconds}'


def _item(part: RateLimitResult) -> str:
    return f'"{part.policy.name}";r={part.remaining};t={max(0, math.ceil(part.reset_after))}'
