"""A Redis or Valkey with a replica, behind one address that leads to whichever is the primary.

    async with RedisPair() as pair:
        async with ConvoStore.open(redis_url=pair.url, …) as store:
            await pair.fail_over()

Both write each command to disk before they answer, so that a crash loses nothing; and a failover waits for the replica.
Only so can a test demand that what was acknowledged is there: a replica that is promoted in an emergency lacks the end.

Failover: https://redis.io/docs/latest/commands/failover/
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from convostore.database.child_server import HOST
from convostore.repositories.exceptions import LocalServerError
from convostore.testing.ensemble import Ensemble
from convostore.testing.redis_proxy import RedisProxy
from convostore.testing.redis_servers import RedisServer

__all__ = ["RedisPair"]

READY_SECONDS = 30.0
POLL_SECONDS = 0.02
FAILOVER_MILLISECONDS = 3_000
_DURABLE = {"appendonly": "yes", "appendfsync": "always", "repl_diskless_sync_delay": "0"}


class RedisPair(Ensemble):
    """A primary and a replica on loopback; use it with ``async with``.

    Args:
        kind: ``valkey`` or ``redis``.

    Attributes:
        proxy: through which clients reach the primary.
        primary: the server that is the primary now.
        replica: the other one.
    """

    def __init__(self, kind: str = "valkey") -> None:
        super().__init__()
        self.primary, self.replica = RedisServer(kind, **_DURABLE), RedisServer(kind, **_DURABLE)

    @property
    def url(self) -> str:
        """The address of database 0, through the proxy."""
        return self.proxy.url

    async def _start(self) -> None:
        for server in (self.primary, self.replica):
            self._ends.callback(server.stop)
            await asyncio.to_thread(server.start)
        self.proxy = await self._ends.enter_async_context(RedisProxy(HOST, self.primary.port))
        await self._follow()

    async def settled(self) -> None:
        """Wait until the replica has caught up with the primary.

        Raises:
            LocalServerError: it does not within half a minute.
        """
        await _wait("a replica in step", lambda: "state=online" in self.primary.ask("INFO", "replication"))

    async def _follow(self) -> None:
        await asyncio.to_thread(self.replica.ask, "REPLICAOF", HOST, self.primary.port)
        await self.settled()

    async def fail_over(self) -> None:
        """Make the replica the primary, once it has all that was acknowledged; connections are lost.

        Raises:
            LocalServerError: they do not change their parts within half a minute.
        """
        await _wait("another primary", self._has_moved)
        self.primary, self.replica = self.replica, self.primary
        self.proxy.lead_to(HOST, self.primary.port)
        await self.settled()

    def _has_moved(self) -> bool:
        """Ask the primary for a failover, again if it has given up one, and tell whether it has happened."""
        state = self.primary.ask("INFO", "replication")
        if "role:master" in state and "master_failover_state:no-failover" in state:
            self.primary.ask("FAILOVER", "TO", HOST, self.replica.port, "TIMEOUT", FAILOVER_MILLISECONDS)
        return "role:slave" in state and "role:master" in self.replica.ask("INFO", "replication")

    @asynccontextmanager
    async def killed(self) -> AsyncIterator[None]:
        """End the primary at once, as a crash does; start it again with its data at the end."""
        self.primary.kill()
        try:
            yield
        finally:
            await asyncio.to_thread(self.primary.start)
            await self.settled()

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """Freeze the primary: it keeps its connections and answers nothing until the end."""
        await asyncio.to_thread(self.primary.pause)
        try:
            yield
        finally:
            self.primary.resume()


async def _wait(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            raise LocalServerError("Redis", message=f"The pair did not have {what} within {READY_SECONDS:.0f} s.")
        await asyncio.sleep(POLL_SECONDS)
