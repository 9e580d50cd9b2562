"""The open loop: calls arrive by themselves at a given rate, whether or not the earlier ones have been answered.

A caller of a closed loop waits while a server stalls, and so hides the stall from the percentiles. Here each call is
due at a moment fixed beforehand, and its latency counts from that moment (Tene, "How not to measure latency", 2013;
Schroeder et al., "Open versus closed: a cautionary tale", NSDI 2006). Arrivals are a Poisson process.
"""

import asyncio
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.clocks import Clock, Clocks
from benchmarks.contest import Contestant
from benchmarks.figures import percentile

ARRIVALS_OF_A_TURN = 32


class Load(NamedTuple):
    """What arrives.

    Attributes:
        rate: calls a second, on average.
        seconds: how long.
        late: an answer later than so many seconds is a late one.
        patience: so many seconds after the last arrival, what is still unanswered is given up.
        seed: of the chance by which they arrive; the same for all contestants.
    """

    rate: float
    seconds: float
    late: float = 0.1
    patience: float = 2.0
    seed: int = 7

    def arrivals(self) -> Iterator[float]:
        """Return when calls arrive, in seconds from the start."""
        chance = random.Random(self.seed)
        moment = chance.expovariate(self.rate)
        while moment < self.seconds:
            yield moment
            moment += chance.expovariate(self.rate)


@dataclass(slots=True)
class Tally:
    """What became of the calls.

    Attributes:
        arrived: how many there were.
        latencies: from the scheduled arrival to the answer; a failed call has none, one given up its age.
        late: answered, but late.
        failed: ended with an error.
        queue: due, but not ended when the time of arrivals was over.
        given_up: not answered when patience ended.
        client, servers: processor time, in seconds.
    """

    arrived: int = 0
    latencies: list[float] = field(default_factory=list)
    late: int = 0
    failed: int = 0
    queue: int = 0
    given_up: int = 0
    client: float = 0.0
    servers: float = 0.0

    @property
    def served(self) -> int:
        """How many were answered."""
        return len(self.latencies) - self.given_up

    def percentile(self, share: float) -> float:
        """Return a percentile of the latencies, in seconds."""
        return percentile(sorted(self.latencies), share)

    @property
    def worst(self) -> float:
        """The longest latency, in seconds."""
        return max(self.latencies, default=math.nan)

    def add(self, other: "Tally") -> None:
        """Take in another turn under the same load."""
        self.latencies += other.latencies
        for name in ("arrived", "late", "failed", "given_up", "client", "servers"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.queue = max(self.queue, other.queue)


class OpenLoop:
    """One turn of a contestant under a load.

    Args:
        contestant: who is called.
        load: what arrives.
        clocks: what is read.
    """

    def __init__(self, contestant: Contestant, load: Load, clocks: Clocks) -> None:
        self._contestant = contestant
        self._load = load
        self._clocks = clocks
        self._clock: Clock = clocks.wall
        self._open: dict[asyncio.Task[None], float] = {}
        self._over = math.inf
        self._ended_in_time = 0
        self._patient = True
        self._tally = Tally()

    async def run(self) -> Tally:
        """Let the calls arrive, wait for their answers, return what became of them."""
        client, servers = self._clocks.client(), self._clocks.servers()
        await self._arrive(self._clock())
        await self._wait_for_answers()
        self._tally.queue = self._tally.arrived - self._ended_in_time
        if self._contestant.settle is not None:
            await self._contestant.settle()
        self._tally.client, self._tally.servers = self._clocks.client() - client, self._clocks.servers() - servers
        return self._tally

    async def _arrive(self, started: float) -> None:
        self._over = started + self._load.seconds
        for arrival in self._load.arrivals():
            due = started + arrival
            ahead = due - self._clock()
            if ahead > 0:
                await asyncio.sleep(ahead)
            elif self._tally.arrived % ARRIVALS_OF_A_TURN == 0:  # behind schedule, answers must have their turn too
                await asyncio.sleep(0)
            self._tally.arrived += 1
            if -ahead < self._load.patience + self._over - due:
                self._start(due)
            else:  # so far behind that nobody waits for the answer
                self._give_up([due])

    def _start(self, due: float) -> None:
        task = asyncio.create_task(self._call(due))
        self._open[task] = due
        task.add_done_callback(self._open.pop)

    async def _call(self, due: float) -> None:
        try:
            await self._contestant.call()
        except Exception:  # noqa: BLE001 - whatever a library raises under load is told as a figure
            failed = True
        else:
            failed = False
        if self._patient:
            self._count(self._clock(), due, failed)

    def _count(self, now: float, due: float, failed: bool) -> None:
        self._ended_in_time += now <= self._over
        if failed:
            self._tally.failed += 1
            return
        self._tally.latencies.append(now - due)
        self._tally.late += now - due > self._load.late

    async def _wait_for_answers(self) -> None:
        if not self._open:
            return
        left = self._over + self._load.patience - self._clock()
        _, pending = await asyncio.wait(list(self._open), timeout=max(0.0, left))
        if pending:
            self._give_up([self._open[task] for task in pending])
            # None is cancelled: what that does to a driver's pool would fall upon the next turn.
            self._patient = False
            await asyncio.wait(pending)

    def _give_up(self, moments: list[float]) -> None:
        now = self._clock()
        self._tally.given_up += len(moments)
        self._tally.latencies += [now - due for due in moments]
