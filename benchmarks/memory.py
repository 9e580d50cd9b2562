"""Memory: each contestant in a process of its own, weighed before and after many operations.

``python -m benchmarks.memory NAME URI OPERATIONS`` is that process, and prints what it weighs.
"""

import asyncio
import gc
import json
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Self

import psutil

from benchmarks import contest
from benchmarks.clocks import Clocks
from benchmarks.contest import Call, Contestant
from benchmarks.measuring import take_turn
from benchmarks.raw_driver import RawWorkload, driver_client
from benchmarks.repositories import Workload
from benchmarks.roster import Opening, mongodb_peers
from convostore import ConvoStore, MongoSettings

CALLERS = 64
WORK = (contest.APPEND_MANY, contest.NEWEST)
WARM_UP = 20  # calls of each caller


@dataclass(frozen=True, slots=True)
class Weight:
    """What a process weighs, in bytes of resident memory.

    Attributes:
        contestant: who.
        operations: calls between both weighings, half of them appends, half reads of the newest 50.
        before: all is imported, open and warm.
        after: the calls have been made.
    """

    contestant: str
    operations: int
    before: int
    after: int

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read what the process of a contestant printed."""
        return cls(**json.loads(line))


async def weigh(contestant: str, settings: MongoSettings, operations: int) -> Weight:
    """Weigh a contestant in a process of its own.

    Raises:
        RuntimeError: the process failed.
    """
    words = ("-m", "benchmarks.memory", contestant, settings.mongodb_uri.get_secret_value(), str(operations))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=pipe)
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"memory of {contestant}: exit code {process.returncode}")
    return Weight.parse(output.decode().splitlines()[-1])


@asynccontextmanager
async def _ours(settings: MongoSettings) -> AsyncIterator[dict[str, Call]]:
    async with ConvoStore.open(settings) as store:
        work = Workload(store)
        await work.prepare()
        yield work.calls()


@asynccontextmanager
async def _raw(settings: MongoSettings) -> AsyncIterator[dict[str, Call]]:
    async with ConvoStore.open(settings) as store:  # makes the collections and what is read
        await Workload(store).prepare()
    async with driver_client(settings, zone=True) as client:
        yield RawWorkload(client, settings.database_name).calls()


async def _measure(contestant: str, settings: MongoSettings, operations: int) -> Weight:
    times = operations // len(WORK) // CALLERS
    async with _opening(contestant)(settings) as calls:
        for name in WORK:
            await take_turn(Contestant(contestant, calls[name]), CALLERS, WARM_UP, Clocks())
        before = _resident()
        for name in WORK:
            await take_turn(Contestant(contestant, calls[name]), CALLERS, times, Clocks())
        return Weight(contestant, times * CALLERS * len(WORK), before, _resident())


def _opening(contestant: str) -> Opening:
    own = {contest.OURS: _ours, contest.RAW: _raw}
    # Only this one is imported: the others are to weigh nothing.
    return own.get(contestant) or mongodb_peers(contestant)[contestant]


def _resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


if __name__ == "__main__":
    who, uri, number = sys.argv[1:]
    own = MongoSettings(mongodb_uri=uri, database_name=f"bench_{uuid.uuid4().hex[:12]}")
    print(json.dumps(asdict(asyncio.run(_measure(who, own, int(number))))))
