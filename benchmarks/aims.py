"""What convostore aims at, as ratios to the raw driver on the same work in one run, write concern majority."""

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks import contest
from benchmarks.measuring import Result
from benchmarks.open_loop import Tally
from benchmarks.overload import Overload

ALONE, MANY = 1, 64
TAIL = 1.2
OPEN_RATE = 10_000


@dataclass(frozen=True, slots=True)
class Aim:
    """A bound on a ratio.

    Attributes:
        bound: the ratio.
        at_least: whether it is to be reached, rather than not exceeded.
    """

    bound: float
    at_least: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"

    def verdict(self, ratio: float) -> str:
        """Return the aim, and whether a ratio meets it as it is shown, with two decimals."""
        shown = round(ratio, 2)
        met = shown >= self.bound if self.at_least else shown <= self.bound
        return f"{self} {'met' if met else 'MISSED'}"


def _aims(time: float | None, throughput: float) -> dict[int, Aim]:
    alone = {} if time is None else {ALONE: Aim(time)}
    return alone | {MANY: Aim(throughput, at_least=True)}


AIMS = {
    contest.GET: _aims(1.08, 6.0),
    contest.EXISTS: _aims(1.08, 6.0),
    contest.CREATE: _aims(1.10, 4.5),
    contest.UPDATE: _aims(1.08, 3.5),
    contest.APPEND_MANY: _aims(1.2, 4.5),
    contest.APPEND_ONE: _aims(1.2, 4.5),
    contest.NEWEST: _aims(1.12, 1.0),
    contest.PAGE: _aims(1.12, 1.0),
    contest.RATE: _aims(1.15, 2.0),
    contest.SESSION: {},
    contest.CACHE: _aims(1.10, 4.0),
    contest.CELL: _aims(0.45, 2.22),  # beside the same read without the cache
    contest.CELLS: _aims(0.45, 2.22),
}
CHAT_SHARE = Aim(0.05)  # of the reads that go to the database, once the cells are filled
IMPORT_AIM = Aim(0.9, at_least=True)
BACK_WITHIN = 5  # seconds after an overload
OPEN_P99 = {contest.GET: 0.010, contest.APPEND_MANY: 0.050}  # seconds, at OPEN_RATE, every arrival served


def verdict(result: Result) -> str:
    """Return what a result aims at and whether it meets it; nothing for the work of others."""
    aim = AIMS.get(result.case, {}).get(result.callers)
    if aim is None or result.contestant != contest.OURS:
        return ""
    return aim.verdict(result.time.median if result.callers == ALONE else result.throughput.median)


def tail_verdict(results: Iterable[Result]) -> str:
    """Return which work, done by one caller, has a longer tail beside the raw driver's than is aimed at."""
    alone = [one for one in results if one.contestant == contest.OURS and one.callers == ALONE]
    worse = [one.case for one in alone if round(one.tail.median, 2) > TAIL]
    return f"MISSED by {', '.join(worse)}" if worse else "met by all"


def open_verdict(work: str, rate: float, contestant: str, tally: Tally) -> str:
    """Return the aim of the open loop, and whether it was met."""
    if rate != OPEN_RATE or contestant != contest.OURS or work not in OPEN_P99:
        return ""
    met = tally.served == tally.arrived and tally.percentile(0.99) < OPEN_P99[work]
    return f"all, p99 < {OPEN_P99[work] * 1e3:g} ms {'met' if met else 'MISSED'}"


def overload_verdict(found: Overload) -> str:
    """Return how soon the tail was back after an overload, and whether that was soon enough."""
    back = found.back_after
    told = "not back" if back is None else f"back after {back} s"
    return f"{told}, ≤ {BACK_WITHIN} s {'MISSED' if back is None or back > BACK_WITHIN else 'met'}"
