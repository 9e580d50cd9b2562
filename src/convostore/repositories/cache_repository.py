"""CacheRepository: what was read from the database, kept in Redis, never older than the last write that returned."""

import random as _random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self, TypeVar

from convostore.gateways.redis_gateway import RedisGateway
from convostore.models.identity import check_identifier
from convostore.models.redis.cached_value import CachedValue
from convostore.repositories.cache_cell import Cell
from convostore.repositories.cache_cells import ENTITY, KIND, Address, CacheCells, Content, cell_key
from convostore.repositories.cache_loading import CacheLoading, Load
from convostore.repositories.cache_space import CacheSpace, check_space, check_version
from convostore.repositories.cache_statistics import CacheStatistics
from convostore.repositories.cache_tags import check_tags, tag_key
from convostore.repositories.cache_values import CacheValues
from convostore.repositories.exceptions import RepositoryError, ValidationError
from convostore.repositories.redis_repository import RedisRepository

T = TypeVar("T")


class _Look(NamedTuple):
    cached: CachedValue[Any] | None
    cell: Cell | None
    away: bool = False


class CacheRepository(RedisRepository):
    """A cache of values of several spaces and many tenants.

    Promise: **when a write of version v has returned, no later read through the cache sees less than v.** A write here
    is: change the database, then ``invalidate`` (or ``write_through``, or ``delete``), and only then return. It holds
    under evictions, expiry, slow loads and cancelled callers, from any number of processes; ``cache_cells`` has the
    protocol and its proof, ``cache_loading`` what holds within a process. Its conditions: loads read the primary, no
    unit of work is open around them, and the server does not go back in time. Through a ``NearGateway`` a read may be
    behind the writes of other processes, by its ``lag`` at most.

    In a space with ``version_of``, values come in by ``get_or_load`` and ``write_through``. In one without, they come
    in by ``get_or_load`` and ``set``, the last writer wins, and ``delete`` keeps the promise: a load that was begun
    before it is not put in. One key is always used with the same space and the same tags.

    Reads never fail because of the cache: when it does not answer, ``get`` and ``get_many`` find nothing and
    ``get_or_load`` loads, still only once at a time for a key in a process. ``exists`` raises, for "could not look" is
    another answer than "not there". Writes raise ``ConnectionError`` if they may not have been carried out: then older
    values may be found until they end, so repeat them; each may be repeated at any time.

    Every method raises ``ValidationError`` for an argument that cannot be right, before anything is sent. Cells of
    different keys lie on different servers of a cluster.

    Args:
        redis_client: the way to the server; stays open.
        epoch: part of all keys; with another, everything cached before is forgotten.
        random: draws from the interval from 0 to below 1, for jitter and early refreshes.
    """

    kind = KIND
    entity_type = ENTITY

    def __init__(
        self, redis_client: RedisGateway, *, epoch: str = "0", random: Callable[[], float] = _random.random
    ) -> None:
        super().__init__(redis_client)
        self.epoch = check_identifier(epoch, "epoch")
        self.statistics = CacheStatistics()
        self._random = random
        self._cells = CacheCells(redis_client)
        self._values = CacheValues(self.statistics, random)
        self._loading = CacheLoading(self._cells, self._values, self.statistics, random)

    async def get(
        self, tenant_id: str, space: CacheSpace[T], key: str, tags: Sequence[str] = ()
    ) -> CachedValue[T] | None:
        """Return what the cache holds, or None: one GET, and one for each tag in the same round trip.

        Args:
            tenant_id: whose it is.
            space: of what kind it is.
            key: which it is.
            tags: those it was stored with; a value with other tags is not found.
        """
        return (await self._look(self._address(tenant_id, space, key, tags))).cached

    async def get_many(
        self, tenant_id: str, space: CacheSpace[T], keys: Iterable[str], tags: Sequence[str] = ()
    ) -> dict[str, CachedValue[T]]:
        """Return what the cache holds of several keys, in one round trip to each server."""
        if isinstance(keys, str) or not isinstance(keys, Iterable):
            raise ValidationError(f"keys: must be several texts, not {type(keys).__name__}", "keys")
        addresses = {check_identifier(key, "key"): self._address(tenant_id, space, key, tags) for key in keys}
        if not addresses:
            return {}
        tag_keys = next(iter(addresses.values())).tags
        try:
            stored = await self._cells.read_many([address.key for address in addresses.values()], tag_keys)
        except RepositoryError:
            self.statistics.outages += 1
            self.statistics.misses += len(addresses)
            return {}
        looks = {key: self._judged(space, each) for key, each in zip(addresses, stored, strict=True)}
        return {key: look.cached for key, look in looks.items() if look.cached is not None}

    async def exists(self, tenant_id: str, space: CacheSpace[Any], key: str, tags: Sequence[str] = ()) -> bool:
        """Say whether the cache holds a value; the knowledge that there is nothing is none.

        Raises:
            ConnectionError: it could not be looked.
        """
        stored = await self._cells.read(self._address(tenant_id, space, key, tags))
        cached = self._judged(space, stored).cached
        return cached is not None and not cached.is_negative

    async def get_or_load(
        self, tenant_id: str, space: CacheSpace[T], key: str, load: Load[T], tags: Sequence[str] = ()
    ) -> T | None:
        """Return the value, loaded if the cache does not hold it; None if there is nothing, which is cached as well.

        Of all who ask for a key at the same time, in all processes, one loads. Shortly before a value ends, one of its
        readers loads it anew in the background. A caller who is cancelled does not stop the load.

        Args:
            tenant_id: whose it is.
            space: of what kind it is.
            key: which it is.
            load: reads it from the database, on the primary; runs in a task of its own, with the caller's context, and
                may go on when the caller has gone.
            tags: by which it can be forgotten.

        Raises:
            Exception: whatever the load raised, to all who wait for it; nothing is cached.
        """
        address = self._address(tenant_id, space, key, tags)
        if not callable(load):
            raise ValidationError(f"load: must be a function, not {type(load).__name__}", "load")
        cached, cell, away = await self._look(address)
        if cached is None:
            return await self._loading.join(address, load, unwanted=cell.stamp if cell else b"", away=away)
        if cell and space.beta and cell.is_due(self._cells.clock.now(), space.beta, self._random()):
            self._loading.refresh(address, load, cell.stamp)
        return cached.value

    async def set(
        self, tenant_id: str, space: CacheSpace[T], key: str, value: T | None, tags: Sequence[str] = ()
    ) -> bool:
        """Store a value, or None for the knowledge that there is nothing; the last writer wins.

        Returns:
            Whether it was stored; a server that is full has forgotten the old one instead.

        Raises:
            ValidationError: the space has versions, or the value is too large or cannot be encoded.
            ConnectionError: it may not have been stored.
        """
        address = self._address(tenant_id, space, key, tags)
        if space.version_of is not None:
            raise ValidationError("space: has versions, so use write_through or invalidate", "space")
        if value is None:
            life = space.life(space.negative_ttl or space.ttl, self._random())
            return await self._cells.set(address, Content(0, life, None))
        return await self._cells.set(address, self._encoded(space, value))

    async def delete(self, tenant_id: str, space: CacheSpace[Any], key: str) -> bool:
        """Forget a key and refuse what is being loaded for it; return whether anything was known of it.

        Raises:
            ConnectionError: it may not have been carried out.
        """
        return bool(await self._cells.delete(self._address(tenant_id, space, key, ()).key))

    async def invalidate(self, tenant_id: str, space: CacheSpace[Any], key: str, version: int) -> bool:
        """Make sure that nothing older than a version is found from now on; return whether something older was there.

        Late or repeated, it does no harm: what is at that version or above stays.

        Raises:
            ConnectionError: it may not have been carried out.
        """
        return (await self.invalidate_many(tenant_id, space, {check_identifier(key, "key"): version}))[key]

    async def invalidate_many(
        self, tenant_id: str, space: CacheSpace[Any], versions: Mapping[str, int]
    ) -> dict[str, bool]:
        """Invalidate several keys, each at its version, in one round trip to each server.

        Raises:
            ConnectionError: some of it may not have been carried out.
        """
        if not isinstance(versions, Mapping):
            raise ValidationError(f"versions: must be a mapping, not {type(versions).__name__}", "versions")
        addresses = {key: self._address(tenant_id, space, key, ()).key for key in versions}
        floors = {addresses[key]: check_version(version) for key, version in versions.items()}
        return dict(zip(versions, await self._cells.invalidate(floors), strict=True))

    async def write_through(
        self, tenant_id: str, space: CacheSpace[T], key: str, value: T, tags: Sequence[str] = ()
    ) -> bool:
        """Put in what has just been written to the database, over an older value; else invalidate at its version.

        Where no older value is there, a newer one may have been and been evicted, so it is not put in: the next reader
        loads it. Nor is one put in that is too large or that cannot be encoded.

        Returns:
            Whether it was put in.

        Raises:
            ValidationError: the space has no versions, or that of the value is none.
            ConnectionError: it may not have been carried out.
        """
        address = self._address(tenant_id, space, key, tags)
        if space.version_of is None:
            raise ValidationError("space: has no versions, so use set or delete", "space")
        version = check_version(space.version_of(value))
        content = self._values.content(space, value, version)
        if content is None:  # it is written, so the older one must go all the same
            await self._cells.invalidate({address.key: version})
            return False
        return await self._cells.write_through(address, content)

    async def invalidate_tag(self, tenant_id: str, *tags: str) -> None:
        """Forget whatever bears one of the tags, and refuse what is being loaded with it.

        Raises:
            ConnectionError: it may not have been carried out.
        """
        tenant_id = check_identifier(tenant_id, "tenant_id")
        await self._cells.delete(*(tag_key(tenant_id, tag, self.epoch) for tag in check_tags(tags)))

    async def _look(self, address: Address[Any]) -> _Look:
        try:
            stored = await self._cells.read(address)
        except RepositoryError:
            self.statistics.outages += 1
            self.statistics.misses += 1
            return _Look(None, None, away=True)
        return self._judged(address.space, stored)

    def _judged(self, space: CacheSpace[Any], stored: Any) -> _Look:
        cell = self._values.cell(stored)
        cached = self._values.decoded(space, cell, stored.generations)
        if cached is not None and cached.expires <= self._cells.clock.now():
            self.statistics.misses += 1
            return _Look(None, None)  # by this machine's clock; the server is asked by its own
        self.statistics.hits += cached is not None
        self.statistics.misses += cached is None
        return _Look(cached, cell)

    def _encoded(self, space: CacheSpace[T], value: T) -> Content:
        try:
            return self._values.encoded(space, value, 0)
        except ValidationError:
            raise
        except Exception as error:  # noqa: BLE001 - a codec may raise anything, and what it says may quote the value
            raise ValidationError(f"value: cannot be cached: {type(error).__name__}", "value") from None

    def _address(self, tenant_id: str, space: CacheSpace[T], key: str, tags: Sequence[str]) -> Address[T]:
        tenant_id = check_identifier(tenant_id, "tenant_id")
        key = check_identifier(key, "key")
        check_space(space)
        tag_keys = tuple([tag_key(tenant_id, tag, self.epoch) for tag in check_tags(tags)]) if tags else ()
        return Address(cell_key(tenant_id, space.name, key, self.epoch), tag_keys, space)

    async def aclose(self) -> None:
        """End loads and refreshes in the background; whoever waits for one is told so."""
        await self._loading.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
