"""Deletions: conversations that are to go, carried to their end by whoever comes next if this program dies.

A conversation half deleted is not found by its user any more. So what is to go is told to the outbox first, or in the
transaction that begins it, and struck out there once it is gone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from convostore.gateways.mongo_gateway import MongoGateway
from convostore.gateways.outbox_entries import OutboxEntries
from convostore.repositories.cache_forgetting import CacheForgetting, Place
from convostore.repositories.conversation_repository import ConversationRepository
from convostore.repositories.entity_spaces import CONVERSATION, NEWEST
from convostore.sync.outbox import Effect, Outbox

TOGETHER = 100
_AT_A_TIME = 8
_SPACES = (CONVERSATION.name, NEWEST.name)

T = TypeVar("T")
V = TypeVar("V")


class Deletions:
    """Deletes conversations of one tenant.

    Args:
        gateway: the way to the database.
        tenant_id: whose they are.
        forgetting: makes the cache forget them; None where there is none.
    """

    def __init__(self, gateway: MongoGateway, tenant_id: str, forgetting: CacheForgetting | None) -> None:
        self._tenant_id = tenant_id
        self._forgetting = forgetting
        self._outbox = Outbox(gateway)
        self._entries = OutboxEntries(gateway)
        self._conversations = ConversationRepository(gateway.tenant(tenant_id))

    async def tell(self, names: Sequence[str], *, user_id: str = "", delete: bool = True) -> str | None:
        """Tell the outbox, in the unit of work that is open, if any; return the entry, None if there is none to make.

        Args:
            names: which conversations.
            user_id: whose they are, if it is one user's.
            delete: whether they go; else they were changed, and the cache has to forget them.
        """
        effects = [*[Effect.DELETE] * delete, *[Effect.FORGET] * (self._forgetting is not None)]
        if not effects:
            return None
        return await self._outbox.add(self._tenant_id, effects, user_id=user_id, conversation_ids=names)

    async def carry_out(self, entry: str | None, names: Sequence[str], *, delete: bool = True) -> None:
        """Do what was told, and take the entry out; may be repeated."""
        if delete:
            await together(self._conversations.delete, names)
        await self.forget(names)
        if entry is not None:
            for effect in (Effect.DELETE, Effect.FORGET):
                await self._entries.strike_out(entry, effect)
            await self._entries.remove(entry)

    async def forget(self, names: Sequence[str]) -> None:
        """Make the cache forget conversations, if there is one."""
        if self._forgetting is not None:
            await self._forgetting.forget(self._places(names))

    async def cached(self, names: Sequence[str]) -> int:
        """Return how much the cache knows of conversations."""
        return 0 if self._forgetting is None else await self._forgetting.count(self._places(names))

    def _places(self, names: Sequence[str]) -> list[Place]:
        return [Place(self._tenant_id, space, name) for name in names for space in _SPACES]


async def together(work: Callable[[V], Awaitable[T]], values: Iterable[V]) -> list[T]:
    """Do work with each value, a few at a time, all of it also if some fails; then raise the first failure.

    More at once would take the connections of a busy database from its programs, and gain little.
    """
    places = asyncio.Semaphore(_AT_A_TIME)

    async def one(value: V) -> T:
        async with places:
            return await work(value)

    ended: list[Any] = await asyncio.gather(*map(one, values), return_exceptions=True)
    for each in ended:
        if isinstance(each, BaseException):
            raise each
    return ended
