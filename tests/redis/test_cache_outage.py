"""The cache's server stopped, frozen, emptied or full: reads go on from the source, in time, and it is used again."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cache_gates import Gateway

from convostore import RepositoryError
from convostore.gateways.breaker import Breaker
from convostore.repositories.cache_repository import CacheRepository
from convostore.repositories.cache_space import CacheSpace
from convostore.repositories.exceptions import ConnectionError  # noqa: A004
from convostore.testing.redis_servers import RedisServer

SPACE: CacheSpace[dict[str, Any]] = CacheSpace("outage", version_of=lambda value: value["version"])
PLAIN: CacheSpace[Any] = CacheSpace("plain")
DEADLINE = 0.3
KINDS = ["valkey", "redis"]


class Source:
    """The database."""

    def __init__(self) -> None:
        self.version, self.loads, self.together, self.most_together = 1, 0, 0, 0

    async def load(self) -> dict[str, Any]:
        self.loads += 1
        self.together += 1
        self.most_together = max(self.together, self.most_together)
        version = self.version
        await asyncio.sleep(0.01)
        self.together -= 1
        return {"version": version}


@asynccontextmanager
async def opened(server: RedisServer) -> AsyncIterator[CacheRepository]:
    gateway = Gateway.connect(server.url, deadline=DEADLINE, breaker=Breaker(5, 0.2))
    try:
        async with CacheRepository(gateway) as cache:
            yield cache
    finally:
        await gateway.aclose()


@pytest.fixture
def source() -> Source:
    return Source()


async def recovered(cache: CacheRepository, source: Source) -> None:
    """Wait until the cache is used again, without opening it anew."""
    async with asyncio.timeout(30):
        while True:
            assert await cache.get_or_load("t", SPACE, "k", source.load) == {"version": source.version}
            if await cache.get("t", SPACE, "k") is not None:
                return
            await asyncio.sleep(0.05)


async def repeated(write: Callable[[], Awaitable[Any]]) -> None:
    """Do what the author of a write has to do that was not carried out."""
    async with asyncio.timeout(30):
        while True:
            try:
                await write()
            except ConnectionError:
                await asyncio.sleep(0.05)
            else:
                return


async def expect_reads_without_the_cache(cache: CacheRepository, source: Source) -> None:
    slowest = 0.0
    for version in range(2, 12):
        source.version = version
        started = time.monotonic()
        assert await cache.get_or_load("t", SPACE, "k", source.load) == {"version": version}
        slowest = max(slowest, time.monotonic() - started)
        assert await cache.get("t", SPACE, "k") is None
        assert await cache.get_many("t", SPACE, ["k", "j"]) == {}
    print(f"slowest read {slowest:.3f} s")
    assert slowest < 4 * DEADLINE + 2, "bounded by the deadline, with room for a busy machine"
    assert cache.statistics.outages > 0
    with pytest.raises(RepositoryError):
        await cache.exists("t", SPACE, "k")
    for write in (
        cache.invalidate("t", SPACE, "k", 12),
        cache.write_through("t", SPACE, "k", {"version": 12}),
        cache.delete("t", SPACE, "k"),
        cache.invalidate_tag("t", "red"),
        cache.set("t", PLAIN, "k", 1),
    ):
        with pytest.raises(ConnectionError):
            await write
    source.version = 12  # a frozen server may carry out late what it was told


@pytest.mark.parametrize("tags", [[], ["red"]], ids=["plain", "tagged"])
async def test_reads_go_on_when_the_server_is_stopped(own_server: RedisServer, source: Source, tags: list[str]) -> None:
    async with opened(own_server) as cache:
        await cache.get_or_load("t", SPACE, "k", source.load, tags)
        own_server.kill()
        await expect_reads_without_the_cache(cache, source)
        assert await cache.get_or_load("t", SPACE, "k", source.load, ["red"]) == {"version": source.version}
        own_server.start()
        await recovered(cache, source)


@pytest.mark.parametrize("script", ["cache_acquire", "cache_fill"])
async def test_a_server_that_dies_in_the_middle_of_a_read_does_not_fail_it(
    own_server: RedisServer, source: Source, script: str
) -> None:
    async with opened(own_server) as cache:
        assert isinstance(cache.redis, Gateway)
        before, _ = cache.redis.hold(script)
        before.close()
        readers = [asyncio.create_task(cache.get_or_load("t", SPACE, "k", source.load)) for _ in range(3)]
        await before.reached.wait()
        own_server.kill()
        before.open()
        assert await asyncio.gather(*readers) == [{"version": 1}] * 3
        own_server.start()
        await recovered(cache, source)


async def test_reads_go_on_when_the_server_is_frozen(own_server: RedisServer, source: Source) -> None:
    async with opened(own_server) as cache:
        await cache.get_or_load("t", SPACE, "k", source.load)
        own_server.pause()
        try:
            await expect_reads_without_the_cache(cache, source)
        finally:
            own_server.resume()
        await repeated(lambda: cache.invalidate("t", SPACE, "k", source.version))
        await recovered(cache, source)


async def test_a_server_that_has_forgotten_everything_is_filled_again(own_server: RedisServer, source: Source) -> None:
    async with opened(own_server) as cache:
        await cache.get_or_load("t", SPACE, "k", source.load)
        own_server.restart()
        source.version = 2
        await recovered(cache, source)


async def test_an_outage_does_not_let_a_crowd_loose_on_the_source(own_server: RedisServer, source: Source) -> None:
    async with opened(own_server) as cache:
        own_server.kill()
        for _ in range(5):
            readers = [cache.get_or_load("t", SPACE, "k", source.load) for _ in range(100)]
            assert await asyncio.gather(*readers) == [{"version": 1}] * 100
        assert source.most_together == 1
        assert source.loads <= 10, "at most two for each crowd"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_full_server_still_answers_and_still_forgets(kind: str, source: Source) -> None:
    with RedisServer(kind, maxmemory_policy="noeviction") as server:
        async with opened(server) as cache:
            await cache.get_or_load("t", SPACE, "k", source.load)
            await cache.get_or_load("t", SPACE, "j", source.load)
            await cache.get_or_load("t", PLAIN, "tagged", source.load, ["red"])
            await cache.set("t", PLAIN, "set", "old")
            server.ask("CONFIG", "SET", "maxmemory", "1mb")  # less than it uses already
            assert await cache.get("t", SPACE, "k") is not None, "hits go on"
            assert await cache.get_or_load("t", SPACE, "new", source.load) == {"version": 1}
            assert await cache.get("t", SPACE, "new") is None
            source.version = 2
            assert await cache.invalidate("t", SPACE, "k", 2)
            assert not await cache.write_through("t", SPACE, "j", {"version": 2})
            assert not await cache.set("t", PLAIN, "set", "new")
            await cache.invalidate_tag("t", "red")
            assert await cache.get_or_load("t", SPACE, "k", source.load) == {"version": 2}
            assert await cache.get_or_load("t", SPACE, "j", source.load) == {"version": 2}
            assert await cache.get("t", PLAIN, "set") is None
            assert await cache.get("t", PLAIN, "tagged", ["red"]) is None
            server.ask("CONFIG", "SET", "maxmemory", "0")
            await recovered(cache, source)
