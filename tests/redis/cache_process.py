"""One process that reads through the cache: ``python cache_process.py <url> <tenant> <part>``.

``crowd`` reads one key fifty times at once, once it is told to; ``hang`` begins to load it, says so, and never ends.
"""

import asyncio
import sys

from convostore.gateways.operation import Operation
from convostore.gateways.redis_gateway import RedisGateway
from convostore.models.keys import redis_key
from convostore.repositories.cache_repository import CacheRepository
from convostore.repositories.cache_space import CacheSpace

KEY = "crowded"
SPACE: CacheSpace[int] = CacheSpace("processes", patience=60.0)
WRITE = Operation("incr", "test", "Test", writes=True)


async def main(url: str, tenant: str, part: str) -> None:
    gateway = RedisGateway.connect(url, deadline=20)

    async def load() -> int:
        if part == "hang":
            print("loading", flush=True)
            await asyncio.sleep(1000)
        number: int = await gateway.command(WRITE, "INCR", redis_key("loads", (tenant,)))
        await asyncio.sleep(0.3)
        return number

    async with CacheRepository(gateway) as cache:
        if part == "crowd":
            await cache.get(tenant, SPACE, "connect")
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
        count = 50 if part == "crowd" else 1
        answers = await asyncio.gather(*(cache.get_or_load(tenant, SPACE, KEY, load) for _ in range(count)))
    await gateway.aclose()
    print(*sorted(set(answers)), len(answers), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
