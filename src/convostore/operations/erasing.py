"""Erasing: all that is kept of a user or a tenant goes, from both stores, and does not come back.

Every step may be repeated and nothing is kept of how far it has come, so a run that was killed is simply run again:
what is left is found by what it is. It goes through everything again until a look finds nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

from convostore.database.redis_client import RedisClients
from convostore.gateways.epoch_counter import EpochCounter
from convostore.gateways.erasure_marks import ErasureMarks
from convostore.gateways.mongo_gateway import MongoGateway
from convostore.models.identity import check_identifier
from convostore.operations.deletions import Deletions
from convostore.operations.mongo_erasing import MongoErasing, Subject
from convostore.operations.redis_erasing import InRedis, RedisErasing
from convostore.repositories.cache_forgetting import CacheForgetting
from convostore.repositories.cache_repository import CacheRepository
from convostore.repositories.exceptions import ValidationError
from convostore.repositories.session_erasing import Wanted

_PASSES = 5


@dataclass(frozen=True, slots=True)
class ErasureCounts:
    """What is kept of somebody.

    Attributes:
        conversations: how many.
        imports: conversations that an import has begun and not finished.
        messages: places in their logs that hold anything.
        usage: documents of used quotas.
        outbox: entries of what is still to happen.
        sessions: that hold anything, whether they live or not.
        limits: identities of which something is counted.
        cached: keys of the cache; of a tenant indexes of sessions too.
    """

    conversations: int = 0
    imports: int = 0
    messages: int = 0
    usage: int = 0
    outbox: int = 0
    sessions: int = 0
    limits: int = 0
    cached: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, each.name) for each in fields(self))


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """What was there, and what is.

    Attributes:
        before: what was found at first.
        after: what was found in the end: nothing, unless somebody went on writing.
    """

    before: ErasureCounts
    after: ErasureCounts

    @property
    def is_complete(self) -> bool:
        """Whether nothing was left."""
        return not self.after.total


class Erasure:
    """Erases a user, or a tenant with all his users.

    What was written before it began is gone once it has returned, and no append, import or outbox that is under way
    brings it back. What a program goes on to write meanwhile goes too if it is there by the last look; what comes later
    is new. Of what was deleted there stays, until the server removes it, what refuses late writers: ids without
    contents.

    Args:
        gateway: the way to MongoDB.
        clients: the ways to Redis; None if there is none.
        tenant_id: whose data.
        user_id: of which user; None for the whole tenant.
        identifiers: under which rate limits and quotas name him, besides his id.
        progress: told how many conversations have gone since it was told last.

    Raises:
        ValidationError: one of them cannot be right.
    """

    def __init__(
        self,
        gateway: MongoGateway,
        clients: RedisClients | None,
        tenant_id: str,
        user_id: str | None = None,
        *,
        identifiers: Sequence[str] = (),
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._subject = subject = _subject(tenant_id, user_id, identifiers)
        self._marks = ErasureMarks(gateway, tenant_id)
        deletions = Deletions(gateway, tenant_id, forgetting_of(gateway, clients if user_id is not None else None))
        self._mongo = MongoErasing(gateway, subject, deletions, progress)
        wanted = Wanted(tenant_id, user_id)
        self._redis = None if clients is None else RedisErasing(clients, wanted, subject.identifiers)

    async def look(self) -> ErasureCounts:
        """Count what there is, and change nothing.

        Raises:
            RepositoryError: a server failed.
        """
        mongo = await self._mongo.look()
        redis = InRedis() if self._redis is None else await self._redis.look()
        return ErasureCounts(
            mongo.conversations,
            mongo.imports,
            mongo.messages,
            mongo.usage,
            mongo.outbox,
            redis.sessions,
            redis.limits,
            mongo.cached + redis.others,
        )

    async def run(self) -> ErasureReport:
        """Erase, and return what there was before and is after.

        Raises:
            RepositoryError: a server failed; what is gone stays so, and the next run does the rest.
        """
        before = after = await self.look()
        await self._marks.make(self._subject.user_id)
        for _ in range(_PASSES):
            left = await self._once()
            after = await self.look()
            after = replace(after, messages=after.messages + left)
            if not after.total:
                break
        return ErasureReport(before, after)

    async def _once(self) -> int:
        """Go through everything: first what lets him write, last what may still be told."""
        if self._redis is not None:
            await self._redis.erase()
        left = await self._mongo.erase()
        if self._redis is not None:
            await self._redis.erase()  # what was read and counted until the conversations were gone
        return left


def forgetting_of(gateway: MongoGateway, clients: RedisClients | None) -> CacheForgetting | None:
    """Return what makes the cache forget, in all its epochs; None if there is none."""
    return None if clients is None else CacheForgetting(CacheRepository(clients.cache), EpochCounter(gateway))


def _subject(tenant_id: str, user_id: str | None, identifiers: Sequence[str]) -> Subject:
    tenant_id = check_identifier(tenant_id, "tenant_id")
    if isinstance(identifiers, str) or not isinstance(identifiers, Sequence | set | frozenset):
        raise ValidationError(f"identifiers: must be a list of texts, not {type(identifiers).__name__}", "identifiers")
    if user_id is None:
        if identifiers:
            raise ValidationError("identifiers: go with a user", "identifiers")
        return Subject(tenant_id)
    names = (check_identifier(user_id, "user_id"), *(check_identifier(name, "identifiers") for name in identifiers))
    return Subject(tenant_id, user_id, tuple(dict.fromkeys(names)))
