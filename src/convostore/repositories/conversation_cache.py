"""Conversations through the cache, and what keeps it true: every write to one is told before it returns.

Invariant: **what a read through the cache answers, the database has held at a moment that was not before the last write
to this conversation that had returned.** It concerns the whole document:

- *State* is written by the repository. The write returns once it is told; so does one that may have been done or not.
- *Activity* (message_count, last_activity_at, last_message) changes without ``version``. It follows the log, within
  50 ms, and its writer tells what it has written, as any other; a process reads its own appends, for a read first waits
  for its pending activity, which is pending until it is told. So activity is as new as without the cache.

To tell is to delete the cell, whatever its version: what is being loaded is refused then, and what is loaded later has
the write in it. A written document is never put in: its activity is that of the time when its editor read it. Whoever
invalidates at a version, as the synchronizer does, finds in the cell the version of the state.

Of conversations that there are not nothing is kept, so that creating one need not be told.

Where the process keeps what it reads (``near_gateway``), a read may be behind the writes of other processes, by the
stated lag at most.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from convostore.gateways.mongo_gateway import MongoGateway
from convostore.gateways.redis_gateway import RedisGateway
from convostore.models.mongo.conversation_model import ConversationDocument
from convostore.repositories.cache_epoch import CacheEpoch
from convostore.repositories.cache_space import CacheSpace
from convostore.repositories.entity_spaces import CONVERSATION
from convostore.repositories.exceptions import RepositoryError
from convostore.repositories.told_cache import ToldCache

SPACE: CacheSpace[ConversationDocument] = replace(CONVERSATION, negative_ttl=0)


class ConversationCache(ToldCache[ConversationDocument]):
    """The cached conversations of all tenants of a database.

    Args:
        redis: the way to the cache; stays open.
        mongodb: the way to the database; stays open.
        epoch: what is known of the epoch.
    """

    def __init__(self, redis: RedisGateway, mongodb: MongoGateway, epoch: CacheEpoch | None = None) -> None:
        super().__init__(redis, mongodb, SPACE, epoch)
        self._activity = mongodb.activity

    async def tell_activity(self, identities: Iterable[str]) -> None:
        """Do the same as ``tell`` for activity, which nobody but this process expects at once.

        Raises:
            ConnectionError: as of ``tell``.
        """
        try:
            await self._forget(identities)
        except RepositoryError:
            await self.epoch.forsake()

    async def aclose(self) -> None:
        """Wait until all writes are told, and end what is being loaded."""
        await self.finish_writes()
        with suppress(RepositoryError):
            await self._activity.flush()
        await super().aclose()
