"""Beanie: a conversation guarded by its revision, only its changes saved; a message as a document of its own."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar

from beanie import Document, init_beanie
from pydantic import Field
from pymongo import DESCENDING, IndexModel

from benchmarks import contest
from benchmarks.peers import Calls, conversation_calls
from benchmarks.raw_driver import driver_client
from benchmarks.repositories import CONVERSATIONS, MESSAGES, READ, TEXT, in_groups
from convostore import MongoSettings


def _now() -> datetime:
    return datetime.now(UTC)


class Conversation(Document):
    """The fields that convostore stores."""

    tenant_id: str = "bench"
    user_id: str = "u-1"
    channel: str = "web"
    status: str = "active"
    title: str | None = "A talk"
    tags: list[str] = Field(default_factory=list)
    metadata: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime = Field(default_factory=_now)
    started_at: datetime = Field(default_factory=_now)
    updated_at: datetime = Field(default_factory=_now)
    last_activity_at: datetime = Field(default_factory=_now)
    message_count: int = 0

    class Settings:
        """As Beanie asks for them."""

        name = "conversations"
        use_revision = True
        use_state_management = True
        indexes: ClassVar = [
            IndexModel([("tenant_id", 1), ("created_at", DESCENDING), ("_id", DESCENDING)]),
            IndexModel([("tenant_id", 1), ("last_activity_at", DESCENDING), ("_id", DESCENDING)]),
            IndexModel([("tenant_id", 1), ("status", 1), ("created_at", DESCENDING), ("_id", DESCENDING)]),
        ]


class Message(Document):
    """A message; its order is that of its ObjectId."""

    tenant_id: str = "bench"
    conversation_id: str
    role: str = "user"
    content: str
    created_at: datetime = Field(default_factory=_now)

    class Settings:
        """As Beanie asks for them."""

        name = "messages"
        indexes: ClassVar = [IndexModel([("conversation_id", 1), ("_id", DESCENDING)])]


class _Work:
    def __init__(self, conversations: list[Conversation]) -> None:
        self._conversations = conversations
        self._numbers = itertools.count()

    def _next(self) -> Conversation:
        return self._conversations[next(self._numbers) % CONVERSATIONS]

    async def get(self) -> Conversation | None:
        return await Conversation.get(self._next().id)

    async def exists(self) -> bool:
        return await Conversation.find(Conversation.id == self._next().id).exists()

    async def create(self) -> Conversation:
        return await Conversation(user_id="u-2").insert()

    async def update(self) -> object:
        conversation = self._next()
        conversation.title = f"A talk that goes on since {conversation.updated_at}"
        conversation.updated_at = _now()
        return await conversation.save_changes()

    async def page(self) -> list[Conversation]:
        found = Conversation.find(Conversation.tenant_id == "bench", Conversation.status == "active")
        return await found.sort(-Conversation.created_at, -Conversation.id).limit(20).to_list()

    async def append(self, conversation_id: str) -> Message:
        return await Message(conversation_id=conversation_id, content=TEXT).insert()

    async def newest(self) -> list[Message]:
        return await Message.find(Message.conversation_id == READ).sort(-Message.id).limit(50).to_list()


@asynccontextmanager
async def beanie(settings: MongoSettings) -> AsyncIterator[Calls]:
    """Open it on a database of its own."""
    async with driver_client(settings, zone=False) as client:
        database = client[f"{settings.database_name}_b"]
        await init_beanie(database=database, document_models=[Conversation, Message])
        work = _Work(await in_groups(Conversation().insert() for _ in range(CONVERSATIONS)))
        await in_groups(work.append(READ) for _ in range(MESSAGES))
        yield {
            contest.GET: work.get,
            contest.EXISTS: work.exists,
            contest.CREATE: work.create,
            contest.UPDATE: work.update,
            contest.PAGE: work.page,
            **conversation_calls(work.append, work.newest),
        }
