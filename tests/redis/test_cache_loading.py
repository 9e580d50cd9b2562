"""One load at a time, in a process and across them, and nobody is given what was read before he came."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

import cache_process
import pytest
from cache_gates import Gate, Gateway

from convostore.database.settings import RedisSettings
from convostore.gateways.operation import Operation
from convostore.models.keys import redis_key
from convostore.repositories.cache_repository import CacheRepository
from convostore.repositories.cache_space import CacheSpace
from convostore.repositories.exceptions import RepositoryError

SPACE: CacheSpace[int] = CacheSpace("loading", version_of=lambda value: value, patience=30.0)
PROGRAM = Path(cache_process.__file__)
OPERATION = Operation("test", "test", "Test", writes=True)
PATIENCE = 30.0  # seconds after which a test that waits has failed


class Source:
    """The database: a number that is its own version, and how often it was read."""

    def __init__(self, number: int = 1) -> None:
        self.number, self.loads = number, 0
        self.begun = asyncio.Event()
        self.gate = Gate()

    async def load(self) -> int:
        self.loads += 1
        number = self.number
        self.begun.set()
        await self.gate.pass_through()
        return number


@pytest.fixture
async def gateways(redis_settings: RedisSettings) -> AsyncIterator[Callable[[], Gateway]]:
    opened: list[Gateway] = []

    def connect() -> Gateway:
        assert redis_settings.redis_url is not None
        opened.append(Gateway.connect(redis_settings.redis_url.get_secret_value(), deadline=PATIENCE))
        return opened[-1]

    yield connect
    for gateway in opened:
        await gateway.aclose()


@pytest.fixture
async def caches(gateways: Callable[[], Gateway]) -> AsyncIterator[tuple[CacheRepository, CacheRepository]]:
    """The caches of two processes, as far as Redis can tell."""
    async with CacheRepository(gateways()) as one, CacheRepository(gateways()) as other:
        yield one, other


@pytest.fixture
def one(caches: tuple[CacheRepository, CacheRepository]) -> CacheRepository:
    return caches[0]


@pytest.fixture
def other(caches: tuple[CacheRepository, CacheRepository]) -> CacheRepository:
    return caches[1]


@pytest.fixture
def source() -> Source:
    return Source()


async def soon(work: Awaitable[Any]) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await work


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.002)


async def evict(cache: CacheRepository, tenant: str, space: CacheSpace[Any] = SPACE) -> None:
    await cache.redis.command(OPERATION, "DEL", redis_key("cache", (tenant, space.name, "k"), "0"))


def hold(cache: CacheRepository, name: str) -> tuple[Gate, Gate]:
    assert isinstance(cache.redis, Gateway)
    return cache.redis.hold(name)


@pytest.mark.one_server
async def test_two_hundred_readers_in_four_processes_cause_one_load(redis_url: str, tenant: str) -> None:
    def run() -> list[str]:
        command = [sys.executable, str(PROGRAM), redis_url, tenant, "crowd"]
        with ExitStack() as stack:
            workers = []
            for _ in range(4):
                worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                workers.append(stack.enter_context(worker))
                stack.callback(worker.kill)
            for worker in workers:
                assert worker.stdout is not None
                assert worker.stdout.readline() == "ready\n"
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.write("go\n")
                worker.stdin.flush()
            return [worker.communicate(timeout=60)[0] for worker in workers]

    assert await asyncio.to_thread(run) == ["1 50\n"] * 4


async def test_a_killed_process_holds_up_the_others_for_the_end_of_its_lease_only(
    redis_url: str, one: CacheRepository, tenant: str
) -> None:
    command = [sys.executable, str(PROGRAM), redis_url, tenant, "hang"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:  # noqa: ASYNC220 - it takes no time
        assert worker.stdout is not None
        assert await asyncio.to_thread(worker.stdout.readline) == "loading\n"
        source = Source(7)
        reading = asyncio.create_task(one.get_or_load(tenant, cache_process.SPACE, cache_process.KEY, source.load))
        await until(lambda: one.statistics.waits > 0)
        assert source.loads == 0
        worker.kill()
        assert await soon(reading) == 7
    assert await one.exists(tenant, cache_process.SPACE, cache_process.KEY)


async def test_a_reader_in_another_process_waits_for_a_slow_load(
    one: CacheRepository, other: CacheRepository, tenant: str, source: Source
) -> None:
    source.gate.close()
    first = asyncio.create_task(one.get_or_load(tenant, SPACE, "k", source.load))
    await soon(source.begun.wait())
    second = asyncio.create_task(other.get_or_load(tenant, SPACE, "k", source.load))
    await asyncio.sleep(1.6)  # longer than a lease that is not renewed
    assert other.statistics.waits > 3
    source.gate.open()
    assert await soon(asyncio.gather(first, second)) == [1, 1]
    assert source.loads == 1


async def test_patience_ends_and_what_is_loaded_then_is_not_put_in(
    one: CacheRepository, other: CacheRepository, tenant: str, source: Source
) -> None:
    source.gate.close()
    first = asyncio.create_task(one.get_or_load(tenant, SPACE, "k", source.load))
    await soon(source.begun.wait())
    quick = Source(1)
    assert await soon(other.get_or_load(tenant, replace(SPACE, patience=0.05), "k", quick.load)) == 1
    assert not await other.exists(tenant, SPACE, "k")
    source.gate.open()
    assert await soon(first) == 1
    assert await other.exists(tenant, SPACE, "k")


async def test_a_cancelled_leader_neither_stops_nor_fails_the_others(
    one: CacheRepository, tenant: str, source: Source
) -> None:
    source.gate.close()
    readers = [asyncio.create_task(one.get_or_load(tenant, SPACE, "k", source.load)) for _ in range(5)]
    await soon(source.begun.wait())
    readers[0].cancel()
    readers[3].cancel()
    await asyncio.sleep(0)
    source.gate.open()
    outcomes = await soon(asyncio.gather(*readers, return_exceptions=True))
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError, int, int, asyncio.CancelledError, int]
    assert source.loads == 1


async def test_a_load_goes_on_when_all_who_waited_have_gone(one: CacheRepository, tenant: str, source: Source) -> None:
    source.gate.close()
    reader = asyncio.create_task(one.get_or_load(tenant, SPACE, "k", source.load))
    await soon(source.begun.wait())
    reader.cancel()
    await asyncio.wait([reader])
    source.gate.open()
    assert await soon(one.get_or_load(tenant, SPACE, "k", source.load)) == 1
    assert source.loads == 1


async def test_when_the_load_of_a_leader_who_has_gone_fails_the_next_one_tries_with_his_own(
    one: CacheRepository, tenant: str, source: Source
) -> None:
    gate = Gate()
    gate.close()

    async def failing() -> int:
        await gate.pass_through()
        raise OSError

    leader = asyncio.create_task(one.get_or_load(tenant, SPACE, "k", failing))
    await soon(gate.reached.wait())
    follower = asyncio.create_task(one.get_or_load(tenant, SPACE, "k", source.load))
    await until(lambda: one.statistics.joins == 1)
    leader.cancel()
    await asyncio.wait([leader])
    gate.open()
    assert await soon(follower) == 1


async def test_an_error_goes_to_all_who_wait_and_nothing_is_cached(
    one: CacheRepository, other: CacheRepository, tenant: str, source: Source
) -> None:
    gate = Gate()
    gate.close()

    async def failing() -> int:
        await gate.pass_through()
        raise LookupError("no such thing")

    readers = [asyncio.create_task(one.get_or_load(tenant, SPACE, "k", failing)) for _ in range(5)]
    await until(lambda: one.statistics.joins == 4)
    gate.open()
    outcomes = await soon(asyncio.gather(*readers, return_exceptions=True))
    assert [type(outcome) for outcome in outcomes] == [LookupError] * 5
    assert (one.statistics.loads, one.statistics.failed_loads) == (1, 1)
    assert await soon(other.get_or_load(tenant, SPACE, "k", source.load)) == 1
    assert other.statistics.waits == 0, "the lease was given back"


async def test_a_load_that_cancels_itself_is_an_error_and_not_a_cancellation(one: CacheRepository, tenant: str) -> None:
    async def cancelled() -> int:
        raise asyncio.CancelledError

    with pytest.raises(RepositoryError, match="cancelled"):
        await soon(one.get_or_load(tenant, SPACE, "k", cancelled))


async def test_who_joins_a_load_begun_before_a_write_is_not_given_its_outcome(
    one: CacheRepository, other: CacheRepository, tenant: str, source: Source
) -> None:
    source.gate.close()
    early = asyncio.create_task(one.get_or_load(tenant, SPACE, "k", source.load))
    await soon(source.begun.wait())
    source.number = 2
    await other.invalidate(tenant, SPACE, "k", 2)
    late = asyncio.create_task(one.get_or_load(tenant, SPACE, "k", source.load))
    await until(lambda: one.statistics.joins == 1)
    source.gate.open()
    assert await soon(asyncio.gather(early, late)) == [1, 2]
    assert source.loads == 2


async def test_who_comes_after_a_fill_was_sent_is_not_given_its_outcome(
    one: CacheRepository, other: CacheRepository, tenant: str, source: Source
) -> None:
    _, after = hold(one, "cache_fill")
    after.close()
    early = asyncio.create_task(one.get_or_load(tenant, SPACE, "k", source.load))
    await soon(after.reached.wait())
    source.number = 2
    await other.invalidate(tenant, SPACE, "k", 2)
    await evict(other, tenant)
    late = asyncio.create_task(one.get_or_load(tenant, SPACE, "k", source.load))
    await until(lambda: one.statistics.joins == 1)
    after.open()
    assert await soon(asyncio.gather(early, late)) == [1, 2]


async def test_who_comes_after_a_look_was_sent_is_not_given_its_outcome(
    one: CacheRepository, other: CacheRepository, tenant: str, source: Source
) -> None:
    before, after = hold(one, "cache_acquire")
    before.close()
    after.close()
    early = asyncio.create_task(one.get_or_load(tenant, SPACE, "k", source.load))
    await soon(before.reached.wait())
    assert await other.get_or_load(tenant, SPACE, "k", source.load) == 1
    before.open()
    await soon(after.reached.wait())
    source.number = 2
    await other.invalidate(tenant, SPACE, "k", 2)
    await evict(other, tenant)
    late = asyncio.create_task(one.get_or_load(tenant, SPACE, "k", source.load))
    await until(lambda: one.statistics.joins == 1)
    after.open()
    assert await soon(asyncio.gather(early, late)) == [1, 2]


async def test_renewing_never_makes_a_lease_again_that_was_evicted(
    one: CacheRepository, other: CacheRepository, tenant: str, source: Source
) -> None:
    source.gate.close()
    before, after = hold(one, "cache_renew")
    before.close()
    reading = asyncio.create_task(one.get_or_load(tenant, SPACE, "k", source.load))
    await soon(before.reached.wait())
    await evict(other, tenant)
    await other.invalidate(tenant, SPACE, "k", 2)
    await evict(other, tenant)
    before.open()
    await soon(after.reached.wait())
    source.gate.open()
    assert await soon(reading) == 1
    assert await other.get(tenant, SPACE, "k") is None


_caller: ContextVar[str] = ContextVar("_caller", default="nobody")


async def test_each_load_runs_in_the_context_of_its_own_caller(one: CacheRepository, tenant: str) -> None:
    space: CacheSpace[str] = CacheSpace("names")

    async def load() -> str:
        await until(lambda: one.statistics.joins == 1)
        await one.delete(tenant, space, "k")  # so that it is not put in, and each reader needs a load
        return _caller.get()

    async def reader(name: str) -> str | None:
        _caller.set(name)
        return await one.get_or_load(tenant, space, "k", load)

    first = asyncio.create_task(reader("first"))
    await until(lambda: one.statistics.loads == 1)
    second = asyncio.create_task(reader("second"))
    assert await soon(asyncio.gather(first, second)) == ["first", "second"]


async def test_two_readers_never_share_a_value_that_can_be_changed(one: CacheRepository, tenant: str) -> None:
    space: CacheSpace[dict[str, list[int]]] = CacheSpace("mutable")

    async def load() -> dict[str, list[int]]:
        await until(lambda: one.statistics.joins == 2)
        return {"list": [1]}

    values = await soon(asyncio.gather(*(one.get_or_load(tenant, space, "k", load) for _ in range(3))))
    assert values == [{"list": [1]}] * 3
    values[0]["list"].append(2)
    assert values[1:] == [{"list": [1]}] * 2
    assert len({id(value["list"]) for value in values}) == 3


async def test_closing_ends_loads_and_tells_those_who_wait(
    gateways: Callable[[], Gateway], tenant: str, source: Source
) -> None:
    cache = CacheRepository(gateways())
    before = asyncio.all_tasks()
    source.gate.close()
    reader = asyncio.create_task(cache.get_or_load(tenant, SPACE, "k", source.load))
    await soon(source.begun.wait())
    await cache.aclose()
    with pytest.raises(RepositoryError, match="closed"):
        await soon(reader)
    assert asyncio.all_tasks() == before
    with pytest.raises(RepositoryError, match="closed"):
        await cache.get_or_load(tenant, SPACE, "k", source.load)
    await cache.aclose()


# Early refreshes -----------------------------------------------------------------------------------------------------

EAGER = replace(SPACE, beta=1000.0, jitter=0.0)


@pytest.fixture
async def eager(gateways: Callable[[], Gateway]) -> AsyncIterator[tuple[CacheRepository, CacheRepository]]:
    """Two caches that draw the unlikeliest number, and so refresh whatever took time to load."""
    far = 1.0 - 1e-12
    async with (
        CacheRepository(gateways(), random=lambda: far) as one,
        CacheRepository(gateways(), random=lambda: far) as other,
    ):
        yield one, other


async def _filled(cache: CacheRepository, tenant: str, source: Source) -> None:
    async def slow() -> int:
        await asyncio.sleep(0.05)
        return await source.load()

    await cache.get_or_load(tenant, EAGER, "k", slow)


async def test_a_value_about_to_end_is_refreshed_in_the_background_by_one_reader(
    eager: tuple[CacheRepository, CacheRepository], tenant: str, source: Source
) -> None:
    await _filled(eager[0], tenant, source)
    source.number = 2
    source.gate.close()
    readers = [cache.get_or_load(tenant, EAGER, "k", source.load) for cache in eager * 20]
    assert set(await soon(asyncio.gather(*readers))) == {1}, "nobody waits"
    await until(lambda: source.loads == 2 and all(cache.statistics.refreshes for cache in eager))
    source.gate.open()
    for cache in eager:
        await until(lambda cache=cache: not cache._loading._tasks)
    assert source.loads == 2
    found = await eager[0].get(tenant, EAGER, "k")
    assert found is not None
    assert found.value == 2


async def test_a_refresh_that_fails_leaves_the_value(
    eager: tuple[CacheRepository, CacheRepository], tenant: str, source: Source
) -> None:
    await _filled(eager[0], tenant, source)

    async def failing() -> int:
        raise OSError

    assert await eager[0].get_or_load(tenant, EAGER, "k", failing) == 1
    await until(lambda: eager[0].statistics.failed_loads == 1)
    assert await eager[0].exists(tenant, EAGER, "k")


async def test_a_refresh_begun_before_a_write_is_not_put_in(
    eager: tuple[CacheRepository, CacheRepository], tenant: str, source: Source
) -> None:
    await _filled(eager[0], tenant, source)
    source.begun.clear()
    source.gate.close()
    assert await eager[0].get_or_load(tenant, EAGER, "k", source.load) == 1
    await soon(source.begun.wait())
    source.number = 2
    assert await eager[1].invalidate(tenant, EAGER, "k", 2)
    source.gate.open()
    assert await soon(eager[0].get_or_load(tenant, EAGER, "k", source.load)) == 2
