"""Usage of quotas, written to MongoDB for billing.

Redis counts, and forgets a period when the one after it has ended; MongoDB keeps. For each policy, period and identity
of a tenant one document holds the highest count that was seen. So writing again, late, or from several programs at once
changes nothing, and an identity that is reset, or a Redis that comes back empty, lowers nothing that was written. Write
several times in each period, and once after it: what is used between the last time and such a loss is not known.
"""

from collections.abc import Sequence

from convostore.gateways.tally_collection import Tally, TallyCollection
from convostore.gateways.tenant_database import TenantDatabase
from convostore.models.redis.quota_usage import QuotaUsage
from convostore.repositories.rate_limit_keys import MOST_SUBJECTS, Identifier, PolicyLike
from convostore.repositories.rate_limit_repository import RateLimitRepository

COLLECTION = "usage"
_ENTITY = "QuotaUsage"


async def write_usage(
    limits: RateLimitRepository, database: TenantDatabase, quotas: Sequence[tuple[Identifier, PolicyLike]]
) -> list[QuotaUsage]:
    """Write down what a tenant has used of quotas in the period that runs and in the one before.

    Args:
        limits: where it is counted.
        database: where it is kept, and whose.
        quotas: pairs of an identifier (or ``WHOLE_TENANT``) and a policy of the calendar, or its name.

    Returns:
        What was counted, without what nobody has used.

    Raises:
        ConnectionError: a server is away; the call may be repeated.
        ValidationError: a policy is none of the calendar.
    """
    tallies = TallyCollection(database.gateway, COLLECTION, database.tenant_id, _ENTITY)
    used: list[QuotaUsage] = []
    for begin in range(0, len(quotas), MOST_SUBJECTS):
        told = await limits.get_usage(database.tenant_id, quotas[begin : begin + MOST_SUBJECTS])
        used += [usage for usage in told if usage.units]
    await tallies.raise_all(dict(map(_tally, used)))
    return used


async def written_usage(database: TenantDatabase, policy: str, period: str) -> list[QuotaUsage]:
    """Return what was written of a policy in a period, the whole tenant first, then each identity."""
    found = await database.collection(COLLECTION, _ENTITY).find_range((policy, period))
    return [QuotaUsage(each["identifier"], policy, period, each["units"]) for each in found]


def _tally(usage: QuotaUsage) -> tuple[tuple[str, ...], Tally]:
    fields = {"identifier": usage.identifier, "policy": usage.policy, "period": usage.period}
    # No identifier is empty: the whole tenant's place is nobody else's.
    return (usage.policy, usage.period, usage.identifier or ""), Tally(fields, "units", usage.units)
