"""Opened ways to Redis or Valkey, and the one that is current in a context."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Self

from convostore.database.settings import RedisSettings
from convostore.gateways.breaker import Breaker
from convostore.gateways.near_gateway import NearGateway
from convostore.gateways.redis_address import RedisAddress
from convostore.gateways.redis_gateway import RedisGateway
from convostore.models.keys import CACHED, NAMESPACE
from convostore.repositories.exceptions import RepositoryError, ValidationError


@dataclass(frozen=True)
class RedisClients:
    """The two ways: one for sessions and limits, one for the cache, which is asked less patiently.

    Attributes:
        state: for sessions and limits.
        cache: for the cache.
        session_key: secret from which the visible part of a session's id is made, or None; not shown.
        shared: whether both lead to the same server.
    """

    state: RedisGateway
    cache: RedisGateway
    session_key: bytes | None = field(default=None, repr=False)
    shared: bool = True

    @classmethod
    def open(cls, settings: RedisSettings, **policies: Any) -> Self:
        """Return the ways; the first call connects.

        Raises:
            ValidationError: there is no address, or it is not valid.
        """
        if settings.redis_url is None:
            raise ValidationError("redis_url: no address of a Redis or Valkey server", "redis_url")
        cache_url = settings.cache_url or settings.redis_url
        state = _gateway(settings.redis_url.get_secret_value(), settings, settings.redis_deadline, policies)
        cache = _cache_gateway(cache_url.get_secret_value(), settings, policies)
        key = settings.session_key.get_secret_value().encode() if settings.session_key else None
        return cls(state, cache, key, shared=cache_url == settings.redis_url)

    async def aclose(self) -> None:
        """Close all connections."""
        await self.state.aclose()
        await self.cache.aclose()


_current: ContextVar[RedisClients | None] = ContextVar("convostore_redis", default=None)


def _gateway(url: str, settings: RedisSettings, deadline: float, policies: dict[str, Any]) -> RedisGateway:
    return RedisGateway.connect(url, **_policies(settings, deadline, policies))


def _cache_gateway(url: str, settings: RedisSettings, policies: dict[str, Any]) -> RedisGateway:
    if not settings.near_cache_bytes:
        return _gateway(url, settings, settings.cache_deadline, policies)
    if RedisAddress.parse(url).is_cluster:
        raise ValidationError("near_cache_bytes: a cluster cannot say what changes in it", "near_cache_bytes")
    return NearGateway.connect(
        url,
        prefix=f"{NAMESPACE}:{CACHED}:",
        room=settings.near_cache_bytes,
        lag=settings.near_cache_lag,
        **_policies(settings, settings.cache_deadline, policies),
    )


def _policies(settings: RedisSettings, deadline: float, policies: dict[str, Any]) -> dict[str, Any]:
    breaker = Breaker(settings.breaker_failures, settings.breaker_pause)
    return {"size": settings.redis_pool_size, "deadline": deadline, "breaker": breaker, **policies}


@contextmanager
def current_redis(clients: RedisClients | None) -> Iterator[RedisClients | None]:
    """Make these ways the current ones of this context, for example for the time of a request."""
    token = _current.set(clients)
    try:
        yield clients
    finally:
        _current.reset(token)


async def get_redis() -> RedisClients:
    """Return the current ways to Redis.

    Raises:
        RepositoryError: none are current, or the store has none.
    """
    clients = _current.get()
    if clients is None:
        raise RepositoryError(
            "no store with a Redis is current: enter `with store.tenant(tenant_id).current():` first, for example in a "
            "dependency of the request"
        )
    return clients
