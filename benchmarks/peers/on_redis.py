"""Libraries for rate limits, caches or sessions on Redis."""

import itertools
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from aiocache import RedisCache
from aiocache.serializers import JsonSerializer
from cashews import Cache
from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter, RateLimiter, SlidingWindowCounterRateLimiter
from starsessions.stores.redis import RedisStore

from benchmarks import contest
from benchmarks.peers import Calls
from benchmarks.redis_stores import IDENTITIES, LIMIT, PROFILE


@asynccontextmanager
async def limits(url: str, strategy: type[RateLimiter]) -> AsyncIterator[Calls]:
    """Hit a limit, then ask for what the headers of an answer tell, which convostore answers in one."""
    item = RateLimitItemPerMinute(LIMIT)
    limiter = strategy(RedisStorage(f"async+{url}", implementation="redispy"))
    numbers = itertools.count()

    async def hit() -> object:
        identity = f"u-{next(numbers) % IDENTITIES}"
        await limiter.hit(item, identity)
        return await limiter.get_window_stats(item, identity)

    yield {contest.RATE: hit}


MOVING, COUNTER = MovingWindowRateLimiter, SlidingWindowCounterRateLimiter


@asynccontextmanager
async def cashews(url: str) -> AsyncIterator[Calls]:
    """Get a cached value, without its copies in the process."""
    cache = Cache()
    cache.setup(url, client_side=False)
    await cache.set("cashews", PROFILE, expire=3600)
    yield {contest.CACHE: lambda: cache.get("cashews")}
    await cache.close()


@asynccontextmanager
async def aiocache(url: str) -> AsyncIterator[Calls]:
    """Get a cached value."""
    host, _, port = url.removeprefix("redis://").partition("/")[0].partition(":")
    async with RedisCache(endpoint=host, port=int(port), serializer=JsonSerializer()) as cache:
        await cache.set("aiocache", PROFILE, ttl=3600)
        yield {contest.CACHE: lambda: cache.get("aiocache")}


@asynccontextmanager
async def starsessions(url: str) -> AsyncIterator[Calls]:
    """Read a session."""
    store = RedisStore(url)
    session_id = uuid.uuid4().hex
    await store.write(session_id, msgspec.msgpack.encode(PROFILE), 3600, 3600)
    yield {contest.SESSION: lambda: store.read(session_id, 3600)}
