"""Units of a limit, taken before it is known how many are needed."""

from typing import Annotated

from pydantic import InstanceOf

from convostore.models.document import Value
from convostore.models.redis.rate_limit_result import RateLimitResult
from convostore.models.redis.rate_limits import RateLimitPolicy, Units
from convostore.models.types import IdempotencyKey, TenantId


class Reservation(Value):
    """Units taken beforehand.

    Any process may settle it: of the fields all but ``result`` say everything, and are plain.

    Attributes:
        tenant_id: whose.
        reservation_id: by which it is known.
        limits: identifier (None for the whole tenant) and policy of each.
        units: the estimate.
        result: the answer of the policies.
    """

    tenant_id: TenantId
    reservation_id: IdempotencyKey
    limits: tuple[tuple[str | None, RateLimitPolicy], ...]
    units: Units
    result: Annotated[RateLimitResult, InstanceOf()]

    @property
    def allowed(self) -> bool:
        """Whether they were taken."""
        return self.result.allowed
