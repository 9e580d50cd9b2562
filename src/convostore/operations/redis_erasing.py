"""What Redis holds of a tenant or a user: counted and erased, in bundles, by a scan of every server."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from convostore.database.redis_client import RedisClients
from convostore.gateways.operation import Operation
from convostore.gateways.redis_gateway import RedisGateway
from convostore.models.keys import pattern
from convostore.models.redis.session_identity import KIND as SESSION
from convostore.repositories.exceptions import RepositoryError
from convostore.repositories.rate_limit_keys import KIND as LIMIT
from convostore.repositories.rate_limit_keys import identity_key
from convostore.repositories.session_erasing import SessionErasing, Wanted

_SCAN = Operation("SCAN", "redis", "Key", repeatable=True)
_LOOK = Operation("EXISTS", "redis", "Key", repeatable=True)
_REMOVE = Operation("UNLINK", "redis", "Key", writes=True, repeatable=True)


@dataclass(frozen=True, slots=True)
class InRedis:
    """What was found.

    Attributes:
        sessions: that hold anything, whether they live or not.
        limits: identities of which something is counted.
        others: further keys: of the cache, and indexes of sessions.
    """

    sessions: int = 0
    limits: int = 0
    others: int = 0


class RedisErasing:
    """Erases what is kept of one tenant, or of one of his users.

    Args:
        clients: the ways to the servers.
        wanted: whose.
        identifiers: under which limits name the user.
    """

    def __init__(self, clients: RedisClients, wanted: Wanted, identifiers: Sequence[str] = ()) -> None:
        self._clients = clients
        self._wanted = wanted
        self._sessions = SessionErasing(clients.state)
        self._limits = [identity_key(wanted.tenant_id, identifier) for identifier in identifiers]

    async def look(self) -> InRedis:
        """Count what there is."""
        sessions = await self._sessions.count(self._wanted)
        if self._wanted.user_id is not None:
            counted = await self._clients.state.commands(_LOOK, [("EXISTS", key) for key in self._limits])
            return InRedis(sessions, sum(map(_number, counted)))
        limits = others = 0
        async for _, keys in self._of_tenant():
            of_limits = sum(_kind(key) == LIMIT for key in keys)
            limits, others = limits + of_limits, others + len(keys) - of_limits
        return InRedis(sessions, limits, others)

    async def erase(self) -> None:
        """Erase it; the marks of used ids of sessions stay until the server removes them.

        Raises:
            RepositoryError: a server failed; call it again.
        """
        await self._sessions.erase(self._wanted)
        if self._wanted.user_id is not None:
            await _remove(self._clients.state, self._limits)
            return
        async for gateway, keys in self._of_tenant():
            await _remove(gateway, keys)

    async def _of_tenant(self) -> AsyncIterator[tuple[RedisGateway, list[str]]]:
        """Iterate over the keys of the tenant but those of sessions, which leave marks."""
        for gateway in dict.fromkeys((self._clients.state, self._clients.cache)):
            if gateway is self._clients.cache and self._clients.shared:
                continue
            async for found in gateway.scan(_SCAN, pattern("*", self._wanted.tenant_id)):
                yield gateway, [key for key in map(bytes.decode, found) if _kind(key) != SESSION]


async def _remove(gateway: RedisGateway, keys: Sequence[str]) -> None:
    for reply in await gateway.commands(_REMOVE, [("UNLINK", key) for key in keys]):
        _number(reply)


def _number(reply: object) -> int:
    if isinstance(reply, RepositoryError):
        raise reply
    return int(str(reply))


def _kind(key: str) -> str:
    return key.split(":", 2)[1]
