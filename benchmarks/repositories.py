"""The repositories beside the driver's own calls on equal documents."""

import itertools
import random
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from benchmarks.measuring import Case
from convostore import ConversationDocument, ConvoStore, MessageDocument, Pagination
from convostore.models.mongo.message_model import sequence_key
from convostore.models.types import new_id, utc_now

Database = AsyncDatabase[dict[str, Any]]
CONVERSATIONS = 2_000
MESSAGES = 100
TEXT = "I want to make a restaurant reservation for 2 people at half past 11 in the morning."


class Workload:
    """Equal data for both: the raw driver works on the same collections, under another tenant's prefix."""

    def __init__(self, store: ConvoStore, client: AsyncMongoClient[dict[str, Any]], database_name: str) -> None:
        self.tenant = store.tenant("bench")
        self.database: Database = client[database_name]
        self.random = random.Random(7)
        self.ids = [f"c-{n:06d}" for n in range(CONVERSATIONS)]
        self.numbers = itertools.count(1)
        self.raw_numbers = itertools.count(1)
        self.conversations: list[ConversationDocument] = []
        self.raw_versions = [0] * CONVERSATIONS
        self.raw_sequence = itertools.count(1)

    async def prepare(self) -> None:
        """Write the conversations, and a log into which both append."""
        for number, conversation_id in enumerate(self.ids):
            conversation = await self.tenant.conversations.create(_conversation(conversation_id))
            self.conversations.append(conversation)
            twin = conversation.to_dict() | {"_id": f"raw-update:{number:06d}", "tenant_id": "raw-update"}
            await self.database.conversations.insert_one(twin)
        for conversation_id in ("short", "long"):
            await self.create_named(conversation_id)
        for _ in range(MESSAGES):
            await self.append()

    async def create_named(self, conversation_id: str) -> None:
        """Create a conversation of this id."""
        await self.tenant.conversations.create(_conversation(conversation_id))

    async def fill(self, conversation_id: str, messages: int) -> None:
        """Append many messages."""
        for _ in range(0, messages, 5_000):
            batch = [MessageDocument.user(TEXT) for _ in range(min(5_000, messages))]
            await self.tenant.messages.append_many(conversation_id, batch)

    def _any(self) -> str:
        return self.random.choice(self.ids)

    def cases(self) -> list[Case]:
        """Return the work to compare."""
        return [
            Case("get", self.raw_get, self.get),
            Case("exists", self.raw_exists, self.exists),
            Case("create", self.raw_create, self.create),
            Case("guarded update", self.raw_update, self.update),
            Case("page of 20", self.raw_page, self.page),
            Case("append, one talk", self.raw_append, self.append),
            Case("append, 64 talks", self.raw_append, self.append_somewhere),
            Case("newest 50", self.raw_newest, self.newest),
        ]

    async def get(self) -> object:
        return await self.tenant.conversations.get_by_id(self._any())

    async def raw_get(self) -> object:
        return await self.database.conversations.find_one({"_id": f"bench:{self._any()}"})

    async def exists(self) -> object:
        return await self.tenant.conversations.exists(self._any())

    async def raw_exists(self) -> object:
        return await self.database.conversations.find_one({"_id": f"bench:{self._any()}"}, {"_id": 1}) is not None

    async def create(self) -> object:
        return await self.tenant.conversations.create(ConversationDocument.start(user_id="u-1"))

    async def raw_create(self) -> object:
        document = _conversation(new_id()).to_dict() | {"tenant_id": "raw"}
        document["_id"] = f"raw:{document['conversation_id']}"
        return await self.database.conversations.insert_one(document)

    async def update(self) -> object:
        # The versions rise with each round over all conversations.
        number = next(self.numbers)
        conversation = self.conversations[number % CONVERSATIONS]
        self.conversations[number % CONVERSATIONS] = updated = await self.tenant.conversations.update(conversation)
        return updated

    async def raw_update(self) -> object:
        number = next(self.raw_numbers) % CONVERSATIONS
        version = self.raw_versions[number] = self.raw_versions[number] + 1
        change = {"$set": {"status": "active", "title": "A talk", "updated_at": utc_now(), "version": version + 1}}
        query = {"_id": f"raw-update:{number:06d}", "version": version}
        return await self.database.conversations.update_one(query, change)

    async def page(self) -> object:
        return await self.tenant.conversations.page(None, Pagination(page_size=20))

    async def raw_page(self) -> object:
        found = self.database.conversations.find({"tenant_id": "bench"}).sort([("created_at", -1), ("_id", -1)])
        return await found.limit(21).to_list()

    async def append(self, conversation_id: str = "short") -> object:
        return await self.tenant.messages.append(conversation_id, MessageDocument.user(TEXT))

    async def append_somewhere(self) -> object:
        return await self.append(self.ids[next(self.numbers) % 64])

    async def raw_append(self) -> object:
        number = next(self.raw_sequence)
        stored = MessageDocument.user(TEXT).to_dict()
        stored |= {"_id": f"raw:short:{sequence_key(number)}", "tenant_id": "raw", "sequence": number}
        return await self.database.messages.insert_one(stored | {"conversation_id": "short"})

    async def newest(self, conversation_id: str = "short") -> object:
        return await self.tenant.messages.history(conversation_id, limit=50)

    async def raw_newest(self) -> object:
        bounds = {"$gte": "bench:short:", "$lt": "bench:short;"}
        return await self.database.messages.find({"_id": bounds}).sort("_id", -1).limit(51).to_list()


def _conversation(conversation_id: str) -> ConversationDocument:
    return ConversationDocument.start(user_id="u-1", conversation_id=conversation_id, title="A talk")
