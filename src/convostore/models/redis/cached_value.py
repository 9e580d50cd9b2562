"""CachedValue: what the cache holds for a key."""

from datetime import UTC, datetime, timedelta
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CachedValue(NamedTuple, Generic[T]):
    """What was found; a miss is None instead.

    Attributes:
        value: the value, or None for the knowledge that there is nothing.
        version: of the value; for one without versions, of the last write that was known when it was stored.
        expires: the moment when it ends, in microseconds of the server's clock.
    """

    value: T | None
    version: int
    expires: int

    @property
    def is_negative(self) -> bool:
        """Whether it says that there is nothing."""
        return self.value is None

    @property
    def expires_at(self) -> datetime:
        """The moment when it ends."""
        return _EPOCH + timedelta(microseconds=self.expires)
