"""A nemesis: applies faults one after the other, by a schedule that follows from a seed.

    nemesis = Nemesis(seed=7, duration=60, kinds=["kill", "freeze"])
    journal = await nemesis.run({"kill": kill, "freeze": freeze})

The name and the idea are Jepsen's: https://jepsen.io
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

__all__ = ["Entry", "Nemesis", "Step", "StepFault"]


@dataclass(frozen=True)
class Step:
    """One fault of a schedule.

    Attributes:
        quiet: seconds without a fault before it.
        kind: which fault.
        seconds: how long it lasts.
        seed: of whatever it chooses by itself.
    """

    quiet: float
    kind: str
    seconds: float
    seed: int


@dataclass(frozen=True)
class Entry:
    """What was done.

    Attributes:
        kind: which fault.
        detail: what it befell.
        begin: moment when it began, of ``time.monotonic()``, which all processes of a machine share.
        end: moment when everything was whole again, as far as the fault knows.
    """

    kind: str
    detail: str
    begin: float
    end: float


StepFault = Callable[[Step], AbstractAsyncContextManager[str]]
"""Makes a fault: it is there from the entry of what is returned, which says what it befell, to the exit."""


class Nemesis:
    """Faults in a random order that a seed determines; each kind comes up equally often.

    Args:
        seed: of the schedule; the same arguments give the same one.
        duration: seconds that the schedule takes at least, its quiet spells included.
        kinds: the names of the faults.
        quiet: seconds between two faults, the shortest and the longest.
        lasting: seconds that a fault lasts, the shortest and the longest.

    Attributes:
        schedule: the faults in their order.
        journal: what was done so far.
    """

    def __init__(
        self,
        seed: int,
        duration: float,
        kinds: Sequence[str],
        *,
        quiet: tuple[float, float] = (1.0, 3.0),
        lasting: tuple[float, float] = (0.5, 3.0),
    ) -> None:
        self._random = random.Random(seed)  # noqa: S311 - it is to be predictable
        self._quiet, self._lasting = quiet, lasting
        self.schedule = tuple(self._until(duration, list(kinds)))
        self.journal: list[Entry] = []

    def _until(self, duration: float, kinds: list[str]) -> Iterator[Step]:
        spent = 0.0
        while spent < duration and kinds:
            self._random.shuffle(kinds)
            for kind in kinds:
                step = self._step(kind)
                spent += step.quiet + step.seconds
                if spent <= duration:
                    yield step

    def _step(self, kind: str) -> Step:
        draw = self._random.uniform
        return Step(round(draw(*self._quiet), 3), kind, round(draw(*self._lasting), 3), self._random.getrandbits(32))

    async def run(self, faults: Mapping[str, StepFault], until: Callable[[], bool] = lambda: False) -> Sequence[Entry]:
        """Apply the faults of the schedule, one after the other, and return the journal.

        Args:
            faults: how each kind is made.
            until: asked before each fault whether it is enough.

        Raises:
            Exception: whatever a fault raises; the injector has failed then, not what is tested.
        """
        for step in self.schedule:
            await asyncio.sleep(step.quiet)
            if until():
                break
            begin = time.monotonic()
            async with faults[step.kind](step) as detail:
                await asyncio.sleep(step.seconds)
            self.journal.append(Entry(step.kind, detail, begin, time.monotonic()))
        return self.journal
