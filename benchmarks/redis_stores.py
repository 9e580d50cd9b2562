"""Sessions, rate limits and cache beside the bare commands."""

import itertools
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks import contest
from benchmarks.contest import Case, Contestant
from convostore import CacheSpace, ConvoStore

NOOP = "return 1"
IDENTITIES = 1_000
LIMIT = 1_000_000  # never reached: what is admitted is the common case
PROFILE = {"id": "u-1", "version": 1, "name": "Ada Lovelace", "tags": ["a", "b"], "settings": {"theme": "dark", "n": 7}}


class RedisWorkload:
    """Equal data for both, each in the keys that its library gives it."""

    def __init__(self, store: ConvoStore, url: str) -> None:
        self.tenant = f"bench-{uuid.uuid4().hex[:8]}"
        self.raw: Redis = Redis(connection_pool=BlockingConnectionPool.from_url(url, max_connections=64, protocol=2))
        self.store = store
        self.limits, self.sessions, self.cache = store.rate_limits, store.sessions, store.cache
        self.space: CacheSpace[dict[str, Any]] = CacheSpace("profile", ttl=3600)
        self.numbers = itertools.count()
        self.encoded = msgspec.msgpack.encode(PROFILE)

    async def prepare(self) -> None:
        """Store a session and a value for each."""
        self.noop = await self.raw.script_load(NOOP)
        self.session = await self.sessions.start_session(self.tenant, "u-1", data=PROFILE)
        await self.cache.set(self.tenant, self.space, "u-1", PROFILE)
        await self.raw.set(f"{self.tenant}:value", self.encoded, ex=3600)
        fields = {key.encode(): value.encode() for key, value in self.session.to_redis_hash().items()}
        await self.raw.hset(f"{self.tenant}:hash", mapping=fields)

    def _identity(self) -> str:
        return f"u-{next(self.numbers) % IDENTITIES}"

    def cases(self) -> Iterator[Case]:
        """Return the work to compare: beside a no-op EVALSHA, an HGETALL, a GET with decoding."""
        for name, bare, call in (
            (contest.RATE, self.raw_script, self.check),
            (contest.SESSION, self.raw_hash, self.session_read),
            (contest.CACHE, self.raw_get, self.cache_hit),
        ):
            yield Case(name, (Contestant(contest.RAW, bare), Contestant(contest.OURS, call)))

    async def check(self) -> object:
        return await self.limits.check_rate_limit(self.tenant, self._identity(), LIMIT, 60)

    async def raw_script(self) -> object:
        return await self.raw.evalsha(self.noop, 1, f"{self.tenant}:{self._identity()}", "1")

    async def session_read(self) -> object:
        return await self.sessions.get_session(self.tenant, self.session.session_id)

    async def raw_hash(self) -> object:
        return await self.raw.hgetall(f"{self.tenant}:hash")

    async def cache_hit(self) -> object:
        return await self.cache.get(self.tenant, self.space, "u-1")

    async def raw_get(self) -> object:
        return msgspec.msgpack.decode(await self.raw.get(f"{self.tenant}:value"))

    async def aclose(self) -> None:
        """Close the connections that are this benchmark's own."""
        await self.raw.aclose(close_connection_pool=True)
