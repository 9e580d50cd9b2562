"""Overload: calls arrive at twice the rate that can be served, then at half of it, and each second is looked at.

What can be served is found by a closed loop right before. As in the open loop, a call's latency counts from the moment
when it was due. The process that calls is the one that is overloaded: an arrival that it is too late for is not made.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import psutil

from benchmarks.clocks import Clocks
from benchmarks.contest import Contestant
from benchmarks.figures import percentile
from benchmarks.measuring import forget_the_others, take_turn
from benchmarks.open_loop import ARRIVALS_OF_A_TURN, Load
from convostore import DeadlineExceededError

CALLERS = 256
TOO_LATE = 1.0  # seconds
NEAR = 2.0  # a percentile of at most so many times that before the overload is back at it


class Phase(NamedTuple):
    """A part of the load.

    Attributes:
        name: of it.
        factor: calls arrive at so many times the rate that can be served.
        seconds: how long.
    """

    name: str
    factor: float
    seconds: int


class Plan(NamedTuple):
    """How thoroughly to measure.

    Attributes:
        calls: of each caller, to find what can be served.
        before, during, after: seconds of the phases.
    """

    calls: int
    before: int
    during: int
    after: int

    @property
    def phases(self) -> Sequence[Phase]:
        """Return half of what can be served, twice as much, and half again."""
        return Phase("before", 0.5, self.before), Phase("overload", 2, self.during), Phase("after", 0.5, self.after)


@dataclass(slots=True)
class Second:
    """What became of the calls that were due in one second.

    Attributes:
        phase: of the load.
        arrived: how many there were.
        latencies: of those that were served, in seconds.
        refused: turned away because too many waited already.
        late: ended by their deadline.
        failed: ended with another error.
        missed: not made, for the process was too far behind.
        resident: memory of the process as the second began, in bytes.
    """

    phase: Phase
    arrived: int = 0
    latencies: list[float] = field(default_factory=list)
    refused: int = 0
    late: int = 0
    failed: int = 0
    missed: int = 0
    resident: int = 0


@dataclass(frozen=True, slots=True)
class Overload:
    """What became of the calls of all phases: before, during and after the overload.

    Attributes:
        case: what was called.
        capacity: calls a second that a closed loop was served.
        phases: in their order.
        seconds: of all phases.
    """

    case: str
    capacity: float
    phases: Sequence[Phase]
    seconds: Sequence[Second]

    def of(self, phase: Phase) -> list[Second]:
        """Return the seconds of a phase."""
        return [second for second in self.seconds if second.phase is phase]

    def tail(self, phase: Phase) -> float:
        """Return the 99th percentile of the served calls of a phase, in seconds."""
        return percentile(sorted(each for second in self.of(phase) for each in second.latencies), 0.99)

    def tails(self, phase: Phase) -> list[float]:
        """Return the same of each second of a phase."""
        return [percentile(sorted(second.latencies), 0.99) for second in self.of(phase)]

    @property
    def back_after(self) -> int | None:
        """Seconds from the end of the overload until the tail was back for good; None if it was not."""
        bound = NEAR * self.tail(self.phases[0])
        tails = self.tails(self.phases[-1])
        far = [number for number, tail in enumerate(tails) if not tail <= bound]
        back = far[-1] + 1 if far else 0
        return None if back == len(tails) else back


class _Arrivals:
    """The calls of all phases, as they become due."""

    def __init__(self, contestant: Contestant, clocks: Clocks, seconds: Sequence[Second]) -> None:
        self._call, self._clock, self._seconds = contestant.call, clocks.wall, seconds
        self._open: set[asyncio.Task[None]] = set()

    async def run(self, rates: Sequence[float]) -> None:
        """Let so many calls a second arrive, for each second in turn; return when all have ended."""
        started, process = self._clock(), psutil.Process()
        for number, (second, rate) in enumerate(zip(self._seconds, rates, strict=True)):
            second.resident = process.memory_info().rss
            for moment in Load(rate, seconds=1, seed=number).arrivals():
                await self._arrive(second, started + number + moment)
        if self._open:
            await asyncio.wait(self._open)

    async def _arrive(self, second: Second, due: float) -> None:
        ahead = due - self._clock()
        if ahead > 0:
            await asyncio.sleep(ahead)
        elif second.arrived % ARRIVALS_OF_A_TURN == 0:
            await asyncio.sleep(0)
        second.arrived += 1
        if -ahead > TOO_LATE:
            second.missed += 1
            return
        task = asyncio.create_task(self._make(second, due))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _make(self, second: Second, due: float) -> None:
        try:
            await self._call()
        except DeadlineExceededError as error:
            crowded = "too many" in str(error)
            second.refused += crowded
            second.late += not crowded
        except Exception:  # noqa: BLE001 - whatever is raised under load is told as a figure
            second.failed += 1
        else:
            second.latencies.append(self._clock() - due)


async def overload(case: str, contestant: Contestant, plan: Plan, clocks: Clocks) -> Overload:
    """Find what can be served, then let calls arrive as the phases say.

    Args:
        case: the name of the work.
        contestant: who does it.
        plan: how thoroughly.
        clocks: what is read.
    """
    await take_turn(contestant, CALLERS, 1 + plan.calls // 10, clocks)
    capacity = 1 / (await take_turn(contestant, CALLERS, plan.calls, clocks)).each
    forget_the_others()
    phases = plan.phases
    seconds = [Second(phase) for phase in phases for _ in range(phase.seconds)]
    await _Arrivals(contestant, clocks, seconds).run([second.phase.factor * capacity for second in seconds])
    if contestant.settle is not None:
        await contestant.settle()
    return Overload(case, capacity, phases, seconds)
