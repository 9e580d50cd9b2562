"""SessionPolicy: how long sessions live and how many a user may have."""

from typing import Annotated, Literal

from pydantic import Field

from convostore.models.document import Value
from convostore.models.redis.session_cache import IDLE_SECONDS, LIFETIME, LONGEST
from convostore.repositories.exceptions import RepositoryError

_Length = Annotated[float, Field(ge=0.001, le=LONGEST.total_seconds())]


class SessionPolicy(Value):
    """How long the sessions of a repository live and how many a user may have.

    Attributes:
        idle_seconds: how long a session lives from each use, unless it says otherwise.
        lifetime_seconds: how long it lives at most, unless it says otherwise.
        max_sessions: how many sessions of one user may live; None for any number.
        when_full: ``evict`` ends the one that would expire first, ``reject`` refuses the new one.
    """

    idle_seconds: _Length = IDLE_SECONDS
    lifetime_seconds: _Length = LIFETIME.total_seconds()
    max_sessions: Annotated[int, Field(ge=1, le=100_000)] | None = None
    when_full: Literal["evict", "reject"] = "evict"


class SessionLimitError(RepositoryError):
    """Exception raised when a user has as many sessions as he may have; the new one was not stored.

    Attributes:
        limit: how many he may have.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"the user has {limit} sessions, which is as many as he may have")
        self.limit = limit
