"""What MongoDB holds of a tenant or a user: counted and erased, a bounded number of documents at a time."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from convostore.gateways.bulk_collection import IMPORTING
from convostore.gateways.mongo_gateway import MongoGateway
from convostore.gateways.outbox_entries import COLLECTION as OUTBOX
from convostore.gateways.tenant_collection import Stored
from convostore.gateways.tenant_places import TenantPlaces
from convostore.models.identity import AFTER_SEPARATOR, split
from convostore.operations.burying import CLAIM_FIELDS, Burying, is_ours
from convostore.operations.deletions import TOGETHER, Deletions, together
from convostore.operations.quota_usage import COLLECTION as USAGE
from convostore.repositories.slots import BLANK, KIND, SEAL

_IS_CLAIM = {IMPORTING: {"$exists": True}}
_LOOKED_AT_ONCE = 1000
_HAS_CONTENT = {KIND: {"$nin": [SEAL, BLANK]}}


class Subject(NamedTuple):
    """Whose data.

    Attributes:
        tenant_id: whose.
        user_id: of which user; None for all.
        identifiers: under which limits and quotas name him.
    """

    tenant_id: str
    user_id: str | None = None
    identifiers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InMongo:
    """What was found.

    Attributes:
        conversations: how many.
        imports: conversations that an import has begun and not finished.
        messages: places in their logs that hold anything.
        usage: documents of used quotas.
        outbox: entries of what is still to happen.
        cached: what the cache knows of these conversations.
    """

    conversations: int = 0
    imports: int = 0
    messages: int = 0
    usage: int = 0
    outbox: int = 0
    cached: int = 0


class MongoErasing:
    """Erases what is kept of one subject.

    Args:
        gateway: the way to the database.
        subject: whose data.
        deletions: carries conversations to their end.
        progress: told how many conversations have gone since it was told last.
    """

    def __init__(
        self, gateway: MongoGateway, subject: Subject, deletions: Deletions, progress: Callable[[int], None]
    ) -> None:
        self._subject = subject
        self._deletions = deletions
        self._progress = progress
        self._burying = Burying(gateway, subject.tenant_id)
        names = ("conversations", "messages", USAGE, OUTBOX)
        self._conversations, self._messages, self._usage, self._outbox = (
            TenantPlaces(gateway, name, subject.tenant_id) for name in names
        )

    @property
    def _of_user(self) -> Stored:
        user_id = self._subject.user_id
        return {} if user_id is None else {"user_id": {"$eq": user_id}}

    @property
    def _lives(self) -> Stored:
        return {"tenant_id": self._subject.tenant_id, **self._of_user}

    @property
    def _claims(self) -> Stored:
        return {**_IS_CLAIM, **self._of_user}

    @property
    def _used(self) -> Stored:
        return {} if self._subject.user_id is None else {"identifier": {"$in": list(self._subject.identifiers)}}

    async def look(self) -> InMongo:
        """Count what there is."""
        messages, cached = await self._in_logs()
        return InMongo(
            conversations=await self._conversations.count(self._lives),
            imports=await self._conversations.count(self._claims),
            messages=messages,
            usage=await self._usage.count(self._used),
            outbox=await self._outbox.count(self._of_user),
            cached=cached,
        )

    async def _in_logs(self) -> tuple[int, int]:
        """Return how many messages there are, and of a user's conversations what the cache knows."""
        if self._subject.user_id is None:
            return await self._messages.count(_HAS_CONTENT), 0
        messages = cached = 0
        async for names in self._names({"$or": [self._lives, self._claims]}):
            messages += await self._contents_of(names)
            cached += await self._deletions.cached(names)
        return messages, cached

    async def _contents_of(self, names: Sequence[str]) -> int:
        return sum(await together(lambda name: self._messages.count(_HAS_CONTENT, (name,)), names))

    async def _names(self, condition: Mapping[str, Any]) -> AsyncIterator[list[str]]:
        """Iterate over the ids of conversations and claims, bundle by bundle; what comes meanwhile may be among it."""
        after = ""
        while found := await self._conversations.find(condition, TOGETHER, after):
            after = found[-1]["_id"]
            yield [split(stored["_id"])[1] for stored in found if is_ours(stored["_id"])]

    async def erase(self) -> int:
        """Erase it, once through; return how many messages of a user's conversations are still there, which is wrong.

        Raises:
            RepositoryError: the database failed; call it again.
        """
        await self._remove_strangers()
        await self._finish_deletions()
        left = 0
        async for names in self._names(self._lives):
            await self._delete(names)
            left += await self._contents_of(names) if self._subject.user_id is not None else 0
            self._progress(len(names))
        await self._bury_claims()
        if self._subject.user_id is None:
            await self._bury_logs()
        await self._usage.remove(self._used)
        await self._outbox.remove(self._of_user)
        return left

    async def _finish_deletions(self) -> None:
        """Go on with what a run that has died had begun to delete, and what the outbox has to delete anyway."""
        after = ""
        told = {**self._of_user, "conversation_ids": {"$exists": True}, "effects": {"$in": ["delete", "forget"]}}
        while found := await self._outbox.find(told, 1, after, ("_id", "effects", "conversation_ids")):
            after, names = found[0]["_id"], found[0]["conversation_ids"]
            await self._deletions.carry_out(after, names, delete="delete" in found[0]["effects"])

    async def _remove_strangers(self) -> None:
        """Remove what others have put where a conversation cannot be: below such an identity there is no log."""
        after = ""
        while found := await self._conversations.find({"$or": [self._lives, self._claims]}, _LOOKED_AT_ONCE, after):
            after = found[-1]["_id"]
            strangers = [stored["_id"] for stored in found if not is_ours(stored["_id"])]
            if strangers:
                await self._conversations.remove({"_id": {"$in": strangers}})
        if self._subject.user_id is None:
            await self._messages.remove({"sequence": {"$not": {"$type": "number"}}})

    async def _delete(self, names: Sequence[str]) -> None:
        user_id = self._subject.user_id
        # Of a tenant all logs are looked at in the end, so nobody need be told.
        entry = None if user_id is None else await self._deletions.tell(names, user_id=user_id)
        await self._deletions.carry_out(entry, names)

    async def _bury_claims(self) -> None:
        after = ""
        while found := await self._conversations.find(self._claims, TOGETHER, after, CLAIM_FIELDS):
            after = found[-1]["_id"]
            await together(self._burying.bury_claim, found)
            self._progress(len(found))

    async def _bury_logs(self) -> None:
        """Seal and empty the logs that hold anything although their conversations are gone."""
        after = ""
        while found := await self._messages.find(_HAS_CONTENT, 1, after, ("_id", "conversation_id")):
            after = found[0]["_id"]
            if is_ours(after, parts=3):
                name = split(after)[1]
                await self._burying.bury_log(name)
                after = self._messages.identity(name) + AFTER_SEPARATOR
            else:
                await self._messages.remove({"_id": after})
