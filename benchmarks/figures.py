"""Figures of many measurements: medians, spreads, percentiles."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the bounds of the middle half around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Return the spread of at least one value."""
        ordered = sorted(values)
        quarter = len(ordered) // 4
        return cls(statistics.median(ordered), ordered[quarter], ordered[-1 - quarter])


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value that this share of all does not exceed (nearest rank).

    Args:
        ordered: the values in rising order; of none it is not a number.
        share: between 0 and 1.
    """
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
