"""A clock for the scripts of limits, and a repository in a loop of its own for tests that hypothesis runs."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeVar

from convostore.database.redis_client import RedisClients
from convostore.database.settings import RedisSettings
from convostore.gateways.operation import Operation
from convostore.gateways.redis_gateway import RedisGateway
from convostore.gateways.scripts import Script
from convostore.models.keys import redis_key
from convostore.repositories.rate_limit_repository import RateLimitRepository
from convostore.repositories.rate_limit_server import LimitScripts

T = TypeVar("T")
MICROSECONDS = 1_000_000
_CLOCK = Script("limit_clock")
_STOPPED_CLOCK = """
local function now() return tonumber(redis.call('GET', string.match(KEYS[1], '^.-}') .. '=now')) end
local function keep(key) redis.call('PEXPIRE', key, 600000) end
"""


@dataclass(frozen=True)
class ClockedScript(Script):
    """A script whose clock is a key, so that tests say what time it is; nothing expires."""

    @cached_property
    def text(self) -> str:
        """The source, with the other clock."""
        source: str = super().text
        assert _CLOCK.text in source
        return source.replace(_CLOCK.text, _STOPPED_CLOCK)


def clocked(scripts: LimitScripts) -> LimitScripts:
    """Return the scripts with the clock of tests."""
    found = {each.name: getattr(scripts, each.name) for each in fields(scripts)}
    return LimitScripts(
        **{name: ClockedScript(old.name, old.parts, old.writes, old.repeatable) for name, old in found.items()}
    )


async def set_clock(redis: RedisGateway, tenant: str, moment: int) -> None:
    """Say what time it is for a tenant, in microseconds since 1970."""
    key = redis_key("limit", (tenant,)) + "=now"
    await redis.command(Operation("SET", "limit", "Clock"), "SET", key, moment, "EX", 600)


class Bench:
    """Limits whose time a test sets."""

    def __init__(self, runner: asyncio.Runner, clients: RedisClients) -> None:
        self._runner = runner
        self.clients = clients

    def limits(self, **settings: Any) -> RateLimitRepository:
        """Return a repository that asks the server each time."""
        scripts = clocked(LimitScripts.of(guarded=settings.get("guard") is not None))
        return RateLimitRepository(self.clients.state, **{"remember_denials": 0, "scripts": scripts, **settings})

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work in the loop."""
        return self._runner.run(work)

    async def set_clock(self, tenant: str, moment: int) -> None:
        """Say what time it is for a tenant, in microseconds since 1970."""
        await set_clock(self.clients.state, tenant, moment)


@contextmanager
def limit_bench(settings: RedisSettings) -> Iterator[Bench]:
    """Open the way to a server in a loop of its own."""
    with asyncio.Runner() as runner:

        async def opened() -> RedisClients:
            return RedisClients.open(settings)

        clients = runner.run(opened())
        try:
            yield Bench(runner, clients)
        finally:
            runner.run(clients.aclose())
