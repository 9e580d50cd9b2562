"""The roster of peers: by which name each is shown, and how it is opened.

Modules are imported when somebody asks for their peers: who measures convostore alone needs none of them installed.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from importlib import import_module
from typing import Any

Opening = Callable[..., AbstractAsyncContextManager[Any]]

_ON_MONGODB = {
    "Beanie": ("beanie_documents", "beanie"),
    "openai-agents, MongoDB": ("agents_sessions", "agents_mongodb"),
    "langchain-mongodb": ("langchain_history", "langchain"),
}


MONGODB_NAMES = tuple(_ON_MONGODB)


def mongodb_peers(only: str = "") -> dict[str, Opening]:
    """Return the peers on MongoDB, opened with its settings; only one of them, if named."""
    return {
        name: getattr(import_module(f"benchmarks.peers.{module}"), opening)
        for name, (module, opening) in _ON_MONGODB.items()
        if only in ("", name)
    }


def message_peers_elsewhere(redis_url: str) -> dict[str, Opening]:
    """Return the peers that keep messages in Redis or in a file, opened with nothing."""
    agents = import_module("benchmarks.peers.agents_sessions")
    return {
        "openai-agents, Redis": partial(agents.agents_redis, redis_url),
        "openai-agents, SQLite": agents.agents_sqlite,
    }


def redis_peers(redis_url: str) -> dict[str, Opening]:
    """Return the peers for limits, caches or sessions, opened with nothing."""
    on_redis = import_module("benchmarks.peers.on_redis")
    return {
        "limits, moving window": partial(on_redis.limits, redis_url, on_redis.MOVING),
        "limits, sliding counter": partial(on_redis.limits, redis_url, on_redis.COUNTER),
        "cashews": partial(on_redis.cashews, redis_url),
        "aiocache": partial(on_redis.aiocache, redis_url),
        "starsessions": partial(on_redis.starsessions, redis_url),
    }
