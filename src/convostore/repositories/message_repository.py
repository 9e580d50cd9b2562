"""The repository of messages."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar, TypeVar

from convostore.database.mongodb import get_mongodb
from convostore.gateways.shared_deadline import by_one_deadline
from convostore.gateways.tenant_collection import Key, Stored
from convostore.gateways.tenant_database import TenantDatabase
from convostore.models.identity import check_identifier, join
from convostore.models.mongo.message_model import MessageDocument
from convostore.models.types import DeliveryStatus
from convostore.repositories.appending import Appending
from convostore.repositories.base_repository import PaginatedResult, Pagination
from convostore.repositories.exceptions import ConcurrencyError, EntityNotFoundError, ValidationError
from convostore.repositories.filters import Filter, MessageFilter
from convostore.repositories.keyset import Keyset, KeysetPage
from convostore.repositories.log_reader import LogReader
from convostore.repositories.message_arguments import checked_sequence, checked_status, message_key
from convostore.repositories.message_reader import HistoryPage, MessageReader, Span
from convostore.repositories.mongo_repository import UPDATE_ATTEMPTS, MongoRepository, check_version, checked
from convostore.repositories.slots import KIND
from convostore.repositories.window import Budget, CountTokens

R = TypeVar("R")
BLANKED = ("content", "payload", "usage", "external_id", "delivery_status", "edited_at", "escaped")


class MessageRepository(MongoRepository[MessageDocument]):
    """Repository for message documents: an append-only log for each conversation.

    The id of a message is its conversation and its sequence in one string (``message.id``). Methods that read answer
    an unknown conversation as an empty one. Where newest messages are read through the cache (``NewestCache``),
    ``history`` without a place and ``window`` are; a unit of work always reads from the database.
    """

    collection_name: ClassVar[str] = "messages"
    document_class = MessageDocument
    filter_class = MessageFilter
    sortable_fields: ClassVar[tuple[str, ...]] = ("sequence",)

    def __init__(self, database: TenantDatabase) -> None:
        super().__init__(database)
        self._log = LogReader(database)
        self._reader = MessageReader(database)
        self._appending = Appending(database)

    def _key(self, entity_id: str) -> Key:
        return message_key(entity_id)

    def _query(self, parsed: Filter) -> dict[str, Any]:
        return self._reader.query(parsed)  # type: ignore[arg-type]

    def _keyset(self, parsed: Filter, pagination: Pagination) -> Keyset:
        return replace(super()._keyset(parsed, pagination), field="_id")  # which sorts as the sequence does

    async def _entity(self, key: Key) -> MessageDocument | None:
        stored = await self._documents.get(key)
        if stored is None or stored.get(KIND) or stored.get("deleted_at"):
            return None
        messages = await self._entities([stored])
        return messages[0] if messages else None

    async def _entities(self, stored: Sequence[Stored]) -> list[MessageDocument]:
        return await super()._entities(await self._log.visible(stored))

    # appending

    async def append(
        self, conversation_id: str, message: MessageDocument, *, idempotency_key: str | None = None
    ) -> MessageDocument:
        """Append a message to a conversation and return it as it was stored, with its sequence.

        Args:
            conversation_id: which conversation.
            message: what to append.
            idempotency_key: with a key that the conversation has seen before nothing is stored; the message of then
                is returned, with ``replayed`` set.

        Raises:
            EntityNotFoundError: the conversation does not exist.
            IdempotencyConflictError: the key was used with other content.
            ConnectionError: the answer did not come; ``outcome`` says whether the message may have been stored.
        """
        own = getattr(message, "idempotency_key", None)
        if idempotency_key is not None and own not in (None, idempotency_key):
            raise ValidationError("idempotency_key: the message has another one", "idempotency_key")
        key = idempotency_key if idempotency_key is not None else own
        return (await self._append(conversation_id, [message], key))[0]

    async def append_many(
        self,
        conversation_id: str,
        messages: Sequence[MessageDocument],
        *,
        idempotency_key: str | None = None,
    ) -> list[MessageDocument]:
        """Append messages as one: all of them in adjacent places, or none.

        Args:
            conversation_id: which conversation.
            messages: 1 to 10,000 messages without keys of their own, of 40 MB at most together.
            idempotency_key: of all of them together.

        Raises:
            EntityNotFoundError, IdempotencyConflictError, ConnectionError: as ``append`` does.
        """
        if not isinstance(messages, Sequence) or isinstance(messages, str):
            raise ValidationError("messages: must be a sequence of MessageDocument", "messages")
        if any(getattr(message, "idempotency_key", None) for message in messages):
            text = "idempotency_key: give append_many one key for all messages, not each its own"
            raise ValidationError(text, "idempotency_key")
        return await self._append(conversation_id, list(messages), idempotency_key)

    async def _append(
        self, conversation_id: str, messages: Sequence[MessageDocument], key: str | None
    ) -> list[MessageDocument]:
        append = partial(self._appending.append, conversation_id, messages, key)
        newest = self._database.newest
        if newest is None:
            return await append()
        conversation_id = check_identifier(conversation_id, "conversation_id")
        return await newest.append(self._database.identity(conversation_id), append)

    async def create(self, entity: MessageDocument) -> MessageDocument:
        """Append a message to the conversation that it names, as ``append`` does."""
        conversation_id = check_identifier(getattr(entity, "conversation_id", None), "conversation_id")
        return await self.append(conversation_id, entity)

    # reading

    async def history(
        self,
        conversation_id: str,
        limit: int = 50,
        before: int | None = None,
        after: int | None = None,
        *,
        include_deleted: bool = False,
        fresh: bool = False,
    ) -> HistoryPage:
        """Return a run of messages, the oldest first.

        Args:
            conversation_id: which conversation.
            limit: at most so many, 1 to 1,000.
            before: the newest before this sequence.
            after: the oldest behind this sequence; without it the newest.
            include_deleted: also show the places of deleted messages.
            fresh: read them from the database, past the cache.
        """
        return await self._reader.history(conversation_id, Span(after, before, limit, include_deleted), fresh=fresh)

    def iterate(self, conversation_id: str, after: int = 0) -> AsyncIterator[MessageDocument]:
        """Iterate over the messages of a conversation behind a sequence, in order, to the present end."""
        return self._reader.iterate(conversation_id, after)

    @by_one_deadline
    async def window(
        self,
        conversation_id: str,
        *,
        max_messages: int | None = None,
        max_tokens: int | None = None,
        count_tokens: CountTokens | None = None,
        fresh: bool = False,
    ) -> list[MessageDocument]:
        """Return the newest messages that fit a model's context, the oldest first.

        A tool result is never there without its call: where the call does not fit, the result is left out. Calls and
        results are recognised as OpenAI (chat completions, responses), Anthropic, Gemini and the AI SDK write them.

        Args:
            conversation_id: which conversation.
            max_messages: at most so many.
            max_tokens: at most so many tokens together.
            count_tokens: how many tokens a message takes; by default ``message.tokens``.
            fresh: read them from the database, past the cache.
        """
        budget = Budget(max_messages, max_tokens, attrgetter("tokens") if count_tokens is None else count_tokens)
        return await self._reader.window(conversation_id, budget, fresh=fresh)

    @by_one_deadline
    async def search(
        self, text: str, conversation_id: str | None = None, limit: int = 20, cursor: str | None = None
    ) -> KeysetPage[MessageDocument]:
        """Return the messages that contain every word of a text, in any case.

        It reads through the texts of the conversation, or of the whole tenant, up to the limit.
        """
        return await self._reader.search(text, conversation_id, limit, cursor)

    async def get(self, conversation_id: str, sequence: int) -> MessageDocument | None:
        """Return the message at a sequence, or None if there is none or it was deleted."""
        key = (check_identifier(conversation_id, "conversation_id"), checked_sequence(sequence))
        return await self._entity(key)

    async def get_by_external_id(self, external_id: str) -> MessageDocument | None:
        """Return the message that has this id at the channel's provider, or None."""
        query = {"external_id": {"$eq": check_identifier(external_id, "external_id")}}
        found = await self._entities(await self._documents.find(query, limit=1))
        return found[0] if found else None

    async def exists(self, entity_id: str) -> bool:
        """Say whether there is a message of this id that was not deleted."""
        return await self.get_by_id(entity_id) is not None

    async def count(self, filters: Mapping[str, Any] | Filter | None = None) -> int:
        """Count the messages of a conversation that match.

        Without further conditions it is the highest sequence, which costs one look at the end of the log.

        Args:
            filters: conversation_id, and any of role, delivery_status, external_id, start_date, end_date, search.
        """
        parsed = self._filter(filters)
        if isinstance(parsed, MessageFilter) and parsed.is_whole_conversation:
            return await self._log.highest(parsed.conversation_id)
        return await super().count(parsed)

    # changing

    async def update(self, entity: MessageDocument) -> MessageDocument:
        """Store the text, payload, usage and external id of a message, if nobody has changed it since it was read.

        Raises:
            ConcurrencyError: somebody has; nothing was changed.
            EntityNotFoundError: it is gone.
            TenantMismatchError: it belongs to another tenant.
        """
        stamped = self._stamp(entity)
        if stamped.is_deleted:
            raise EntityNotFoundError(MessageDocument.entity_type, stamped.id)
        return await self._told(self._key(stamped.id), partial(self._update, stamped))

    async def _update(self, message: MessageDocument) -> MessageDocument:
        edited = await super().update(message)
        await self._appending.follow(edited)
        return edited

    async def _told(self, key: Key, write: Callable[[], Awaitable[R]]) -> R:
        """Change a message, and tell the cache if there is one: at once, or once the unit of work is over."""
        identity, newest = self._database.identity(key[0]), self._database.newest
        if newest is not None:
            return await newest.write(identity, write)
        result = await write()
        self._database.gateway.touch(identity)
        return result

    @by_one_deadline
    async def edit(
        self, conversation_id: str, sequence: int, expected_version: int | None = None, **changes: Any
    ) -> MessageDocument:
        """Change a message and return it as it is now.

        Args:
            conversation_id: which conversation.
            sequence: which message of it.
            expected_version: only if it is still at this version; without it, whatever it is now.
            changes: any of content, payload, usage, external_id.

        Raises:
            ConcurrencyError: it is at another version.
            EntityNotFoundError: there is no such message.
        """
        unknown = changes.keys() - {"content", "payload", "usage", "external_id"}
        if unknown:
            name = min(unknown)
            raise ValidationError(f"{name}: cannot be edited; content, payload, usage and external_id can", name)
        if not changes:
            raise ValidationError("changes: none; say by name what to change, as in content=…", "changes")

        def change(message: MessageDocument) -> MessageDocument:
            if expected_version is not None and expected_version != message.version:
                raise ConcurrencyError(expected_version, message.version, MessageDocument.entity_type, message.id)
            return message.evolve(**changes)

        conversation_id = check_identifier(conversation_id, "conversation_id")
        if expected_version is not None:
            check_version(expected_version)
        message_id = MessageDocument.identify(conversation_id, int(checked_sequence(sequence)))
        if expected_version is not None:
            return await self._update_once(message_id, change)
        return await self.update_with(message_id, change)

    @by_one_deadline
    async def update_delivery_status(self, conversation_id: str, sequence: int, status: DeliveryStatus) -> bool:
        """Move the delivery status forward; say whether it moved.

        A status that comes late (delivered after read) changes nothing and is answered with False.

        Raises:
            EntityNotFoundError: there is no such message.
        """
        key = (check_identifier(conversation_id, "conversation_id"), checked_sequence(sequence))
        new = checked_status(status)
        moved = await self._told(key, partial(self._move, key, new))
        if not moved and await self._entity(key) is None:
            raise EntityNotFoundError(MessageDocument.entity_type, join(*key))
        return moved

    async def _move(self, key: Key, status: DeliveryStatus) -> bool:
        allowed = [None, *(str(status) for status in status.predecessors)]
        guard = {"delivery_status": {"$in": allowed}, KIND: None, "deleted_at": None}
        return await self._documents.update(key, guard, {"$set": {"delivery_status": str(status)}})

    @by_one_deadline
    async def delete(self, entity_id: str, version: int | None = None) -> bool:
        """Delete a message: its content goes, its place stays. Return False if there is none.

        Raises:
            ConcurrencyError: a version was given, and it is at another one.
        """
        key = self._key(entity_id)
        if version is not None:
            check_version(version)
        actual = 0
        for _ in range(UPDATE_ATTEMPTS):
            message = await self._entity(key)
            if message is None:
                return False
            actual = message.version
            if version is not None and version != actual:
                break
            if await self._told(key, partial(self._blank, key, message)):
                return True
        raise ConcurrencyError(version or actual, actual, MessageDocument.entity_type, entity_id)

    async def _blank(self, key: Key, message: MessageDocument) -> bool:
        blank = message.blank()
        change = {
            "$set": {"deleted_at": blank.deleted_at, "version": blank.version},
            "$unset": dict.fromkeys(BLANKED, ""),
        }
        blanked = await self._documents.update(key, {"version": message.version}, change)
        if blanked:
            await self._appending.follow(blank)
        return blanked

    @by_one_deadline
    async def list(
        self, filters: Mapping[str, Any] | Filter | None = None, pagination: Pagination | None = None
    ) -> PaginatedResult[MessageDocument]:
        """Return a page of a conversation's messages by number, the newest first unless asked otherwise.

        A deleted message leaves a gap on its page, so that no other message moves from page to page.

        Args:
            filters: conversation_id, and any of role, delivery_status, external_id, start_date, end_date, search.
            pagination: by default the 20 newest.
        """
        pagination = checked(pagination)
        self._build_sort_criteria(pagination)
        parsed = self._filter(filters)
        if isinstance(parsed, MessageFilter) and parsed.is_whole_conversation:
            return await self._reader.page(parsed.conversation_id, pagination)
        return await super().list(parsed, pagination)


async def get_message_repository() -> MessageRepository:
    """Return the message repository of the current tenant, for dependency injection.

    Raises:
        RepositoryError: no tenant is current.
    """
    return MessageRepository(await get_mongodb())
