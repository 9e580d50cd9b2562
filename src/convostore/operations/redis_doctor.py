"""Looks for what is wrong with the Redis of a store; changes nothing."""

from collections.abc import AsyncIterator

from convostore.database.redis_client import RedisClients
from convostore.gateways.redis_gateway import RedisGateway
from convostore.gateways.redis_probe import RedisFacts, probe
from convostore.operations.doctor import Finding, Level
from convostore.repositories.exceptions import RepositoryError

_KEEPS_ALL = "noeviction"


class RedisDoctor:
    """Examines the servers for sessions and limits, and for the cache.

    Args:
        clients: the ways to them.
    """

    def __init__(self, clients: RedisClients) -> None:
        self._clients = clients

    async def examine(self) -> AsyncIterator[Finding]:
        """Iterate over the findings as they come; a server that is away is one of them."""
        yield self._session_key()
        state = None
        try:
            state = await probe(self._clients.state)
        except RepositoryError as error:
            yield _away("Redis", error)
        if state is not None:
            yield _usable("Redis", state)
            yield _persistence(state)
            yield _eviction(state, shared=self._clients.shared)
        if not self._clients.shared:
            yield await _cache(self._clients.cache)

    def _session_key(self) -> Finding:
        if self._clients.session_key is None:
            return Finding(
                "session key", Level.WARNING, "not set, so no session can be started: CONVOSTORE_SESSION_KEY"
            )
        return Finding("session key", Level.OK, "set")


async def _cache(gateway: RedisGateway) -> Finding:
    try:
        return _usable("Redis, cache", await probe(gateway))
    except RepositoryError as error:
        return _away("Redis, cache", error)


def _away(check: str, error: RepositoryError) -> Finding:
    return Finding(check, Level.PROBLEM, str(error))


def _usable(check: str, facts: RedisFacts) -> Finding:
    if facts.problem:
        return Finding(check, Level.PROBLEM, facts.problem)
    return Finding(check, Level.OK, f"answers; {facts.title}, {facts.mode}")


def _persistence(facts: RedisFacts) -> Finding:
    if facts.persistence:
        return Finding("persistence", Level.OK, ", ".join(facts.persistence))
    text = "keeps nothing on disk: a restart ends all sessions and forgets what was counted"
    return Finding("persistence", Level.WARNING, text)


def _eviction(facts: RedisFacts, *, shared: bool) -> Finding:
    if facts.max_memory and facts.policy != _KEEPS_ALL:
        text = f"{facts.policy}: when memory is used up, sessions end early and limits admit more than they should"
        return Finding("eviction", Level.WARNING, f"{text}; give them a server with {_KEEPS_ALL}")
    if facts.max_memory and shared:
        text = "a full cache would have logins refused; give the cache a server of its own: CONVOSTORE_CACHE_URL"
        return Finding("eviction", Level.WARNING, text)
    return Finding("eviction", Level.OK, facts.policy if facts.max_memory else "no limit of memory")
