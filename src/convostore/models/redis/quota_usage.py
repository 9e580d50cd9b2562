"""What was used of a quota of the calendar."""

from datetime import date, timedelta
from typing import NamedTuple

from convostore.models.redis.rate_limits import Algorithm

_EPOCH = date(1970, 1, 1)
_MONTHS = 12


class QuotaUsage(NamedTuple):
    """What was used of a quota in a period.

    Attributes:
        identifier: by whom, or None for the whole tenant.
        policy: the name of the quota.
        period: the day, such as ``2026-11-25``, or the month, such as ``2026-11``, of the UTC calendar.
        units: how many; those of reservations only once they are settled.
    """

    identifier: str | None
    policy: str
    period: str
    units: int


def period_name(algorithm: Algorithm, number: int) -> str:
    """Return what a period is called.

    Args:
        algorithm: ``DAY`` or ``MONTH``.
        number: days since 1970, or months since the year 0, as scripts count them.
    """
    if algorithm is Algorithm.DAY:
        return (_EPOCH + timedelta(days=number)).isoformat()
    return f"{number // _MONTHS:04}-{number % _MONTHS + 1:02}"
