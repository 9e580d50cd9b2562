"""What a cache has done so far."""

from dataclasses import dataclass


@dataclass(slots=True)
class CacheStatistics:
    """Counts since the repository was made.

    Attributes:
        hits: reads that found a value, or the knowledge that there is nothing.
        misses: reads that found neither.
        loads: loads begun, refreshes included.
        failed_loads: loads that raised an error.
        refreshes: values that were found due for a refresh, by which a load may have begun.
        joins: reads that waited for a load, or a look, of the same process.
        waits: pauses for a load of another process.
        refused_fills: loaded values that were not put in, because the cell had moved on.
        uncacheable: values that were too large, or that their codec or version could not be told of.
        foreign: cells found that this layout or codec cannot read.
        outages: calls to the cache that failed.
    """

    hits: int = 0
    misses: int = 0
    loads: int = 0
    failed_loads: int = 0
    refreshes: int = 0
    joins: int = 0
    waits: int = 0
    refused_fills: int = 0
    uncacheable: int = 0
    foreign: int = 0
    outages: int = 0

    @property
    def hit_ratio(self) -> float:
        """Hits among all reads; 0 before the first."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else 0.0
