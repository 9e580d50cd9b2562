"""Extending: newest slots that are in cells, by those that were appended behind them."""

import secrets
from collections.abc import Sequence

from convostore.gateways.redis_wire import Command
from convostore.gateways.scripts import Script
from convostore.repositories.cache_cells import ENTITY, KIND, TOMBSTONE_SECONDS
from convostore.repositories.newest_slots import KEPT, KEPT_BYTES, NewestSlots
from convostore.repositories.redis_repository import RedisRepository

EXTEND = Script("cache_extend", ("cache_cell",), repeatable=True)
_STAMP_BYTES = 8
_TOMBSTONE = TOMBSTONE_SECONDS * 1000


class CacheExtending(RedisRepository):
    """A step of the protocol of cells that knows what is in them; ``newest_cache`` has its proof."""

    kind = KIND
    entity_type = ENTITY

    async def extend(self, keys: Sequence[str], first: int, slots: NewestSlots) -> None:
        """Put slots behind those of cells that end before them; raise the floor of the others. May be repeated.

        Args:
            keys: of the cells of one conversation.
            first: the sequence of the first slot.
            slots: adjacent ones.

        Raises:
            RepositoryError: it may not have been carried out.
        """
        arguments: Command = (
            first,
            slots.sequence,
            secrets.token_bytes(_STAMP_BYTES),
            _TOMBSTONE,
            KEPT,
            KEPT_BYTES,
            slots.packed_entries(),
            slots.contents,
        )
        if len(keys) == 1:  # which travels together with those of other callers
            await self._script(EXTEND, keys, *arguments)
            return
        replies = await self.redis.scripts(self._running(EXTEND), EXTEND, [([key], arguments) for key in keys])
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
