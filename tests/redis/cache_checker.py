"""Readers, writers and evictions in several processes, and a count of the reads that were older than they may be.

The truth is a counter for each key, beside the cache. A write raises it, tells the cache, and returns. Each call is
noted as it ends (``call_log``): no read may be older than a write that had returned before it began. The source is
slow, and answers with what it held when it was asked.

Run as ``python cache_checker.py <plan as JSON>`` it is one of the processes.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Protocol

from call_log import CallLog, Kind, judged, noted
from convostore.gateways.operation import Operation
from convostore.gateways.redis_gateway import RedisGateway
from convostore.models.keys import redis_key
from convostore.repositories.cache_repository import CacheRepository
from convostore.repositories.cache_space import CacheSpace

READ = Operation("get", "truth", "Truth", repeatable=True)
WRITE = Operation("set", "truth", "Truth", writes=True)
SLOWEST_LOAD, SLOWEST_WRITE = 0.04, 0.02  # seconds

SPACE: CacheSpace[dict[str, Any]] = CacheSpace(
    "checked", version_of=lambda value: value["version"], ttl=2.0, patience=1.0
)


@dataclass(frozen=True)
class Plan:
    """What one process does.

    Attributes:
        url: the server.
        tenant: whose keys.
        cache: the class of the cache in this module.
        seconds: for how long.
        readers, writers, evictors: tasks.
        keys: how many there are.
        seed: of its random choices.
        log: the file of its calls.
    """

    url: str
    tenant: str
    cache: str
    seconds: float
    readers: int
    writers: int
    evictors: int
    keys: int
    seed: int
    log: str


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        reads, writes, loads, evictions: how many there were.
        old: reads that were older than a write that had returned before them.
        stale: keys that the cache still tells wrongly when all is quiet.
    """

    reads: int = 0
    writes: int = 0
    loads: int = 0
    evictions: int = 0
    old: int = 0
    stale: int = 0

    def plus(self, other: "Outcome") -> "Outcome":
        """Return both together."""
        return Outcome(**{name: value + getattr(other, name) for name, value in asdict(self).items()})


class CheckedCache(Protocol):
    """A cache as the checker uses it."""

    async def read(self, key: str, load: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]: ...
    async def written(self, key: str, version: int, through: bool) -> None: ...
    async def aclose(self) -> None: ...


class ProtocolCache:
    """The repository."""

    space: ClassVar = SPACE

    def __init__(self, gateway: RedisGateway, tenant: str) -> None:
        self.cache = CacheRepository(gateway)
        self._tenant = tenant

    async def read(self, key: str, load: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        value = await self.cache.get_or_load(self._tenant, self.space, key, load)
        assert value is not None
        return value

    async def written(self, key: str, version: int, through: bool) -> None:
        if through:
            await self.cache.write_through(self._tenant, self.space, key, {"version": version})
        else:
            await self.cache.invalidate(self._tenant, self.space, key, version)

    async def aclose(self) -> None:
        await self.cache.aclose()


class UnversionedCache(ProtocolCache):
    """The repository, for values without versions: every write deletes."""

    space: ClassVar = replace(SPACE, version_of=None)

    async def written(self, key: str, version: int, through: bool) -> None:  # noqa: ARG002 - has none
        await self.cache.delete(self._tenant, self.space, key)


class PlainDelCache:
    """What is usually done: read, else load and store; delete after a write."""

    def __init__(self, gateway: RedisGateway, tenant: str) -> None:
        self._gateway = gateway
        self._tenant = tenant

    async def read(self, key: str, load: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        cell = cell_key(self._tenant, key)
        found = await self._gateway.command(READ, "GET", cell)
        if found is None:
            value = await load()
            await self._gateway.command(WRITE, "SET", cell, json.dumps(value), "EX", 60)
            return value
        return json.loads(found)  # type: ignore[no-any-return]

    async def written(self, key: str, version: int, through: bool) -> None:  # noqa: ARG002 - has none
        await self._gateway.command(WRITE, "DEL", cell_key(self._tenant, key))

    async def aclose(self) -> None:
        pass


CACHES: dict[str, Callable[[RedisGateway, str], CheckedCache]] = {
    cls.__name__: cls for cls in (ProtocolCache, UnversionedCache, PlainDelCache)
}


def cell_key(tenant: str, key: str) -> str:
    """Return the key of the cell that the repository uses as well."""
    return redis_key("cache", (tenant, SPACE.name, key), "0")


class Checker:
    """One process of it."""

    def __init__(self, plan: Plan, gateway: RedisGateway) -> None:
        self.plan = plan
        self.outcome = Outcome()
        self._log = CallLog(Path(plan.log), plan.seed)
        self._gateway = gateway
        self._random = random.Random(plan.seed)
        self._cache = CACHES[plan.cache](gateway, plan.tenant)
        self._end = 0.0

    async def run(self) -> Outcome:
        """Do what the plan says."""
        self._end = time.monotonic() + self.plan.seconds
        async with asyncio.TaskGroup() as tasks:
            for work, count in (
                (self._read, self.plan.readers),
                (self._write, self.plan.writers),
                (self._evict, self.plan.evictors),
            ):
                for _ in range(count):
                    tasks.create_task(self._repeat(work))
        await self._cache.aclose()
        self._log.close()
        return self.outcome

    async def _repeat(self, work: Callable[[int], Awaitable[None]]) -> None:
        while time.monotonic() < self._end:
            # A few are hot, most are not.
            await work(int(self.plan.keys * self._random.random() ** 3))

    async def _load(self, key: str) -> dict[str, Any]:
        self.outcome.loads += 1
        version = int(await self._gateway.command(READ, "GET", self._truth(key)) or 0)
        await asyncio.sleep(self._random.uniform(0, SLOWEST_LOAD))
        return {"version": version}

    async def _read(self, number: int) -> None:
        key, start = f"key-{number}", time.monotonic_ns()
        reading = asyncio.ensure_future(self._cache.read(key, lambda: self._load(key)))
        if self._random.random() < 0.05:
            await asyncio.wait([reading], timeout=self._random.uniform(0, SLOWEST_LOAD))
            if not reading.done():
                reading.cancel()
                await asyncio.wait([reading])
                return
        self._log.note(Kind.READ, number, start, (await reading)["version"])
        self.outcome.reads += 1
        await asyncio.sleep(self._random.uniform(0, 0.002))

    async def _write(self, number: int) -> None:
        key, start = f"key-{number}", time.monotonic_ns()
        version = await self._gateway.command(WRITE, "INCR", self._truth(key))
        if self._random.random() < 0.5:
            await asyncio.sleep(self._random.uniform(0, SLOWEST_WRITE))
        await self._cache.written(key, version, self._random.random() < 0.5)
        self._log.note(Kind.WRITTEN, number, start, version)
        self.outcome.writes += 1
        await asyncio.sleep(self._random.uniform(0, 0.02))

    async def _evict(self, number: int) -> None:
        key = cell_key(self.plan.tenant, f"key-{number}")
        self.outcome.evictions += await self._gateway.command(WRITE, "DEL", key)
        await asyncio.sleep(self._random.uniform(0, 0.01))

    async def count_stale(self) -> int:
        """Return how many keys are told wrongly, when nobody writes any more."""
        stale = 0
        for key in (f"key-{number}" for number in range(self.plan.keys)):
            told = await self._cache.read(key, lambda key=key: self._load(key))
            stale += told != await self._load(key)
        self._log.close()
        return stale

    def _truth(self, key: str) -> str:
        return redis_key("truth", (self.plan.tenant, key))


async def _run_plan(plan: Plan, *, finish: bool = False) -> Outcome:
    gateway = RedisGateway.connect(plan.url, deadline=10)
    checker = Checker(plan, gateway)
    try:
        if finish:
            return Outcome(stale=await checker.count_stale())
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        return await checker.run()
    finally:
        await gateway.aclose()


def check(cache: str, url: str, tenant: str, seconds: float, seed: int, processes: int = 4) -> Outcome:
    """Let 96 readers, 8 writers and an evictor in each process loose, and return what came of it."""
    with TemporaryDirectory() as directory:
        plans = [
            Plan(url, tenant, cache, seconds, 96 // processes, 8 // processes, 1, 60, number, f"{directory}/{number}")
            for number in range(seed * 100, seed * 100 + processes)
        ]
        total = Outcome()
        for output in _outputs(plans, seconds):
            total = total.plus(Outcome(**json.loads(output)))
        total.old = judged(noted(Path(directory).iterdir())).old
        return total.plus(asyncio.run(_run_plan(plans[0], finish=True)))


def _outputs(plans: list[Plan], seconds: float) -> list[str]:
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, json.dumps(asdict(plan))],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for plan in plans
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        return [worker.communicate(timeout=seconds + 60)[0] for worker in _started(workers)]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _started(workers: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return workers


if __name__ == "__main__":
    outcome = asyncio.run(_run_plan(Plan(**json.loads(sys.argv[1]))))
    print(json.dumps(asdict(outcome)), flush=True)
