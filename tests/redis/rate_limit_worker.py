"""One of several processes against one limit: asks as fast as it can, and prints how often it was admitted."""

import asyncio
import sys

from pydantic import SecretStr

from convostore.database.redis_client import RedisClients
from convostore.database.settings import RedisSettings
from convostore.repositories.rate_limit_repository import RateLimitRepository


async def _work(url: str, tenant: str, limit: int, attempts: int) -> None:
    clients = RedisClients.open(RedisSettings(redis_url=SecretStr(url), redis_deadline=30))
    limits = RateLimitRepository(clients.state, remember_denials=0)
    await limits.get_remaining_quota(tenant, "warm-up", 1, 60)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

    async def ask() -> int:
        answers = [await limits.check_rate_limit(tenant, "u", limit, 3600) for _ in range(attempts // 8)]
        assert not any(answer.degraded for answer in answers)
        return sum(answer.allowed for answer in answers)

    print(sum(await asyncio.gather(*[ask() for _ in range(8)])), flush=True)
    await clients.aclose()


asyncio.run(_work(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
