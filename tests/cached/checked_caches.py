"""Caches of conversations as the checker uses them: the library's, and what is usually done instead."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from convostore.gateways.operation import Operation
from convostore.repositories.conversation_cache import SPACE, ConversationCache
from convostore.repositories.exceptions import RepositoryError
from convostore.repositories.told_cache import keys_of

READ = Operation("get", "truth", "Truth", repeatable=True)
WRITE = Operation("set", "truth", "Truth", writes=True)
SLOWEST_LOAD = 0.02


class SlowCache(ConversationCache):
    """The library's, with loads that are slow.

    Attributes:
        told, lost: invalidations that were sent, and how many of them could not be delivered.
    """

    told = lost = 0

    async def get(self, tenant_id: str, conversation_id: str, load: Callable[[], Awaitable[Any]]) -> Any:
        return await super().get(tenant_id, conversation_id, lambda: _slowly(load))

    async def _forget(self, identities: Iterable[str]) -> None:
        self.told += 1
        try:
            await self._delete(identities)
        except RepositoryError:
            self.lost += 1
            raise

    async def _delete(self, identities: Iterable[str]) -> None:
        await super()._forget(identities)


class HopefulCache(SlowCache):
    """Hopes that invalidations arrive."""

    async def _tell(self, identities: Iterable[str]) -> None:
        with suppress(RepositoryError):
            await self._forget(identities)

    tell_activity = _tell


class PlainDelCache(HopefulCache):
    """What is usually done: read, else load and store; delete after a write."""

    async def get(self, tenant_id: str, conversation_id: str, load: Callable[[], Awaitable[Any]]) -> Any:
        (key,) = keys_of(f"{tenant_id}:{conversation_id}", [0], SPACE)
        with suppress(RepositoryError):
            found = await self._cells.redis.command(READ, "GET", key)
            with suppress(Exception):  # a tombstone of the synchronizer is no value
                value = SPACE.codec.decode(found)
                self.statistics.hits += 1
                return value
        value = await _slowly(load)
        with suppress(RepositoryError):
            if value is not None:
                await self._cells.redis.command(WRITE, "SET", key, SPACE.codec.encode(value), "EX", 60)
        return value

    async def _delete(self, identities: Iterable[str]) -> None:
        for identity in identities:
            await self._cells.delete(*keys_of(identity, [0], SPACE))


CACHES = {cls.__name__: cls for cls in (SlowCache, HopefulCache, PlainDelCache)}


async def _slowly(load: Callable[[], Awaitable[Any]]) -> Any:
    value = await load()
    await asyncio.sleep(random.uniform(0, SLOWEST_LOAD))
    return value
