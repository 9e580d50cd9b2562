"""CacheSpace: what is cached under a name, and how."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from convostore.models.identity import check_identifier
from convostore.repositories.cache_codec import Codec, PlainCodec
from convostore.repositories.exceptions import ValidationError

T = TypeVar("T")
DAY = 86_400.0
MAX_TTL = 30 * DAY
MAX_BYTES = 64 * 1024 * 1024
MAX_VERSION = 2**53 - 1  # a script counts in floating point


@dataclass(frozen=True, slots=True)
class CacheSpace(Generic[T]):
    """The values of one kind.

    Attributes:
        name: tells them from other kinds; part of the keys.
        codec: turns them into bytes and back; by default plain data.
        version_of: tells the version of a value, a whole number that rises with each write of it; None where values
            have no versions.
        ttl: seconds that a value is kept at most.
        negative_ttl: seconds that the knowledge that there is nothing is kept at most; 0 keeps none.
        jitter: the part of the time to live by which it is shortened at random, so that what was stored together does
            not end together.
        beta: how early values are refreshed before they end: 1 is the optimum of the paper, more is earlier, 0 never.
        patience: seconds that a reader waits for a load in another process before it loads by itself.
        max_bytes: a larger value is not cached.

    Raises:
        ValidationError: one of them cannot be right; names it.
    """

    name: str
    codec: Codec[T] = field(default_factory=PlainCodec)
    version_of: Callable[[T], int] | None = None
    ttl: float = 300.0
    negative_ttl: float = 30.0
    jitter: float = 0.1
    beta: float = 1.0
    patience: float = 5.0
    max_bytes: int = 1024 * 1024

    def __post_init__(self) -> None:
        check_identifier(self.name, "name")
        _check_number(self.ttl, "ttl", 0.001, MAX_TTL)
        _check_number(self.negative_ttl, "negative_ttl", 0, MAX_TTL)
        _check_number(self.jitter, "jitter", 0, 0.9)
        _check_number(self.beta, "beta", 0, 1000)
        _check_number(self.patience, "patience", 0, 3600)
        _check_number(self.max_bytes, "max_bytes", 1, MAX_BYTES)

    def life(self, seconds: float, random: float) -> int:
        """Return how many milliseconds to keep something, shortened by its random part.

        Args:
            seconds: the longest.
            random: of the interval from 0 to 1.
        """
        return max(1, int(1000 * seconds * (1 - self.jitter * random)))


def check_space(space: object) -> None:
    """Make sure that it is a space.

    Raises:
        ValidationError: it is not.
    """
    if not isinstance(space, CacheSpace):
        raise ValidationError(f"space: must be a CacheSpace, not {type(space).__name__}", "space")


def check_version(version: object) -> int:
    """Return a version, if it can be one: a whole number from 0, below 2 to the 53rd.

    Raises:
        ValidationError: it cannot.
    """
    if type(version) is not int or not 0 <= version <= MAX_VERSION:
        raise ValidationError("version: must be a whole number from 0 to 2**53 - 1", "version")
    return version


def _check_number(value: Any, name: str, lowest: float, highest: float) -> None:
    right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not right or not lowest <= value <= highest:
        raise ValidationError(f"{name}: must be a number from {lowest:g} to {highest:g}", name)
