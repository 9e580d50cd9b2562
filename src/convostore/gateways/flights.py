"""Flights: the batches and lone calls under way, and what those that take long may be held up by."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much travels together, and how much may wait.

    Attributes:
        flights: batches and lone calls under way at the same time; more than two gain nothing.
        items: in a batch at most.
        size: of a batch in bytes, at most, unless a single item is larger.
        waiting: items at most, all owners together; further ones are refused.
        patience: seconds after which a flight no longer holds up those who wait, for one of its calls may be held up
            itself, as a write is by somebody's open transaction; None: however long it takes, as where the order
            counts.
        late: flights at most, those included that take longer.
    """

    flights: int = 2
    items: int = 500
    size: int = 4_000_000
    waiting: int = 10_000
    patience: float | None = 0.1
    late: int = 16


class Flight(Generic[Item]):
    """One batch or lone call under way.

    Attributes:
        items: what it carries.
        left: the loop's time at which it has left.
        apart: whether it carries what is thought to be held up.
    """

    __slots__ = ("apart", "items", "left")

    def __init__(self, items: Sequence[Item], left: float, *, apart: bool) -> None:
        self.items = items
        self.left = left
        self.apart = apart


class Flights(Generic[Item]):
    """All that is under way.

    Args:
        limits: how many there may be.
        subject: what an item concerns; items that concern the same as one that is late travel apart. None: whatever
            it is, nobody can hold it up for long.
    """

    def __init__(self, limits: BatchLimits, subject: Callable[[Item], Hashable] | None) -> None:
        self._limits = limits
        self._subject = subject
        self._under_way: set[Flight[Item]] = set()

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def carried(self) -> int:
        """How many items are under way."""
        return sum([len(flight.items) for flight in self._under_way])

    def begin(self, items: Sequence[Item], now: float, *, apart: bool = False) -> Flight[Item]:
        """Let one leave."""
        flight = Flight(items, now, apart=apart)
        self._under_way.add(flight)
        return flight

    def end(self, flight: Flight[Item]) -> None:
        """Take note that one has come to its end; it may be told twice."""
        self._under_way.discard(flight)

    def has_room(self, now: float) -> bool:
        """Say whether one more may leave."""
        count = len(self._under_way)
        if count < self._limits.flights or self._limits.patience is None:
            return count < self._limits.flights
        return count - len(self._late(now)) < self._limits.flights and count < self._limits.late

    def has_room_apart(self) -> bool:
        """Say whether one more may leave with what is thought to be held up; the others need room as well."""
        return sum(flight.apart for flight in self._under_way) < self._limits.late // 2

    def held_up(self, now: float) -> set[Hashable]:
        """Return the subjects of all that is late: one of them may be what holds up the others."""
        if self._subject is None or len(self._under_way) == 0:
            return set()
        return {self._subject(item) for flight in self._late(now) for item in flight.items}

    def concerns(self, item: Item, subjects: set[Hashable]) -> bool:
        """Say whether an item concerns one of some subjects."""
        return self._subject is not None and self._subject(item) in subjects

    def _late(self, now: float) -> list[Flight[Item]]:
        if self._limits.patience is None:
            return []
        return [flight for flight in self._under_way if now - flight.left >= self._limits.patience]
