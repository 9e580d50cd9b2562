"""Forgetting: what has changed elsewhere is invalidated, of many tenants and kinds together, or else everything.

To forget everything is to delete all cells. That is safe at any moment: a cell that is gone has lost its lease, so what
is being loaded for it is refused, as after an eviction. A cell that is there when it begins is found, for a scan finds
each key that is there throughout; one that comes later was not there, and what is loaded for it is read later. So it
does what a new epoch would, and no reader has to look at one.
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import NamedTuple

from convostore.gateways.epoch_counter import EpochCounter
from convostore.models.keys import NAMESPACE
from convostore.repositories.cache_cells import ENTITY, KIND, CacheCells, cell_key
from convostore.repositories.cache_repository import CacheRepository
from convostore.repositories.redis_repository import RedisRepository

_TOGETHER = 200  # in one round trip


class Place(NamedTuple):
    """Where something is cached.

    Attributes:
        tenant_id: whose it is.
        space: the name of its space.
        key: which it is.
    """

    tenant_id: str
    space: str
    key: str


class CacheForgetting(RedisRepository):
    """Makes a cache forget.

    Every method may be repeated, and raises ``ConnectionError`` if some of it may not have been carried out.

    Args:
        cache: which one.
        counter: the epoch of what the library itself caches.
    """

    kind = KIND
    entity_type = ENTITY

    def __init__(self, cache: CacheRepository, counter: EpochCounter) -> None:
        super().__init__(cache.redis)
        self._epoch = cache.epoch
        self._counter = counter
        self._cells = CacheCells(cache.redis)

    async def invalidate(self, versions: Mapping[Place, int]) -> int:
        """Invalidate each place at its version; return how many held something older."""
        epochs = await self._epochs() if versions else []
        keys = {_key(place, each): version for place, version in versions.items() for each in epochs}
        floors = iter(keys.items())
        older = 0
        while some := dict(islice(floors, _TOGETHER)):
            older += sum(await self._cells.invalidate(some))
        return older

    async def forget(self, places: Iterable[Place]) -> int:
        """Forget what is in some places, whatever its version; return of how many anything was known."""
        places = list(places)
        epochs = await self._epochs() if places else []
        keys = iter([_key(place, each) for place in places for each in epochs])
        known = 0
        while some := list(islice(keys, _TOGETHER)):
            known += await self._cells.delete(*some)
        return known

    async def count(self, places: Iterable[Place]) -> int:
        """Return of how many of some places anything is known."""
        epochs = await self._epochs()
        look = self._operation("exists")
        keys = iter([_key(place, each) for place in places for each in epochs])
        known = 0
        while some := list(islice(keys, _TOGETHER)):
            known += sum(await self.redis.commands(look, [("EXISTS", key) for key in some]))
        return known

    async def forget_everything(self) -> int:
        """Forget whatever is cached, of all tenants and in all epochs; return how much it was."""
        known = 0
        async for keys in self.redis.scan(self._operation("scan"), f"{NAMESPACE}:{KIND}:*"):
            known += await self._cells.delete(*[key.decode() for key in keys])
        return known

    async def _epochs(self) -> list[str]:
        """Return those whose cells may be in use; what is cached in later ones is read later."""
        own = (await self._counter.read()).numbers
        return sorted({self._epoch, *map(str, own)})


def _key(place: Place, epoch: str) -> str:
    return cell_key(place.tenant_id, place.space, place.key, epoch)
