"""The server's side of rate limits: each call is one script, which decides by the server's clock."""

import math
import struct
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self

from convostore.gateways.redis_gateway import RedisGateway
from convostore.gateways.scripts import Script
from convostore.models.redis.quota_usage import QuotaUsage, period_name
from convostore.models.redis.rate_limit_result import RateLimitResult, combined
from convostore.models.redis.rate_limits import AbuseGuard, Block, RateLimitPolicy
from convostore.models.types import to_utc_milliseconds
from convostore.repositories.rate_limit_keys import (
    KIND,
    MICROSECONDS,
    Identifier,
    Request,
    Subject,
    identity_key,
    plain,
)
from convostore.repositories.redis_repository import RedisRepository

_COUNTING = ("limit_ring", "limit_smooth", "limit_calendar", "limit_holds", "limit_subject")
_ONLY = struct.Struct(">6d")
_HEAD = struct.Struct(">dd")
_TRIPLE = struct.Struct(">ddd")
_PART = struct.Struct(">dddd")
_GUARD = struct.Struct(">dddd")


@dataclass(frozen=True)
class LimitScripts:
    """The scripts that count.

    Attributes:
        check: checks several policies, and takes from all or none.
        peek: looks only; what leases held is given back on the way.
        reserve: takes an estimate.
        settle: corrects it.
        usage: reads the quotas of the calendar.
        block: says how long an identity is blocked.
    """

    check: Script
    peek: Script
    reserve: Script
    settle: Script
    usage: Script
    block: Script

    @classmethod
    def of(cls, *, guarded: bool) -> Self:
        """Return them with or without the guard against abuse."""
        counting = (*_COUNTING, "limit_guard" if guarded else "limit_unguarded")
        parts = ("limit_clock", *counting)
        check = Script("limit_check", ("limit_clock", "limit_common", *counting))
        return cls(
            check,
            replace(check, repeatable=True),
            Script("limit_reserve", parts, repeatable=True),
            Script("limit_settle", parts, repeatable=True),
            Script("limit_usage", parts, repeatable=True),
            Script("limit_block", ("limit_clock", "limit_guard"), writes=False, repeatable=True),
        )


class RateLimitServer(RedisRepository):
    """Asks the server; raises ConnectionError when it does not answer.

    Args:
        redis_client: the way to it.
        guard: of abuse, or None.
        scripts: what is run there.
    """

    kind = KIND
    entity_type = "RateLimit"

    def __init__(self, redis_client: RedisGateway, guard: AbuseGuard | None, scripts: LimitScripts | None) -> None:
        super().__init__(redis_client)
        self.scripts = scripts or LimitScripts.of(guarded=guard is not None)
        self._guard = _packed(guard) if guard else b""
        checks = (self.scripts.check, self.scripts.peek)
        self._operations = {script.repeatable: self._running(script) for script in checks}  # made once

    async def check(self, request: Request) -> RateLimitResult:
        """Take the cost from all subjects if all admit it."""
        return await self._ask(self.scripts.check, "c", request)

    async def peek(self, request: Request) -> RateLimitResult:
        """Say what ``check`` would."""
        return await self._ask(self.scripts.peek, "p", request)

    async def force(self, request: Request) -> RateLimitResult:
        """Take the cost in any case."""
        return await self._ask(self.scripts.check, "f", request)

    async def _ask(self, script: Script, mode: str, request: Request) -> RateLimitResult:
        keys, subjects = request.keys()
        head = (f"{mode}{request.cost}", self._guard_of(request))
        reply = await self.redis.script(self._operations[script.repeatable], script, keys, *head, *subjects)
        return decided(request.subjects, reply)

    async def reserve(self, request: Request, reservation_id: str, lease_seconds: float) -> RateLimitResult:
        """Take an estimate from all subjects if all admit it, for the time of a lease."""
        keys, subjects = request.keys()
        lease, guard = round(lease_seconds * MICROSECONDS), self._guard_of(request)
        reply = await self._script(self.scripts.reserve, keys, reservation_id, request.cost, lease, guard, *subjects)
        return decided(request.subjects, reply)

    def _guard_of(self, request: Request) -> bytes:
        return bytes([request.watched()]) + self._guard if self._guard else b""

    async def settle(self, request: Request, reservation_id: str) -> bool:
        """Correct an estimate to what was needed, the request's cost; say whether it was known."""
        keys, subjects = request.keys()
        return bool(await self._script(self.scripts.settle, keys, reservation_id, request.cost, *subjects))

    async def usage(self, request: Request) -> list[QuotaUsage]:
        """Return of each subject what was used in the calendar's period before this one, and in this one."""
        keys, subjects = request.keys()
        told = _TRIPLE.iter_unpack(await self._script(self.scripts.usage, keys, *subjects))
        return [
            QuotaUsage(plain(subject.identifier), subject.policy.name, period_name(subject.policy.algorithm, at), units)
            for subject, (period, count, before) in zip(request.subjects, told, strict=True)
            for at, units in ((int(period) - 1, int(before)), (int(period), int(count)))
        ]

    async def block(self, tenant_id: str, identifier: Identifier) -> Block | None:
        """Return the block of an identity, or None."""
        reply = await self._script(self.scripts.block, [identity_key(tenant_id, identifier)])
        present, ends, level = _TRIPLE.unpack(reply)
        if not ends:
            return None
        moment = to_utc_milliseconds(datetime.fromtimestamp(ends / MICROSECONDS, UTC))
        return Block(until=moment, retry_after=(ends - present) / MICROSECONDS, times=int(level))

    async def lift(self, tenant_id: str, identifier: Identifier) -> bool:
        """End the block of an identity and forget its denials; say whether there were any."""
        operation = self._operation("lift", writes=True, repeatable=True)
        return bool(await self.redis.command(operation, "HDEL", identity_key(tenant_id, identifier), "!"))

    async def reset(self, tenant_id: str, identifier: Identifier) -> bool:
        """Forget everything of an identity; say whether there was something."""
        operation = self._operation("reset", writes=True, repeatable=True)
        return bool(await self.redis.command(operation, "DEL", identity_key(tenant_id, identifier)))


def decided(subjects: tuple[Subject, ...], reply: bytes) -> RateLimitResult:
    """Return the answer that a script's reply stands for."""
    if len(subjects) == 1:  # nearly always
        return _part(subjects[0].policy, *_ONLY.unpack(reply))
    present, blocked = _HEAD.unpack_from(reply)
    told = _PART.iter_unpack(reply[_HEAD.size :])
    return combined([_part(each.policy, present, blocked, *part) for each, part in zip(subjects, told, strict=True)])


def _part(policy: RateLimitPolicy, present: float, blocked: float, *told: float) -> RateLimitResult:
    count, room, admitted_at, free_at = told
    admitted_at = max(admitted_at, blocked)
    return RateLimitResult.of(
        (admitted_at == 0, int(count), math.ceil(free_at / MICROSECONDS)),
        {
            "policy": policy,
            "remaining": int(room),
            "retry_after": max(0.0, (admitted_at - present) / MICROSECONDS),
            "reset_after": max(0.0, (free_at - present) / MICROSECONDS),
            "degraded": False,
            "blocked": blocked > 0,
            "_parts": (),
        },
    )


def _packed(guard: AbuseGuard) -> bytes:
    seconds = (guard.within_seconds, guard.block_seconds, guard.longest_block_seconds)
    return _GUARD.pack(guard.denials, *[round(each * MICROSECONDS) for each in seconds])
