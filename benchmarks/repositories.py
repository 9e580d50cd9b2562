"""Conversations and messages: what convostore is asked to do."""

import asyncio
import itertools
import random
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from benchmarks import contest
from benchmarks.contest import Call
from convostore import ConversationDocument, ConvoStore, MessageDocument, Pagination

T = TypeVar("T")
AT_ONCE = 20  # a new pool opens no more connections in time on a busy machine
CONVERSATIONS = 2_000
BUSY = 64  # conversations that are appended to in turn
MESSAGES = 100
READ = "to-read"
ONE = "busy-one"
TEXT = "I want to make a restaurant reservation for 2 people at half past 11 in the morning."


async def in_groups(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Do much work, a group at a time."""
    waiting, done = iter(work), []
    while group := list(itertools.islice(waiting, AT_ONCE)):
        done += await asyncio.gather(*group)
    return done


class Workload:
    """What convostore is asked to do."""

    def __init__(self, store: ConvoStore) -> None:
        self.store = store
        self.tenant = store.tenant("bench")
        self.random = random.Random(7)
        self.ids = [f"c-{n:06d}" for n in range(CONVERSATIONS)]
        self.numbers = itertools.count()
        self.conversations: list[ConversationDocument] = []

    async def prepare(self) -> None:
        """Write the conversations, and a log to read."""
        self.conversations = await in_groups(map(self.create_named, self.ids))
        await self.create_named(ONE)
        await self.create_named(READ)
        for number in range(MESSAGES):
            await self.tenant.messages.append(READ, MessageDocument.user(f"{number}: {TEXT}"))
        for conversation_id in self.ids[:BUSY]:  # the first append of a process looks whether there is a conversation
            await self.append(conversation_id)
        await self.settle()

    async def create_named(self, conversation_id: str) -> ConversationDocument:
        """Create a conversation of this id; nine of ten are active."""
        status = "completed" if conversation_id.endswith("7") else "active"
        conversation = ConversationDocument.start("u-1", conversation_id=conversation_id, title="A talk", status=status)
        return await self.tenant.conversations.create(conversation)

    def calls(self) -> dict[str, Call]:
        """Return each piece of work by its name."""
        return {
            contest.GET: self.get,
            contest.EXISTS: self.exists,
            contest.CREATE: self.create,
            contest.UPDATE: self.update,
            contest.APPEND_MANY: self.append_somewhere,
            contest.APPEND_ONE: self.append,
            contest.NEWEST: self.newest,
            contest.PAGE: self.page,
        }

    async def settle(self) -> None:
        """Write the activity that follows appends."""
        await self.store.mongodb.activity.flush()

    async def get(self) -> ConversationDocument | None:
        return await self.tenant.conversations.get_by_id(self.random.choice(self.ids))

    async def exists(self) -> bool:
        return await self.tenant.conversations.exists(self.random.choice(self.ids))

    async def create(self) -> ConversationDocument:
        return await self.tenant.conversations.create(ConversationDocument.start("u-2", title="A talk"))

    async def update(self) -> ConversationDocument:
        # One after the other, so that no two callers have the same one in hand.
        number = next(self.numbers) % CONVERSATIONS
        changed = self.conversations[number].evolve(title="A talk that goes on")
        self.conversations[number] = updated = await self.tenant.conversations.update(changed)
        return updated

    async def append(self, conversation_id: str = ONE) -> MessageDocument:
        return await self.tenant.messages.append(conversation_id, MessageDocument.user(TEXT))

    async def append_somewhere(self) -> MessageDocument:
        return await self.append(self.ids[next(self.numbers) % BUSY])

    async def newest(self) -> list[MessageDocument]:
        return (await self.tenant.messages.history(READ, limit=50)).items

    async def page(self) -> list[ConversationDocument]:
        return (await self.tenant.conversations.page({"status": "active"}, Pagination(page_size=20))).items
