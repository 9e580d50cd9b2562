"""The repository of conversations."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, TypeVar

from convostore.database.mongodb import get_mongodb
from convostore.gateways.shared_deadline import by_one_deadline
from convostore.gateways.tenant_collection import Key
from convostore.gateways.tenant_database import TenantDatabase
from convostore.models.identity import check_identifier
from convostore.models.mongo.conversation_model import ConversationDocument
from convostore.models.types import ConversationStatus, TenantId, UserId, to_utc_milliseconds, utc_now
from convostore.repositories.base_repository import PaginatedResult, Pagination
from convostore.repositories.exceptions import Outcome, RepositoryError, ValidationError
from convostore.repositories.filters import ConversationFilter, Filter
from convostore.repositories.keyset import KeysetPage
from convostore.repositories.message_log import MessageLog
from convostore.repositories.mongo_repository import MongoRepository

MAX_ACTIVE = 100
R = TypeVar("R")


class ConversationRepository(MongoRepository[ConversationDocument]):
    """Repository for conversation documents.

    Reads tell the activity of a conversation (message count, last message) at least as new as the last append of this
    process to it. Where conversations are read through the cache (``ConversationCache``), ``get_by_id`` and ``exists``
    are; a unit of work always reads from the database.
    """

    collection_name: ClassVar[str] = "conversations"
    document_class = ConversationDocument
    filter_class = ConversationFilter
    sortable_fields: ClassVar[tuple[str, ...]] = (
        "created_at", "started_at", "updated_at", "last_activity_at", "completed_at", "title", "message_count",
    )  # fmt: skip

    def __init__(self, database: TenantDatabase) -> None:
        super().__init__(database)
        self._log = MessageLog(database)

    def _key(self, entity_id: str) -> Key:
        return (check_identifier(entity_id, "conversation_id"),)

    async def create(self, conversation: ConversationDocument) -> ConversationDocument:
        """Store a new conversation and return it as it was stored.

        Raises:
            DuplicateEntityError: its id is in use, or was deleted less than 30 days ago.
            TenantMismatchError: it belongs to another tenant.
            ValidationError: it claims to have messages or edits already.
        """
        if isinstance(conversation, ConversationDocument):
            _check_new(conversation)
        return await super().create(conversation)

    async def create_conversation(self, conversation: ConversationDocument) -> ConversationDocument:
        """Do the same as ``create``."""
        return await self.create(conversation)

    async def get_by_id(self, conversation_id: str, *, fresh: bool = False) -> ConversationDocument | None:
        """Return a conversation, or None if there is none of this id.

        Args:
            conversation_id: which one.
            fresh: read it from the database, past the cache.
        """
        if self._database.activity.is_pending:
            return await self._get_settled(conversation_id, fresh)
        return await self._get(conversation_id, fresh)

    @by_one_deadline
    async def _get_settled(self, conversation_id: str, fresh: bool) -> ConversationDocument | None:
        await self._settle(conversation_id)
        return await self._get(conversation_id, fresh)

    async def _get(self, conversation_id: str, fresh: bool) -> ConversationDocument | None:
        if fresh or self._database.cached is None:
            return await super().get_by_id(conversation_id)
        return await self._cached(self._key(conversation_id))

    async def _cached(self, key: Key) -> ConversationDocument | None:
        cached = self._database.cached
        load = partial(self._entity, key)
        return await load() if cached is None else await cached.get(self.tenant_id, key[0], load)

    async def get_by_conversation_id(self, conversation_id: str, *, fresh: bool = False) -> ConversationDocument | None:
        """Do the same as ``get_by_id``."""
        return await self.get_by_id(conversation_id, fresh=fresh)

    async def update(self, conversation: ConversationDocument) -> ConversationDocument:
        """Store the state of a conversation, if nobody has changed it since it was read; return its successor.

        State is status, title, tags, metadata, assignee and completed_at; nothing else is stored.

        Raises:
            ConcurrencyError: somebody has; nothing was changed.
            EntityNotFoundError: it is gone.
            TenantMismatchError: it belongs to another tenant.
        """
        stamped = self._stamp(conversation)
        return await self._told(self._key(stamped.id), partial(super().update, stamped))

    @by_one_deadline
    async def delete(self, conversation_id: str, version: int | None = None) -> bool:
        """Delete a conversation with all its messages; its id stays taken for 30 days.

        Deleting it again finishes what a crash may have left. Return False if there is none.

        Raises:
            ConcurrencyError: a version was given, and it is at another one; nothing was deleted.
        """
        deleted = await self._told(self._key(conversation_id), partial(super().delete, conversation_id, version))
        # Of an id that never was there is no log to seal: it would refuse the messages of whoever creates it later.
        if deleted or await self._documents.was_deleted(self._key(conversation_id)):
            await self._close_log(conversation_id, deleted)
        return deleted

    async def _close_log(self, conversation_id: str, deleted: bool) -> None:
        newest, close = self._database.newest, partial(self._log.close, conversation_id)
        try:
            await (close() if newest is None else newest.write(self._database.identity(conversation_id), close))
        except RepositoryError as error:
            if deleted:  # the conversation is gone, some of its messages may not be
                error.outcome = Outcome.UNKNOWN
            raise

    async def exists(self, conversation_id: str, *, fresh: bool = False) -> bool:
        """Say whether there is a conversation of this id.

        Args:
            conversation_id: which one.
            fresh: look into the database, past the cache.
        """
        if fresh or self._database.cached is None:
            return await super().exists(conversation_id)
        return await self._cached(self._key(conversation_id)) is not None

    async def count(self, filters: Mapping[str, Any] | Filter | None = None) -> int:
        """Count the conversations that match."""
        return await super().count(filters)

    async def get_active_conversations(
        self, tenant_id: TenantId, user_id: UserId, limit: int = 10
    ) -> list[ConversationDocument]:
        """Return the active conversations of a user, the one with the latest message first."""
        self._database.check_tenant(tenant_id)
        if type(limit) is not int or not 1 <= limit <= MAX_ACTIVE:
            raise ValidationError(f"limit: must be between 1 and {MAX_ACTIVE}", "limit")
        pagination = Pagination(page_size=limit, sort_by="last_activity_at")
        page = await self.page({"user_id": user_id, "status": ConversationStatus.ACTIVE}, pagination)
        return page.items

    async def get_conversations_by_tenant(
        self,
        tenant_id: TenantId,
        filters: Mapping[str, Any] | None = None,
        pagination: Pagination | None = None,
    ) -> PaginatedResult[ConversationDocument]:
        """Return a page of the tenant's conversations, as ``list`` does."""
        self._database.check_tenant(tenant_id)
        return await self.list(filters, pagination)

    async def update_conversation_status(
        self, conversation_id: str, status: ConversationStatus, completed_at: datetime | None = None
    ) -> bool:
        """Set the status, whatever it was; say whether there is such a conversation.

        Args:
            conversation_id: which one.
            status: the new status.
            completed_at: when it was completed; without it the first completion counts.
        """
        status = _checked_status(status)
        moment = _checked_moment(completed_at)
        key = self._key(conversation_id)
        return await self._told(key, partial(self._documents.update, key, {}, _status_change(status, moment)))

    async def _told(self, key: Key, write: Callable[[], Awaitable[R]]) -> R:
        """Write to a conversation, and tell the cache if there is one: at once, or once the unit of work is over."""
        identity, cached = self._documents.identity(key), self._database.cached
        if cached is not None:
            return await cached.write(identity, write)
        result = await write()
        self._database.gateway.touch(identity)
        return result

    async def _settle(self, conversation_id: str | None = None) -> None:
        # A transaction writes activity itself, and would wait for itself here.
        activity = self._database.activity
        if not activity.is_pending or self._database.in_transaction():
            return
        if conversation_id is None:
            await activity.flush()
        else:
            await activity.settle(self._documents.identity(self._key(conversation_id)))

    @by_one_deadline
    async def page(
        self,
        filters: Mapping[str, Any] | Filter | None = None,
        pagination: Pagination | None = None,
        cursor: str | None = None,
    ) -> KeysetPage[ConversationDocument]:
        """Return a page of conversations by keyset: the first one, or the one that a cursor leads to.

        Args:
            filters: as for ``list``.
            pagination: size and order; its page number is not used.
            cursor: ``next_cursor`` of the page before.
        """
        await self._settle()
        return await super().page(filters, pagination, cursor)

    @by_one_deadline
    async def list(
        self, filters: Mapping[str, Any] | Filter | None = None, pagination: Pagination | None = None
    ) -> PaginatedResult[ConversationDocument]:
        """Return a page of conversations by number, and how many match.

        Args:
            filters: any of user_id, conversation_id, status, channel, assignee, tags, start_date, end_date (of
                started_at), search (words of title and tags), tenant_id.
            pagination: by default the 20 newest.
        """
        await self._settle()
        return await super().list(filters, pagination)


def _check_new(conversation: ConversationDocument) -> None:
    if conversation.message_count or conversation.last_message is not None:
        raise ValidationError("message_count: follows from messages, which a new conversation lacks", "message_count")
    if conversation.version != 1:
        raise ValidationError("version: a new conversation is at version 1", "version")


def _checked_status(status: object) -> ConversationStatus:
    if isinstance(status, str) and status in list(ConversationStatus):  # for an error the class shows what it is given
        return ConversationStatus(status)
    raise ValidationError(f"status: must be one of {', '.join(ConversationStatus)}", "status")


def _checked_moment(completed_at: object) -> datetime | None:
    if completed_at is None:
        return None
    if not isinstance(completed_at, datetime) or completed_at.utcoffset() is None:
        raise ValidationError("completed_at: must be a datetime with a time zone", "completed_at")
    try:
        return to_utc_milliseconds(completed_at)
    except ValueError as error:
        raise ValidationError(f"completed_at: {error}", "completed_at") from None


def _status_change(status: ConversationStatus, completed_at: datetime | None) -> list[dict[str, Any]]:
    now = utc_now()
    change: dict[str, Any] = {"status": str(status), "version": {"$add": ["$version", 1]}, "updated_at": now}
    if status is ConversationStatus.COMPLETED:
        change["completed_at"] = completed_at or {"$ifNull": ["$completed_at", now]}
    return [{"$set": change}]


async def get_conversation_repository() -> ConversationRepository:
    """Return the conversation repository of the current tenant, for dependency injection.

    Raises:
        RepositoryError: no tenant is current.
    """
    return ConversationRepository(await get_mongodb())
