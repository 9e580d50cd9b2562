"""The closed loop: so many callers, each of whom calls again when he has his answer.

The contestants take turns, round by round, so that noise strikes all of them; ratios are taken within a round.
"""

import asyncio
import gc
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from benchmarks.clocks import Clock, Clocks
from benchmarks.contest import Call, Case, Contestant
from benchmarks.figures import Spread, percentile

WARM_UP_CALLS = 64  # of all callers together: each of the conversations that are appended to has been by then


class Plan(NamedTuple):
    """How thoroughly to measure.

    Attributes:
        rounds: how often each contestant has his turn.
        seconds: how long a turn takes, about.
        at_most: calls of a caller in a turn, at most.
        at_least: the same, at least, where there are several: they begin and end together, which is no steady state.
    """

    rounds: int
    seconds: float
    at_most: int = 20_000
    at_least: int = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn of a contestant; times in seconds, those of processors for an operation."""

    operations: int
    failed: int
    wall: float
    client: float
    servers: float
    p50: float
    p99: float

    @property
    def each(self) -> float:
        """Seconds of the wall for an operation, whoever else calls meanwhile."""
        return self.wall / self.operations


@dataclass(frozen=True, slots=True)
class Result:
    """The turns of a contestant beside those of the first one of his case.

    Attributes:
        case, callers, contestant: what was measured.
        samples: his turns.
        beside: the turns of the first in the same rounds.
    """

    case: str
    callers: int
    contestant: str
    samples: Sequence[Sample]
    beside: Sequence[Sample]

    def median(self, figure: str) -> float:
        """Return the median of a figure of the samples."""
        return statistics.median(getattr(sample, figure) for sample in self.samples)

    def spent(self, processor: str) -> float:
        """Return the processor time of an operation, over all turns: its clock is too coarse for a single one."""
        total = sum(getattr(sample, processor) * sample.operations for sample in self.samples)
        return total / sum(sample.operations for sample in self.samples)

    @property
    def failed(self) -> int:
        """How many calls raised an error."""
        return sum(sample.failed for sample in self.samples)

    @property
    def per_second(self) -> float:
        """Operations a second."""
        return 1 / self.median("each")

    @property
    def time(self) -> Spread:
        """Time of a call beside the first's; below 1 is faster."""
        return self._ratio(lambda mine, his: mine.p50 / his.p50)

    @property
    def tail(self) -> Spread:
        """The 99th percentile beside the first's."""
        return self._ratio(lambda mine, his: mine.p99 / his.p99)

    @property
    def throughput(self) -> Spread:
        """Operations a second beside the first's; above 1 is faster."""
        return self._ratio(lambda mine, his: his.each / mine.each)

    def _ratio(self, ratio: Callable[[Sample, Sample], float]) -> Spread:
        return Spread.of(map(ratio, self.samples, self.beside))


def forget_the_others() -> None:
    """Let the garbage collector overlook all that is there: a contestant would pay for looking through the others'."""
    gc.collect()
    gc.freeze()


async def compare(case: Case, callers: int, plan: Plan, clocks: Clocks) -> list[Result]:
    """Measure all contestants of a case in turns; the order rotates from round to round."""
    forget_the_others()
    count = len(case.contestants)
    times = [await _calls_of_a_turn(one, callers, plan, clocks) for one in case.contestants]
    turns: list[list[Sample]] = [[] for _ in range(count)]
    for number in range(plan.rounds):
        for place in range(count):
            who = (number + place) % count
            turns[who].append(await take_turn(case.contestants[who], callers, times[who], clocks))
    return [
        Result(case.name, callers, one.name, samples, turns[0])
        for one, samples in zip(case.contestants, turns, strict=True)
    ]


async def _calls_of_a_turn(contestant: Contestant, callers: int, plan: Plan, clocks: Clocks) -> int:
    """Warm up, then find how many calls of each caller fill a turn."""
    first = min(max(2, WARM_UP_CALLS // callers), plan.at_most)
    await take_turn(contestant, callers, first, clocks)
    sample = await take_turn(contestant, callers, first, clocks)
    least = plan.at_least if callers > 1 else 1
    return max(least, min(plan.at_most, round(plan.seconds / (sample.each * callers))))


async def take_turn(contestant: Contestant, callers: int, times: int, clocks: Clocks) -> Sample:
    """Let so many callers call so many times each, and finish what they have left for later."""
    latencies: list[float] = []
    caller = partial(_call_again, contestant.call, times, clocks.wall, latencies)
    wall, client, servers = clocks.wall(), clocks.client(), clocks.servers()
    failures = await asyncio.gather(*(caller() for _ in range(callers)))
    if contestant.settle is not None:
        await contestant.settle()
    operations = callers * times
    wall, client, servers = clocks.wall() - wall, clocks.client() - client, clocks.servers() - servers
    latencies.sort()
    middle, tail = percentile(latencies, 0.5), percentile(latencies, 0.99)
    return Sample(operations, sum(failures), wall, client / operations, servers / operations, middle, tail)


async def _call_again(call: Call, times: int, clock: Clock, latencies: list[float]) -> int:
    """Call so many times, one after the other; return how many failed."""
    failed = 0
    for _ in range(times):
        started = clock()
        try:
            await call()
        except Exception:  # noqa: BLE001 - whatever a library raises under load is told as a figure
            failed += 1
        latencies.append(clock() - started)
    return failed
