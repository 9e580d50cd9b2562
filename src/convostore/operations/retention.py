"""Retention: what is older than an age goes, a bounded number at a time, each step wholly or not at all.

Conversations are deleted as one deletes them by hand. Of old messages the contents go, and their idempotency keys;
their places stay, so that sequences are dense and nobody's place in a log moves. Sessions are ended. Every step may be
repeated, so a run that was killed is simply run again.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby

from convostore.database.redis_client import RedisClients
from convostore.gateways.mongo_gateway import MongoGateway
from convostore.gateways.tenant_collection import Stored
from convostore.gateways.tenant_places import TenantPlaces
from convostore.models.identity import check_identifier, split
from convostore.models.mongo.message_model import MessageDocument
from convostore.operations.ages import checked_age
from convostore.operations.burying import is_ours
from convostore.operations.deletions import Deletions
from convostore.operations.erasing import forgetting_of
from convostore.repositories.exceptions import TransactionConflictError, ValidationError
from convostore.repositories.message_repository import BLANKED
from convostore.repositories.mongo_repository import tombstone
from convostore.repositories.session_erasing import SessionErasing, Wanted
from convostore.repositories.slots import KIND, seal_slot
from convostore.repositories.unit_of_work import UnitOfWork, in_transaction

_CONVERSATIONS_AT_ONCE = 20
_MESSAGES_AT_ONCE = 200
_NEVER = datetime(1, 1, 1)  # noqa: DTZ001 - as moments come from the database
_SHOWN = ("_id", "sequence", "version", "role", "created_at")
_GONE = (*BLANKED, "idempotency_key", "idempotency_digest")
_BLANK = [{"$set": {"deleted_at": "$$NOW", "version": {"$add": ["$version", 1]}}}, {"$unset": list(_GONE)}]


class Retention:
    """Keeps what one tenant has no longer than an age.

    Args:
        gateway: the way to MongoDB; units of work are needed.
        clients: the ways to Redis; None if there is none.
        tenant_id: whose.
        older_than: from an hour to a hundred years.
        progress: told how much has gone since it was told last.

    Raises:
        ValidationError: one of them cannot be right.
    """

    def __init__(
        self,
        gateway: MongoGateway,
        clients: RedisClients | None,
        tenant_id: str,
        older_than: timedelta,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._tenant_id = check_identifier(tenant_id, "tenant_id")
        self._age = checked_age(older_than)
        self._gateway = gateway
        self._clients = clients
        self._progress = progress
        self._deletions = Deletions(gateway, tenant_id, forgetting_of(gateway, clients))
        self._conversations = TenantPlaces(gateway, "conversations", tenant_id)
        self._messages = TenantPlaces(gateway, "messages", tenant_id)
        self._documents = gateway.tenant(tenant_id).collection("conversations", "Conversation")
        self._slots = gateway.tenant(tenant_id).collection("messages", MessageDocument.entity_type)

    async def _cut(self) -> datetime:
        """Return the moment before which all goes, by the clock of the database."""
        answer = await self._gateway.administration.command({"hello": 1})
        return answer["localTime"].replace(tzinfo=UTC) - self._age  # type: ignore[no-any-return]

    # conversations

    def _idle(self, cut: datetime) -> Stored:
        return {"tenant_id": self._tenant_id, "last_activity_at": {"$lt": cut}}

    async def count_conversations(self) -> int:
        """Count the conversations in which nothing has happened for so long."""
        return await self._conversations.count(self._idle(await self._cut()))

    async def delete_conversations(self) -> int:
        """Delete those conversations with all their messages; return how many.

        One into which somebody writes meanwhile stays, or he is told that it is gone.

        Raises:
            RepositoryError: a server failed; what is gone stays so.
        """
        cut, after, deleted = await self._cut(), "", 0
        while found := await self._conversations.find(self._idle(cut), _CONVERSATIONS_AT_ONCE, after):
            after = found[-1]["_id"]
            deleted += await self._delete([split(stored["_id"])[1] for stored in found if is_ours(stored["_id"])], cut)
            self._progress(len(found))
        return deleted

    async def _delete(self, names: Sequence[str], cut: datetime) -> int:
        async def begin(_: UnitOfWork) -> tuple[str | None, list[str]]:
            gone = [name for name in names if await self._bury(name, cut)]
            return (await self._deletions.tell(gone) if gone else None), gone

        entry, gone = await in_transaction(self._gateway, begin)
        await self._deletions.carry_out(entry, gone)
        return len(gone)

    async def _bury(self, name: str, cut: datetime) -> bool:
        """Make a tombstone of a conversation, and seal its log; False if something has happened in it.

        Both in one unit of work: whoever appends at the same time runs into the seal, or stands where it was to be.
        """
        last = await self._slots.last((name,))
        if last is not None and last.get("created_at", _NEVER) >= cut.replace(tzinfo=None):
            return False
        if not await self._documents.update((name,), {"last_activity_at": {"$lt": cut}}, tombstone()):
            return False
        seal = seal_slot(name, int(last["sequence"]) + 1 if last else 1)
        placed = await self._slots.insert_run([(seal.key, seal.stored)], self._slots.size_of(seal.stored, (name,)))
        if placed.error is not None:
            raise TransactionConflictError(f"somebody appends to conversation '{name}'", "seal") from placed.error
        return True

    # messages

    def _old(self, cut: datetime) -> Stored:
        return {KIND: None, "deleted_at": None, "created_at": {"$lt": cut}}

    async def count_messages(self) -> int:
        """Count the messages that are older."""
        return await self._messages.count(self._old(await self._cut()))

    async def blank_messages(self) -> int:
        """Take the contents of those messages away; return how many.

        Raises:
            RepositoryError: a server failed; what is gone stays so.
        """
        cut, after, blanked = await self._cut(), "", 0
        while found := await self._messages.find(self._old(cut), _MESSAGES_AT_ONCE, after):
            after, identities = found[-1]["_id"], [each["_id"] for each in found if is_ours(each["_id"], parts=3)]
            blanked += await self._blank(identities, cut)
            self._progress(len(found))
        return blanked

    async def _blank(self, identities: Sequence[str], cut: datetime) -> int:
        # The last one of each conversation is what a list of conversations may show of it.
        shown = [list(group)[-1] for _, group in groupby(identities, key=lambda identity: split(identity)[1])]
        names = [split(identity)[1] for identity in shown]

        async def blank(_: UnitOfWork) -> tuple[str | None, int]:
            blanked = await self._messages.update({"_id": {"$in": list(identities)}, **self._old(cut)}, _BLANK)
            for stored in await self._messages.find({"_id": {"$in": shown}}, len(shown), projection=_SHOWN):
                change = {"$max": {"last_message": _preview(stored)}}
                await self._documents.update((split(stored["_id"])[1],), {}, change)
            return await self._deletions.tell(names, delete=False), blanked

        entry, blanked = await in_transaction(self._gateway, blank)
        await self._deletions.carry_out(entry, names, delete=False)
        return blanked

    # sessions

    async def count_sessions(self) -> int:
        """Count the sessions that nobody has used for so long; most end before by themselves."""
        return await self._of_sessions().count(Wanted(self._tenant_id, idle_since=await self._cut()))

    async def end_sessions(self) -> int:
        """End those sessions; return how many.

        Raises:
            RepositoryError: a server failed.
            ValidationError: there is no Redis.
        """
        return await self._of_sessions().erase(Wanted(self._tenant_id, idle_since=await self._cut()))

    def _of_sessions(self) -> SessionErasing:
        if self._clients is None:
            raise ValidationError("redis_url: no address of a Redis or Valkey server", "redis_url")
        return SessionErasing(self._clients.state)


def _preview(blank: Stored) -> Stored:
    """Return what a list of conversations shows of a message without contents, in the order of ``LastMessage``."""
    told = {name: blank[name] for name in ("sequence", "version", "role")}
    return {**told, "preview": "", "created_at": blank["created_at"]}
