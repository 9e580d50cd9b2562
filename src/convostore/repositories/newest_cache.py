"""The newest messages of a conversation through the cache: a cell whose version is the sequence of its last slot.

Invariant: **what a read through the cache answers, the log has held at a moment that was not before the last write to
it that had returned.** A write is an append, an edit, a new delivery status, a deletion, and what closes a log.

An edit raises no sequence, so a version alone does not say how new a cell is. What does is this: *a value at version x
was loaded, or made from what was loaded, when the log reached up to x at least, and every write that was told since has
passed over this very cell.* The steps:

- *fill*: the load reads all slots from the end back, deleted ones and remains too, and the last of them is the version.
- *An edit, a deletion, what closes a log and what may or may not have been done* delete the cell, and with it the lease
  of whoever is loading. Racing a fill they win: what was loaded before is refused, what is loaded later has them in it.
- *extend(f … l)*, after an append of the slots f to l: over a value at version f - 1 they are put behind it, which is
  now at l. A value at l or above has them already, for it was loaded when they were there. Anything else becomes a
  tombstone at l: slots are missing before f, or a load is under way that may not have seen them.

That an extend never brings back what an edit or a deletion of one of its slots has changed, however late it comes: who
edits has seen the slot, so it is in the log. His deletion of the cell comes after his write. A cell that was there
before it is gone; one that is there after it was filled by a load that began after it, so it has read up to l at
least, and its version is not f - 1. It never sinks again: a fill below the version is refused, and only an absent cell
has none. This is why deleted messages count towards the version: if they did not, a cell from which l has been deleted
would stand at f - 1, and a late extend would show it again.

What others have put into the log without telling (a process that died, a remainder of a batch, a seal) leaves the cell
behind the log: the next append finds that it is not at f - 1, and makes it a tombstone.

A unit of work deletes the cells of what it has written to after its commit. Within one nothing is read from here.

Of a conversation without messages, and of one that there is not, an empty log is kept: its first message extends it.
That a log cannot be kept (it has a gap) is kept as well, as knowledge that there is nothing: then the log is asked.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, partial
from typing import Any

from convostore.gateways.mongo_gateway import MongoGateway
from convostore.gateways.redis_gateway import RedisGateway
from convostore.models.mongo.message_model import MessageDocument
from convostore.models.stored_form import stored_form
from convostore.repositories.cache_codec import PlainCodec
from convostore.repositories.cache_epoch import CacheEpoch
from convostore.repositories.cache_extending import CacheExtending
from convostore.repositories.cache_loading import Load
from convostore.repositories.entity_spaces import NEWEST
from convostore.repositories.exceptions import RepositoryError
from convostore.repositories.newest_slots import KEPT, NewestSlots, slots_of
from convostore.repositories.told_cache import ToldCache

_REMEMBERED = 32  # pages
Append = Callable[[], Awaitable[list[MessageDocument]]]


class NewestCache(ToldCache[NewestSlots]):
    """The newest messages of the conversations of all tenants of a database.

    Args:
        redis: the way to the cache; stays open.
        mongodb: the way to the database; stays open.
        epoch: what is known of the epoch.
    """

    def __init__(self, redis: RedisGateway, mongodb: MongoGateway, epoch: CacheEpoch | None = None) -> None:
        super().__init__(redis, mongodb, NEWEST, epoch)
        self._extending = CacheExtending(redis)
        self._unpacked = lru_cache(_REMEMBERED)(stored_form(MessageDocument).unpack)

    def unpack(self, packed: bytes) -> list[MessageDocument] | None:
        """Return the messages of their stored forms, decoded once for all who read the same of them."""
        messages = self._unpacked(packed)
        # Whoever is given a message may change what is in its payload.
        return messages and [m if m.payload is None else m.replaced(payload=_copied(m.payload)) for m in messages]

    async def get(self, tenant_id: str, conversation_id: str, load: Load[NewestSlots]) -> NewestSlots | None:
        """Return the newest slots of a conversation; None if the cache is of no use now, for they are many to load."""
        return None if self.epoch.usable() is None else await super().get(tenant_id, conversation_id, load)

    async def append(self, identity: str, append: Append) -> list[MessageDocument]:
        """Append messages to a conversation and tell it, as ``write`` does; they are put into the cell if they can be.

        Args:
            identity: of the conversation.
            append: does it, and returns the messages as they are stored.

        Raises:
            ConnectionError: nobody could be told; the messages may have been appended.
            Exception: whatever the append raised.
        """
        return await self.write(identity, append, partial(self._tell_appended, identity))

    async def _tell_appended(self, identity: str, messages: Sequence[MessageDocument]) -> None:
        # Of what was found appended before, somebody may have changed since what is told here.
        if messages[0].replayed or len(messages) > KEPT:
            return await self.tell([identity])
        try:
            await self._extending.extend(await self._keys([identity]), messages[0].sequence, slots_of(messages))
        except RepositoryError:
            await self.tell([identity])


def _copied(payload: dict[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = PlainCodec.decode(PlainCodec.encode(payload))
    return copied
