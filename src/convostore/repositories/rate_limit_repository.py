"""The repository of rate limits."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from convostore.database.redis_client import get_redis
from convostore.gateways.redis_gateway import RedisGateway
from convostore.models.identity import check_identifier
from convostore.models.redis.quota_usage import QuotaUsage
from convostore.models.redis.rate_limit_result import RateLimitResult
from convostore.models.redis.rate_limits import (
    LONGEST_LEASE,
    MOST_UNITS,
    AbuseGuard,
    Block,
    RateLimitPolicy,
    WhenUnavailable,
)
from convostore.models.redis.reservation import Reservation
from convostore.models.types import TenantId, new_id
from convostore.repositories.denials import Denials
from convostore.repositories.exceptions import ConnectionError  # noqa: A004 - the name is the specification's
from convostore.repositories.local_limiter import LocalLimiter
from convostore.repositories.rate_limit_keys import Identifier, PolicyLike, Request, plain
from convostore.repositories.rate_limit_requests import Requests, checked_identity
from convostore.repositories.rate_limit_server import LimitScripts, RateLimitServer
from convostore.repositories.redis_repository import checked_seconds, checked_whole

Limits = Sequence[tuple[Identifier, PolicyLike]]


class RateLimitRepository:
    """Repository for rate limits and quotas.

    Never more than the limit is admitted in any trailing window, from any number of processes, by the server's clock;
    a denial takes nothing from any policy. An identifier names an API key, a user, an address; ``WHOLE_TENANT`` in its
    place, all of a tenant's. What is counted for one is kept by the name of a policy, or by the window where a limit
    is given as a number; it stays when the limit changes.

    When the server is away, each call answers within its deadline as its policy says (``WhenUnavailable``), with
    ``degraded`` set; nothing need be done when it is back. What was admitted meanwhile is not counted afterwards.

    Args:
        redis_client: the way to the server; stays open.
        policies: those with a name: themselves, or texts such as ``60/minute`` by their names.
        processes: how many share a limit while the server is away; each admits ``limit // processes``.
        when_unavailable: what happens then to limits given as numbers.
        guard: blocks identities that keep being denied; None for not at all.
        remember_denials: seconds at most that a denial is answered without asking the server; 0 for not at all. For
            as long another process may not see that an identity was reset, or units given back; nor does the guard
            see those denials.
        scripts: what is run on the server.

    Raises:
        ValidationError: an argument is not valid.
    """

    def __init__(
        self,
        redis_client: RedisGateway,
        policies: Iterable[RateLimitPolicy] | Mapping[str, PolicyLike] = (),
        *,
        processes: int = 1,
        when_unavailable: WhenUnavailable = WhenUnavailable.LOCAL,
        guard: AbuseGuard | None = None,
        remember_denials: float = 1.0,
        scripts: LimitScripts | None = None,
    ) -> None:
        self._server = RateLimitServer(redis_client, guard, scripts)
        self._requests = Requests(policies, when_unavailable)
        self._local = LocalLimiter(checked_whole(processes, "processes", highest=1_000_000))
        self._denials = Denials(checked_seconds(remember_denials, "remember_denials", 60.0, lowest=0.0) / 1000)

    async def check_rate_limit(
        self,
        tenant_id: TenantId,
        identifier: Identifier,
        limit: int | None = None,
        window_seconds: int | None = None,
        *,
        cost: int = 1,
        policy: PolicyLike | None = None,
    ) -> RateLimitResult:
        """Take units if the limit admits them.

        Args:
            tenant_id: whose limit.
            identifier: of whom.
            limit: units, with ``window_seconds``; or neither and a ``policy``.
            window_seconds: of any trailing window.
            cost: units to take.
            policy: a policy, its name, or a text such as ``60/minute``.

        Returns:
            The answer, which is also the tuple (allowed, current_count, reset_time).

        Raises:
            ValidationError: an argument is not valid, or the cost is more than can ever be admitted.
        """
        return await self._check(self._requests.one(tenant_id, identifier, (limit, window_seconds, policy), cost))

    async def check_rate_limits(self, tenant_id: TenantId, limits: Limits, *, cost: int = 1) -> RateLimitResult:
        """Take units from several policies if all admit them; else from none.

        Args:
            tenant_id: whose limits.
            limits: pairs of an identifier (or ``WHOLE_TENANT``) and a policy, its name, or a text.
            cost: units to take from each.

        Raises:
            ValidationError: an argument is not valid.
        """
        return await self._check(self._requests.several(tenant_id, limits, cost))

    async def peek_rate_limits(self, tenant_id: TenantId, limits: Limits, *, cost: int = 1) -> RateLimitResult:
        """Answer as ``check_rate_limits`` would, and take nothing."""
        return await self._peek(self._requests.several(tenant_id, limits, cost))

    async def increment_counter(
        self, tenant_id: TenantId, identifier: Identifier, window_seconds: int, *, cost: int = 1
    ) -> int:
        """Take units in any case; return how many count now in the window.

        They count for ``check_rate_limit`` of the same window.
        """
        request = self._requests.one(tenant_id, identifier, (MOST_UNITS, window_seconds, None), cost)
        return (await self._or_locally(self._server.force, request, force=True)).current_count

    async def get_remaining_quota(
        self,
        tenant_id: TenantId,
        identifier: Identifier,
        limit: int | None = None,
        window_seconds: int | None = None,
        *,
        policy: PolicyLike | None = None,
    ) -> int:
        """Return how many units are left; takes the arguments of ``check_rate_limit``."""
        request = self._requests.one(tenant_id, identifier, (limit, window_seconds, policy))
        return (await self._peek(request)).remaining

    async def get_rate_limit_info(
        self,
        tenant_id: TenantId,
        identifier: Identifier,
        limit: int | None = None,
        window_seconds: int | None = None,
        *,
        policy: PolicyLike | None = None,
    ) -> dict[str, Any]:
        """Return limit, remaining, reset_time, window_seconds and current_count, and take nothing."""
        result = await self._peek(self._requests.one(tenant_id, identifier, (limit, window_seconds, policy)))
        return {
            "limit": result.limit,
            "remaining": result.remaining,
            "reset_time": result.reset_time,
            "window_seconds": result.policy.seconds,
            "current_count": result.current_count,
        }

    async def reset_rate_limit(self, tenant_id: TenantId, identifier: Identifier) -> bool:
        """Forget everything of an identity: all its policies, reservations, and block; say whether there was any.

        Raises:
            ConnectionError: the server is away.
        """
        tenant_id, identifier = checked_identity(tenant_id, identifier)
        self._local.forget(tenant_id, identifier)
        try:
            return await self._server.reset(tenant_id, identifier)
        finally:
            self._denials.forget()

    async def reserve(
        self,
        tenant_id: TenantId,
        limits: Limits,
        estimate: int,
        *,
        lease_seconds: float = 60.0,
        reservation_id: str | None = None,
    ) -> Reservation:
        """Take an estimate from several policies if all admit it, to be corrected by ``commit`` or ``release``.

        When the lease is over, a reservation that nobody settled is given back.

        Args:
            tenant_id: whose limits.
            limits: as of ``check_rate_limits``.
            estimate: units to take from each.
            lease_seconds: up to a day.
            reservation_id: the same id takes nothing again; by default a new one.

        Raises:
            ValidationError: an argument is not valid.
        """
        request = self._requests.several(tenant_id, limits, estimate)
        lease = checked_seconds(lease_seconds, "lease_seconds", LONGEST_LEASE) / 1000
        name = new_id() if reservation_id is None else check_identifier(reservation_id, "reservation_id")
        result = await self._or_locally(lambda asked: self._server.reserve(asked, name, lease), request)
        named = tuple((plain(each.identifier), each.policy) for each in request.subjects)
        return Reservation(
            tenant_id=request.tenant_id, reservation_id=name, limits=named, units=estimate, result=result
        )

    async def commit(self, reservation: Reservation, units: int) -> bool:
        """Correct a reservation to what was needed, once; more than the estimate is taken in any case.

        Returns:
            False if it is not known: reset, made while the server was away, or its lease has been over for as long
            again. After the end of the lease all units are taken anew.

        Raises:
            ConnectionError: the server is away; the call may be repeated.
            ValidationError: an argument is not valid.
        """
        request = self._requests.settling(reservation, units)
        try:
            return await self._server.settle(request, reservation.reservation_id)
        except ConnectionError:
            if not reservation.result.degraded:
                raise
            return False
        finally:
            self._denials.forget()

    async def release(self, reservation: Reservation) -> bool:
        """Give a reservation back; the same as ``commit`` of nothing."""
        return await self.commit(reservation, 0)

    async def get_usage(self, tenant_id: TenantId, limits: Limits) -> list[QuotaUsage]:
        """Return what was used of quotas of the calendar, each in the period before this one and in this one.

        ``operations.quota_usage`` writes it down for billing.

        Args:
            tenant_id: whose quotas.
            limits: as of ``check_rate_limits``, all of them of the calendar.

        Raises:
            ConnectionError: the server is away.
            ValidationError: an argument is not valid.
        """
        return await self._server.usage(self._requests.calendar(tenant_id, limits))

    async def get_block(self, tenant_id: TenantId, identifier: str) -> Block | None:
        """Return how the guard has blocked an identity, or None.

        Raises:
            ConnectionError: the server is away.
        """
        return await self._server.block(*checked_identity(tenant_id, identifier))

    async def lift_block(self, tenant_id: TenantId, identifier: str) -> bool:
        """End the block of an identity, and forget its denials; say whether there were any.

        Raises:
            ConnectionError: the server is away.
        """
        try:
            return await self._server.lift(*checked_identity(tenant_id, identifier))
        finally:
            self._denials.forget()

    async def _check(self, request: Request) -> RateLimitResult:
        known = self._denials.recall(request)
        if known is not None:
            return known
        began = self._denials.began()
        result = await self._or_locally(self._server.check, request)
        if not result.allowed and not result.degraded:
            self._denials.remember(request, result, began)
        return result

    async def _peek(self, request: Request) -> RateLimitResult:
        return await self._or_locally(self._server.peek, request, take=False)

    async def _or_locally(
        self, ask: Callable[[Request], Awaitable[RateLimitResult]], request: Request, **how: bool
    ) -> RateLimitResult:
        try:
            return await ask(request)
        except ConnectionError:
            return self._local.check(request, **how)


async def get_rate_limit_repository() -> RateLimitRepository:
    """Return a rate limit repository on the current way to Redis, for dependency injection.

    It knows no policies by name and remembers nothing between requests; a program that needs either keeps one.

    Raises:
        RepositoryError: none is current.
    """
    return RateLimitRepository((await get_redis()).state)
