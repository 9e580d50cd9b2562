"""The protocol: what may be done to a cell, each as one script, and why no read is older than a returned write.

Leases as in Nishtala et al.: "Scaling Memcache at Facebook", NSDI 2013; versions, floors and the proof are added here.

A cell is absent, or holds a *value* at a version, or a *tombstone*: a version that is the floor. Either may bear a
*lease*, the token of whoever is loading. Its steps:

- *read*: a plain GET. A value counts, a tombstone does not.
- *acquire*: if there is no value and nobody holds the lease, give it, and tell the floor. Only then the load begins.
- *fill*: put in what was loaded, only if the own token is still in the cell, and not below the floor.
- *invalidate(v)*: a cell below v becomes a tombstone at v; its lease stays, so that still only one loads.
- *write_through(v)*: put in the written value, only over an older value; else the same as invalidate.
- *delete*, expiry and eviction: the cell is absent, and with it the lease.

Invariant: **if a cell holds a value at version x, then every write whose invalidate or write_through has returned has a
version of at most x.** Each step keeps it:

- *invalidate(v)* and *write_through(v)* leave no value below v.
- *fill*: the token is in the cell, so the cell has been there since the acquire. A write that returned before the load
  began is in what was loaded, for loads read the primary. One that returned since has left its floor in this very
  cell. Had the cell been gone for a moment, the token would be gone: a token is drawn for each acquire, an acquire is
  never sent twice, and renewing a lease never makes one. So an eviction at any moment costs a load, no truth.
- *write_through(v)* over a value at x < v: by the invariant nothing above x has returned, so v is the newest. Over a
  tombstone, or nothing, this cannot be known: a newer write may have come and been evicted. So the value is not put in.
- Nothing found (a negative value) is put in at the floor that the acquire told, so a floor raised since refuses it;
  write_through never replaces it, since what was deleted has no version to compare with.

The invariant rests on one server that forgets but does not go back in time. One that restarts from a snapshot, or a
replica promoted before it had everything, may hold older cells: keep the cache without persistence, or start a new
epoch, a part of all keys, which forgets everything.

A lease that is not renewed for a second may be taken over, so that a reader who died holds up nobody for longer. That
concerns the number of loads alone: what was taken over is refused by its token, and what nobody took over may still be
filled. Leases are timed by the server's clock.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from convostore.gateways.operation import Operation
from convostore.gateways.redis_gateway import RedisGateway
from convostore.gateways.redis_wire import Part
from convostore.gateways.scripts import Script
from convostore.models.keys import CACHED, redis_key
from convostore.repositories.cache_cell import NOTHING, VALUE, body
from convostore.repositories.cache_space import CacheSpace
from convostore.repositories.cache_tags import ensuring, joined, reading
from convostore.repositories.redis_repository import RedisRepository

T = TypeVar("T")

LEASE_SECONDS = 1.0
RENEWAL_SECONDS = LEASE_SECONDS / 3
TOMBSTONE_SECONDS = 60  # how long a load may take without being renewed, at most, and still be put in
_LEASE = int(LEASE_SECONDS * 1_000_000)
_LEASED = int(LEASE_SECONDS * 2000)  # milliseconds that a cell with a lease lives at least
_TOMBSTONE = TOMBSTONE_SECONDS * 1000
_TOKEN_BYTES = 8
_MAX_COST = 2**32 - 1
_FOUND, _GRANTED, _HELD = 1, 2, 3

_PARTS = ("cache_cell",)
ACQUIRE = Script("cache_acquire", _PARTS)  # never repeatable: sent again, it could bring a lost lease back
RENEW = Script("cache_renew", _PARTS, repeatable=True)
FILL = Script("cache_fill", _PARTS, repeatable=True)
RELEASE = Script("cache_release", _PARTS, repeatable=True)
INVALIDATE = Script("cache_invalidate", _PARTS, repeatable=True)
WRITE_THROUGH = Script("cache_write_through", _PARTS, repeatable=True)
SET = Script("cache_set", _PARTS)

KIND, ENTITY = CACHED, "CachedValue"
_READ = Operation("get", KIND, ENTITY, repeatable=True)
_READ_TAGS = Operation("get_tags", KIND, ENTITY, writes=True)


class Address(NamedTuple, Generic[T]):
    """Where a value lies.

    Attributes:
        key: of the cell.
        tags: the keys of its tags' generations.
        space: how it is kept.
    """

    key: str
    tags: tuple[str, ...]
    space: CacheSpace[T]


def cell_key(tenant_id: str, space: str, key: str, epoch: str) -> str:
    """Return the key of a cell."""
    return redis_key(KIND, (tenant_id, space, key), epoch)


class Stored(NamedTuple):
    """What a cell holds, and the generations that its tags have, or None if one has none."""

    cell: Any
    generations: bytes | None


class Lease(NamedTuple):
    """The right to fill a cell, and what is known before the load begins."""

    token: bytes
    floor: int
    generations: bytes


class Held(NamedTuple):
    """Somebody else holds the lease, for so many seconds if it is not renewed."""

    seconds: float


class Content(NamedTuple):
    """What to put into a cell; ``data`` is None for the knowledge that there is nothing."""

    version: int
    milliseconds: int
    data: bytes | None

    @property
    def kind(self) -> bytes:
        """The mark of it in the cell."""
        return NOTHING if self.data is None else VALUE


class ServerClock:
    """The server's clock, as far as its answers tell; until the first the clock of this machine."""

    def __init__(self) -> None:
        self._ahead = 0

    def learn(self, microseconds: int) -> None:
        """Take note of what the server's clock has just said."""
        self._ahead = microseconds - time.time_ns() // 1000

    def now(self) -> int:
        """Return microseconds of the server's clock."""
        return time.time_ns() // 1000 + self._ahead


class CacheCells(RedisRepository):
    """The steps of the protocol; each raises ``RepositoryError`` where it could not be carried out.

    Args:
        redis_client: the way to the server.
    """

    kind = KIND
    entity_type = ENTITY

    def __init__(self, redis_client: RedisGateway) -> None:
        super().__init__(redis_client)
        self.clock = ServerClock()

    async def read(self, address: Address[Any]) -> Stored:
        """Return what is there."""
        if not address.tags:
            return Stored(await self.redis.command(_READ, "GET", address.key), b"")
        replies = await self.redis.commands(_READ, [("GET", address.key), *reading(address.tags)])
        return Stored(_raised(replies)[0], joined(replies[1:]))

    async def read_many(self, keys: Sequence[str], tags: Sequence[str]) -> list[Stored]:
        """Return what is in each of several cells of the same tags."""
        replies = _raised(await self.redis.commands(_READ, [*reading(keys), *reading(tags)]))
        generations = joined(replies[len(keys) :])
        return [Stored(cell, generations) for cell in replies[: len(keys)]]

    async def acquire(self, address: Address[Any], unwanted: bytes) -> Stored | Lease | Held | None:
        """Return the value that is there, else the lease, else who holds it; None if none is to be had.

        Args:
            address: the cell.
            unwanted: the stamp of a value that does not count, or empty.
        """
        generations = await self.generations(address)
        if generations is None:
            return None
        token = secrets.token_bytes(_TOKEN_BYTES)
        answer = await self._script(ACQUIRE, [address.key], token, _LEASE, _TOMBSTONE, _LEASED, unwanted)
        if answer[0] not in (_FOUND, _GRANTED, _HELD):
            return None
        self.clock.learn(answer[1])
        if answer[0] == _FOUND:
            return Stored(answer[2], generations)
        return Lease(token, answer[2], generations) if answer[0] == _GRANTED else Held(answer[2] / 1_000_000)

    async def generations(self, address: Address[Any]) -> bytes | None:
        """Return the generations of the tags, drawn where there are none; None if they are not to be had."""
        if not address.tags:
            return b""
        return joined((await self.redis.commands(_READ_TAGS, ensuring(address.tags)))[1::2])

    async def renew(self, address: Address[Any], lease: Lease) -> None:
        """Keep the lease for another while."""
        await self._script(RENEW, [address.key], lease.token, _LEASE, _LEASED)

    async def fill(self, address: Address[Any], lease: Lease, content: Content, cost: float) -> bool:
        """Put in what was loaded, if that may be, and return whether it was; the lease has ended.

        Args:
            address: the cell.
            lease: what was acquired before the load began.
            content: what was loaded.
            cost: seconds that it took.
        """
        microseconds = min(_MAX_COST, int(cost * 1_000_000))
        rest = body(lease.generations, content.data or b"")
        arguments: list[Part] = [content.kind, content.version, content.milliseconds, microseconds, rest]
        return bool(await self._script(FILL, [address.key], lease.token, *arguments))

    async def release(self, address: Address[Any], lease: Lease) -> None:
        """Give the lease back."""
        await self._script(RELEASE, [address.key], lease.token)

    async def invalidate(self, versions: Mapping[str, int]) -> list[bool]:
        """Raise the floor of each key and return where an older value was."""
        calls = [([key], (version, _TOMBSTONE)) for key, version in versions.items()]
        return [
            bool(reply) for reply in _raised(await self.redis.scripts(self._running(INVALIDATE), INVALIDATE, calls))
        ]

    async def write_through(self, address: Address[Any], content: Content) -> bool:
        """Put in what was written, over an older value; else raise the floor. Return whether it was put in."""
        generations = await self.generations(address)
        if generations is None:
            await self.invalidate({address.key: content.version})
            return False
        rest = body(generations, content.data or b"")
        stamp = secrets.token_bytes(_TOKEN_BYTES)
        arguments: list[Part] = [content.version, stamp, content.milliseconds, _TOMBSTONE, rest]
        return bool(await self._script(WRITE_THROUGH, [address.key], *arguments))

    async def set(self, address: Address[Any], content: Content) -> bool:
        """Put in a value whatever is there, and return whether there was room."""
        generations = await self.generations(address)
        if generations is None:
            await self.delete(address.key)
            return False
        rest = body(generations, content.data or b"")
        stamp = secrets.token_bytes(_TOKEN_BYTES)
        return bool(await self._script(SET, [address.key], content.kind, stamp, content.milliseconds, rest))

    async def delete(self, *keys: str) -> int:
        """Remove keys, and with them their leases; return how many were there."""
        operation = self._operation("delete", writes=True, repeatable=True)
        if len(keys) == 1:  # which travels together with those of other callers
            return int(await self.redis.command(operation, "DEL", keys[0]))
        return sum(_raised(await self.redis.commands(operation, [("DEL", key) for key in keys])))


def _raised(replies: list[Any]) -> list[Any]:
    error = next((reply for reply in replies if isinstance(reply, Exception)), None)
    if error is not None:
        raise error
    return replies
