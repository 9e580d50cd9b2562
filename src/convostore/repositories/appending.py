"""Appending: from a caller's messages to slots of the log, each once for its idempotency key."""

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from convostore.gateways.shared_deadline import by_one_deadline
from convostore.gateways.tenant_database import TenantDatabase
from convostore.models.identity import check_identifier
from convostore.models.mongo.message_model import MessageDocument
from convostore.models.types import utc_now
from convostore.repositories.exceptions import (
    ConnectionError,  # noqa: A004 - the name is the specification's
    DuplicateEntityError,
    IdempotencyConflictError,
    Outcome,
    ValidationError,
)
from convostore.repositories.message_log import MessageLog
from convostore.repositories.slots import Slot

MAX_BATCH = 10_000
_REPLAY_ATTEMPTS = 50
_REPLAY_PAUSE = 0.02


class Appending:
    """Appends messages and keeps the activity of their conversation following.

    Args:
        database: the tenant's handle.
    """

    def __init__(self, database: TenantDatabase) -> None:
        self._database = database
        self._log = MessageLog(database)
        self._conversations = database.collection("conversations", "Conversation")

    @by_one_deadline
    async def append(
        self, conversation_id: str, messages: Sequence[MessageDocument], key: str | None
    ) -> list[MessageDocument]:
        """Append messages as one, unless they were appended before under the same key."""
        conversation_id = check_identifier(conversation_id, "conversation_id")
        self._check(conversation_id, messages)
        if key is None:
            stored = self._placed(conversation_id, messages, await self._log.append(conversation_id, messages, None))
        else:
            key = check_identifier(key, "idempotency_key")
            keyed = [messages[0].replaced(idempotency_key=key), *messages[1:]]
            stored = await self._append_once(conversation_id, keyed, key, batch_digest(messages))
        if not stored[0].replayed:
            # A date in the future would pin the activity there.
            newest = stored[0] if len(stored) == 1 else max(stored, key=attrgetter("created_at"))
            active_at = min(utc_now(), newest.created_at)
            await self.follow(stored[-1], stored[-1].sequence, active_at)
        return stored

    def _check(self, conversation_id: str, messages: Sequence[MessageDocument]) -> None:
        if not messages or len(messages) > MAX_BATCH:
            raise ValidationError(f"messages: must be 1 to {MAX_BATCH}", "messages")
        for message in messages:
            if not isinstance(message, MessageDocument):
                kind = type(message).__name__
                raise ValidationError(f"message: must be a MessageDocument, not {kind}", "message")
            if message.tenant_id:
                self._database.check_tenant(message.tenant_id)
            if message.conversation_id not in ("", conversation_id):
                raise ValidationError("conversation_id: the message belongs to another one", "conversation_id")
            if message.sequence or message.version != 1 or message.is_deleted:
                raise ValidationError("sequence: the message is stored already", "sequence")

    def _placed(self, conversation_id: str, messages: Sequence[MessageDocument], first: int) -> list[MessageDocument]:
        tenant_id = self._database.tenant_id
        return [
            message.replaced(tenant_id=tenant_id, conversation_id=conversation_id, sequence=sequence)
            for sequence, message in enumerate(messages, start=first)
        ]

    async def _append_once(
        self, conversation_id: str, messages: Sequence[MessageDocument], key: str, digest: str
    ) -> list[MessageDocument]:
        if self._database.in_transaction():
            # There the unique index can only refuse the whole transaction.
            stored = await self._replayed(conversation_id, key, digest)
            if stored:
                return stored
        for _ in range(_REPLAY_ATTEMPTS):
            try:
                first = await self._log.append(conversation_id, messages, digest)
                return self._placed(conversation_id, messages, first)
            except DuplicateEntityError:
                stored = await self._replayed(conversation_id, key, digest)
            if stored:
                return stored
            await asyncio.sleep(_REPLAY_PAUSE)
        text = f"the message under idempotency key '{key}' is not settled yet"
        raise ConnectionError("MongoDB", outcome=Outcome.UNKNOWN, message=text)

    async def _replayed(self, conversation_id: str, key: str, digest: str) -> list[MessageDocument] | None:
        stored = await self._log.stored_under(conversation_id, key)
        if stored is None:
            return None
        if stored.get("idempotency_digest") != digest:
            raise IdempotencyConflictError(MessageDocument.entity_type, key)
        batch = await self._log.settled_batch(Slot(stored))
        if batch is None:
            return None
        return [MessageDocument.from_dict(member).replaced(replayed=True) for member in batch]

    async def follow(self, last: MessageDocument, count: int | None = None, active_at: datetime | None = None) -> None:
        """Let the activity of the conversation follow its log: at once in a unit of work, else soon.

        Args:
            last: a message; it is shown as the last one unless a later one is.
            count: how many messages there are at least.
            active_at: when something happened.
        """
        values: dict[str, Any] = {"last_message": last.stored_preview()}
        if count is not None:
            values |= {"message_count": count, "last_activity_at": active_at}
        key = (last.conversation_id,)
        if self._database.in_transaction():
            await self._conversations.update(key, {}, {"$max": values})
            self._database.gateway.touch(self._conversations.identity(key))
        else:
            self._database.activity.put(self._conversations.identity(key), values)


def batch_digest(messages: Sequence[MessageDocument]) -> str:
    """Return a digest of what the messages say, by which a repeated append is told from another one."""
    digests = "".join(message.content_digest() for message in messages)
    return hashlib.sha256(digests.encode()).hexdigest()[:32]
