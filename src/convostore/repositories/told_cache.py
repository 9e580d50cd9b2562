"""ToldCache: values of one kind read through the cache, and every write to one is told before it returns.

To *tell* of a write is to make sure that no read that begins afterwards, of any process, finds what was there before:
its cells are deleted; or, where Redis cannot be reached, the epoch is raised (``cache_epoch``). A deleted cell has lost
its lease, so what is being loaded is refused, and what is loaded later has the write in it.

A write is told also if it has failed in a way that leaves it open whether it was done. A caller who is cancelled leaves
it behind: the write goes on without him, and is told.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from convostore.gateways.epoch_counter import EpochCounter
from convostore.gateways.mongo_gateway import MongoGateway
from convostore.gateways.redis_gateway import RedisGateway
from convostore.gateways.shared_deadline import one_deadline, time_left
from convostore.models.identity import split
from convostore.repositories.cache_cells import CacheCells, cell_key
from convostore.repositories.cache_epoch import CacheEpoch
from convostore.repositories.cache_loading import Load
from convostore.repositories.cache_repository import CacheRepository
from convostore.repositories.cache_space import CacheSpace
from convostore.repositories.cache_statistics import CacheStatistics
from convostore.repositories.exceptions import DeadlineExceededError, Outcome, RepositoryError, ValidationError

T = TypeVar("T")
V = TypeVar("V")
_TOGETHER = 200  # in one round trip
_LAST_WORD = 0.3  # seconds


class _Outdated(Exception):  # noqa: N818 - it never leaves this module
    """What was loaded must not be kept: the epoch has come to its end meanwhile."""


class ToldCache(Generic[V]):
    """The cached values of all tenants of a database, each belonging to a conversation.

    Args:
        redis: the way to the cache; stays open.
        mongodb: the way to the database; stays open.
        space: how the values are kept.
        epoch: what is known of the epoch; one for all caches of a process.
    """

    def __init__(
        self, redis: RedisGateway, mongodb: MongoGateway, space: CacheSpace[V], epoch: CacheEpoch | None = None
    ) -> None:
        self.epoch = epoch or CacheEpoch(EpochCounter(mongodb))
        self._mongodb = mongodb
        self._space = space
        self._cache = CacheRepository(redis)
        self._cells = CacheCells(redis)
        self._writes: set[asyncio.Task[Any]] = set()

    @property
    def statistics(self) -> CacheStatistics:
        """What came of the reads since it was opened."""
        return self._cache.statistics

    async def get(self, tenant_id: str, conversation_id: str, load: Load[V]) -> V | None:
        """Return the value of a conversation, loaded if the cache does not hold it; one GET if it does."""
        number = self.epoch.usable()
        if number is None:
            return await load()
        self._cache.epoch = str(number)  # the key is made from it before anybody else runs
        checked = partial(self._load, number, load)
        try:
            return await self._cache.get_or_load(tenant_id, self._space, conversation_id, checked)
        except _Outdated:
            return await load()

    async def _load(self, number: int, load: Load[V]) -> V | None:
        value = await load()
        if self.epoch.usable() != number:
            raise _Outdated  # it may have been told by a new primary, which did not know all yet
        return value

    async def write(
        self, identity: str, write: Callable[[], Awaitable[T]], tell: Callable[[T], Awaitable[None]] | None = None
    ) -> T:
        """Write to a conversation and tell it; a caller who is cancelled leaves it, and both go on without him.

        Args:
            identity: of the conversation.
            write: does it.
            tell: tells it, given what the write has returned; by default ``tell`` of this cache.

        Raises:
            ConnectionError: nobody could be told, neither Redis nor MongoDB; the write may have been done.
            DeadlineExceededError: time was over before it was told; that goes on.
            Exception: whatever the write raised.
        """
        with one_deadline(self._mongodb.deadline):
            # A little longer than the write itself may take, which knows best what became of it.
            return await self._leave_behind(self._write(identity, write, tell), _LAST_WORD)

    async def _write(
        self, identity: str, write: Callable[[], Awaitable[T]], tell: Callable[[T], Awaitable[None]] | None
    ) -> T:
        try:
            result = await write()
        except ValidationError:
            raise
        except BaseException:
            # It may have been done. Nor shall who is told of a conflict go on reading what has caused it.
            with suppress(RepositoryError):
                await self.tell([identity])
            raise
        await (self._tell([identity]) if tell is None else tell(result))
        return result

    async def tell(self, identities: Iterable[str]) -> None:
        """Make sure that no read that begins afterwards, of any process, finds what was there before.

        A caller who is cancelled leaves it, and it goes on without him.

        Raises:
            ConnectionError: neither Redis nor MongoDB could be told.
            DeadlineExceededError: time was over before; it goes on.
        """
        await self._leave_behind(self._tell(identities), 0)

    async def _leave_behind(self, work: Coroutine[Any, Any, T], more: float) -> T:
        """Await work as long as there is time, and so many seconds more; it is done in any case."""
        task = asyncio.create_task(work)
        self._writes.add(task)
        task.add_done_callback(self._done)
        try:
            async with asyncio.timeout(time_left(self._mongodb.deadline) + more):
                return await asyncio.shield(task)
        except TimeoutError as error:
            message = "it was not known in time whether the write is told to the cache"
            raise DeadlineExceededError("MongoDB", error, outcome=Outcome.UNKNOWN, message=message) from error

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._writes.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have gone

    async def _tell(self, identities: Iterable[str]) -> None:
        try:
            await self._forget(identities)
        except RepositoryError:
            try:
                await self.epoch.abandon()
            except RepositoryError as error:
                error.outcome = Outcome.UNKNOWN
                raise

    async def _forget(self, identities: Iterable[str]) -> None:
        keys = await self._keys(identities)
        for start in range(0, len(keys), _TOGETHER):
            await self._cells.delete(*keys[start : start + _TOGETHER])

    async def _keys(self, identities: Iterable[str]) -> Sequence[str]:
        """Return the keys of the cells that may be in use."""
        epoch = await self.epoch.current()
        return [key for identity in identities for key in keys_of(identity, epoch.numbers, self._space)]

    async def finish_writes(self) -> None:
        """Wait until all writes are told."""
        while self._writes:
            await asyncio.wait(self._writes)

    async def aclose(self) -> None:
        """Wait until all writes are told, and end what is being loaded."""
        await self.finish_writes()
        await self._cache.aclose()
        await self.epoch.aclose()


def keys_of(identity: str, numbers: Iterable[int], space: CacheSpace[Any]) -> list[str]:
    """Return the keys of a conversation's cells of several numbers of the epoch."""
    tenant_id, conversation_id = split(identity)
    return [cell_key(tenant_id, space.name, conversation_id, str(number)) for number in numbers]
