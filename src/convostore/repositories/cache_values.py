"""Between values and cells: what a cell is worth to a reader, and what of a value can be put into one."""

from collections.abc import Callable
from typing import Any, TypeVar

from convostore.logs import get_logger
from convostore.models.redis.cached_value import CachedValue
from convostore.repositories.cache_cell import Cell, is_foreign
from convostore.repositories.cache_cells import Content, Stored
from convostore.repositories.cache_space import CacheSpace, check_version
from convostore.repositories.cache_statistics import CacheStatistics

T = TypeVar("T")


class CacheValues:
    """Decodes and encodes, and counts what cannot be.

    Args:
        statistics: where it is counted.
        random: draws from the interval from 0 to below 1.
    """

    def __init__(self, statistics: CacheStatistics, random: Callable[[], float]) -> None:
        self._statistics = statistics
        self._random = random
        self._logger = get_logger("cache")

    def cell(self, stored: Stored) -> Cell | None:
        """Return the value's cell, if one is there; what somebody else put there is counted."""
        cell = Cell.parse(stored.cell)
        if cell is None and is_foreign(stored.cell):
            self._statistics.foreign += 1
        return cell

    def decoded(self, space: CacheSpace[T], cell: Cell | None, generations: bytes | None) -> CachedValue[T] | None:
        """Return the value of a cell, or None if its tags have moved on, or nobody can read it."""
        if cell is None or cell.generations != generations:
            return None
        if cell.is_negative:
            return CachedValue(None, cell.version, cell.expires)
        try:
            return CachedValue(space.codec.decode(cell.data), cell.version, cell.expires)
        except Exception:  # noqa: BLE001 - a codec may raise anything about bytes that it has not made
            self._statistics.foreign += 1
            return None

    def content(self, space: CacheSpace[T], value: T | None, floor: int) -> Content | None:
        """Return what to put into a cell for a loaded value, or None if it cannot be cached.

        Args:
            space: how it is kept.
            value: what was loaded, or None if there is nothing.
            floor: the version of what has none.
        """
        if value is None:
            return Content(floor, space.life(space.negative_ttl, self._random()), None) if space.negative_ttl else None
        try:
            return self.encoded(space, value, floor)
        except Exception as error:  # noqa: BLE001 - what cannot be cached can still be read
            self._statistics.uncacheable += 1
            self._logger.warning("value cannot be cached", space=space.name, error=type(error).__name__)
            return None

    def encoded(self, space: CacheSpace[T], value: T, floor: int) -> Content:
        """Return what to put into a cell for a value.

        Raises:
            ValueError: it is too large, or its version is none.
            Exception: whatever the codec raises.
        """
        version = floor if space.version_of is None else check_version(space.version_of(value))
        data = space.codec.encode(value)
        if len(data) > space.max_bytes:
            raise ValueError(f"at most {space.max_bytes} bytes, not {len(data)}")
        return Content(version, space.life(space.ttl, self._random()), data)

    def copy(self, space: CacheSpace[T], value: T | None, data: bytes | None) -> T | None:
        """Return a value for another reader, so that two of them never share one that can be changed."""
        if value is None or data is None:
            return value
        try:
            return space.codec.decode(data)
        except Exception:  # noqa: BLE001 - a codec that cannot read what it has made
            return value


def decoded_data(found: Any) -> bytes | None:
    """Return the bytes of a cell that holds a value."""
    return None if found is None or found.is_negative else found.data
