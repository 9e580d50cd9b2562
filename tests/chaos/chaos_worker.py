"""One process of a chaos run: writers and readers on a store of their own, and a history of all they did.

Run as ``python chaos_worker.py <plan as JSON>``: says ``ready``, begins at ``go``, ends at the next line or when
whoever started it is gone. The history is a file of JSON lines, one for each call, with the moments of its start and
its end on the clock that all processes of the machine share.
"""

import asyncio
import contextlib
import json
import os
import random
import sys
from typing import Any

import chaos_mutants
from chaos_plan import History, Plan
from chaos_work import Reader, Shared, Writer

from convostore import ConvoStore
from convostore.testing.clock import skewed

LAST_SECONDS = 30.0  # for the calls that are under way at the end


class Crowd:
    """The writers and readers of a process."""

    def __init__(self, plan: Plan, store: ConvoStore, history: History) -> None:
        self._plan = plan
        self._shared = Shared(store, history)
        self.done = asyncio.Event()

    async def run(self) -> None:
        """Write and read until it is done, and a little longer for what is under way."""
        parts = [Writer(self._shared, self._rng(n), f"w{n}", self._plan.only) for n in range(self._plan.writers)]
        parts += [Reader(self._shared, self._rng(100 + n), f"r{n}") for n in range(self._plan.readers)]
        tasks = [asyncio.create_task(self._repeat(part)) for part in parts]
        over = asyncio.create_task(self.done.wait())
        measuring = asyncio.create_task(self._shared.history.measure_lag())
        await asyncio.wait([over, *tasks], return_when=asyncio.FIRST_COMPLETED)  # a task ends before only if it fails
        self.done.set()
        _, late = await asyncio.wait([over, *tasks], timeout=LAST_SECONDS)
        self._shared.history.give_up()
        measuring.cancel()
        for task in tasks:
            task.cancel() if task in late else task.result()

    async def _repeat(self, part: Any) -> None:
        while not self.done.is_set():
            await part.act()
            await asyncio.sleep(part.rng.uniform(0, self._plan.pause))

    def _rng(self, number: int) -> random.Random:
        return random.Random(f"{self._plan.seed}/{self._plan.process}/{number}")


async def _tell_if_late(done: asyncio.Event) -> None:
    """Tell what is still under way long after the end, for whoever has to find out why."""
    await done.wait()
    await asyncio.sleep(LAST_SECONDS + 20)
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)


async def main(plan: Plan) -> None:
    """Do what the plan says."""
    chaos_mutants.apply(plan.mutant)
    watch = None
    with open(plan.history, "w", encoding="utf-8") as file:  # noqa: ASYNC230, PTH123 - before anything else goes on
        async with chaos_mutants.opened(plan.mutant, plan.mongo_settings(), plan.redis_settings()) as store:
            crowd = Crowd(plan, store, History(file, plan.process))
            print("ready", flush=True)
            if await asyncio.to_thread(sys.stdin.readline) == "go\n":
                told = asyncio.ensure_future(asyncio.to_thread(sys.stdin.readline))
                told.add_done_callback(lambda told: crowd.done.set() if told.result() else os._exit(1))
                watch = asyncio.create_task(_tell_if_late(crowd.done))
                await crowd.run()
    if watch is not None:
        watch.cancel()
    print("done", flush=True)


if __name__ == "__main__":
    plan = Plan(**json.loads(sys.argv[1]))
    with skewed(plan.skew) if plan.skew else contextlib.nullcontext():
        asyncio.run(main(plan))
