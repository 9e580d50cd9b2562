"""Requests of rate limits: what callers give, checked before anything is asked."""

from collections.abc import Iterable, Mapping

from convostore.models.identity import check_identifier
from convostore.models.redis.rate_limits import MOST_UNITS, WHOLE_TENANT, RateLimitPolicy, WhenUnavailable
from convostore.models.redis.reservation import Reservation
from convostore.repositories.exceptions import ValidationError
from convostore.repositories.rate_limit_keys import (
    Identifier,
    Policies,
    PolicyLike,
    Request,
    Subject,
    checked_cost,
    windowed,
)
from convostore.repositories.redis_repository import checked_whole


class Requests:
    """Makes requests of arguments; raises ValidationError, which names the argument, for one that is not valid.

    Args:
        policies: those with a name.
        when_unavailable: what happens to limits given as numbers while the server is away.
    """

    def __init__(
        self, policies: Iterable[RateLimitPolicy] | Mapping[str, PolicyLike], when_unavailable: WhenUnavailable
    ) -> None:
        self._policies = Policies(policies)
        self._when_unavailable = WhenUnavailable(when_unavailable)

    def one(
        self, tenant_id: object, identifier: object, wanted: tuple[object, object, object], cost: object = 1
    ) -> Request:
        """Return the request of one policy, given as a limit and its window or else as itself."""
        limit, window_seconds, policy = wanted
        tenant, checked = checked_identity(tenant_id, identifier)
        if policy is None:
            subject = Subject(checked, *windowed(limit, window_seconds, self._when_unavailable))
        elif limit is None and window_seconds is None:
            subject = self._policies.subject(checked, policy)
        else:
            raise ValidationError("policy: stands in the place of limit and window_seconds", "policy")
        return Request(tenant, (subject,), checked_cost(cost, (subject,)))

    def several(self, tenant_id: object, limits: object, cost: object) -> Request:
        """Return the request of pairs of an identifier and a policy."""
        tenant = check_identifier(tenant_id, "tenant_id")
        subjects = self._policies.subjects(limits)
        return Request(tenant, subjects, checked_cost(cost, subjects))

    def calendar(self, tenant_id: object, limits: object) -> Request:
        """Return the request of pairs whose policies are all quotas of the calendar."""
        request = Request(check_identifier(tenant_id, "tenant_id"), self._policies.subjects(limits))
        for subject in request.subjects:
            if not subject.policy.algorithm.is_calendar:
                raise ValidationError(f"limits: policy '{subject.policy.name}' is no quota of the calendar", "limits")
        return request

    def settling(self, reservation: object, units: object) -> Request:
        """Return the request that a reservation be corrected; its cost is what was needed, which may be nothing."""
        if not isinstance(reservation, Reservation) or not reservation.allowed:
            raise ValidationError("reservation: must be a reservation that was admitted", "reservation")
        checked = checked_whole(units, "units", lowest=0, highest=MOST_UNITS)
        pairs = [(WHOLE_TENANT if name is None else name, policy) for name, policy in reservation.limits]
        return Request(reservation.tenant_id, self._policies.subjects(pairs), checked)


def checked_identity(tenant_id: object, identifier: object) -> tuple[str, Identifier]:
    """Return a tenant, and an identifier or ``WHOLE_TENANT``.

    Raises:
        ValidationError: one of them can be none.
    """
    tenant = check_identifier(tenant_id, "tenant_id")
    return tenant, WHOLE_TENANT if identifier is WHOLE_TENANT else check_identifier(identifier, "identifier")
