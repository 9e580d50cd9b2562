"""Conversations and messages by the driver's own calls: the same round trips, on the same documents or equal ones."""

import itertools
import random
import uuid
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from benchmarks import contest
from benchmarks.contest import Call
from benchmarks.repositories import BUSY, CONVERSATIONS, ONE, READ, TEXT
from convostore import MongoSettings
from convostore.models.mongo.message_model import sequence_key
from convostore.models.types import utc_now

Client = AsyncMongoClient[dict[str, Any]]
Stored = dict[str, Any]


def driver_client(settings: MongoSettings, *, zone: bool) -> Client:
    """Return the driver's client under the options that convostore gives it.

    Args:
        settings: of the server.
        zone: whether moments come with their time zone, as they come from convostore.
    """
    return AsyncMongoClient(settings.mongodb_uri.get_secret_value(), **settings.client_options() | {"tz_aware": zone})


class RawWorkload:
    """What convostore does, without it."""

    def __init__(self, client: Client, database_name: str) -> None:
        self.database: AsyncDatabase[Stored] = client[database_name]
        self.random = random.Random(7)
        self.tenant_id = f"raw-{uuid.uuid4().hex[:6]}"
        self.numbers = itertools.count()
        self.versions = [1] * CONVERSATIONS

    async def prepare(self) -> None:
        """Write the conversations that are updated."""
        twins = [self._conversation(f"c-{n:06d}") for n in range(CONVERSATIONS)]
        await self.database.conversations.insert_many(twins)

    def calls(self) -> dict[str, Call]:
        """Return each piece of work by its name."""
        return self.reads() | {
            contest.EXISTS: self.exists,
            contest.CREATE: self.create,
            contest.UPDATE: self.update,
            contest.APPEND_MANY: self.append_somewhere,
            contest.APPEND_ONE: self.append,
        }

    def reads(self) -> dict[str, Call]:
        """Return the work that brings whole documents."""
        return {contest.GET: self.get, contest.NEWEST: self.newest, contest.PAGE: self.page}

    def _conversation(self, conversation_id: str) -> Stored:
        now = utc_now()
        return {
            "_id": f"{self.tenant_id}:{conversation_id}",
            "tenant_id": self.tenant_id,
            "conversation_id": conversation_id,
            "user_id": "u-1",
            "channel": "web",
            "status": "active",
            "title": "A talk",
            "created_at": now,
            "started_at": now,
            "updated_at": now,
            "last_activity_at": now,
            "message_count": 0,
            "version": 1,
        }

    def _any(self) -> str:
        return f"bench:c-{self.random.randrange(CONVERSATIONS):06d}"

    async def get(self) -> Stored | None:
        return await self.database.conversations.find_one({"_id": self._any()})

    async def exists(self) -> bool:
        return await self.database.conversations.find_one({"_id": self._any()}, {"_id": 1}) is not None

    async def create(self) -> object:
        return await self.database.conversations.insert_one(self._conversation(uuid.uuid4().hex))

    async def update(self) -> object:
        number = next(self.numbers) % CONVERSATIONS
        version = self.versions[number]
        self.versions[number] = version + 1
        change = {
            "status": "active",
            "title": "A talk that goes on",
            "updated_at": utc_now(),
            "version": version + 1,
        }
        query = {"_id": f"{self.tenant_id}:c-{number:06d}", "version": version}
        result = await self.database.conversations.update_one(query, {"$set": change})
        if result.matched_count != 1:
            raise AssertionError(query)
        return result

    async def append(self, conversation_id: str = ONE) -> object:
        """Insert a message at the end that only this process appends to, and so knows."""
        number = next(self.numbers)
        return await self.database.messages.insert_one(
            {
                "_id": f"{self.tenant_id}:{conversation_id}:{sequence_key(number)}",
                "tenant_id": self.tenant_id,
                "conversation_id": conversation_id,
                "sequence": number,
                "message_id": uuid.uuid4().hex,
                "role": "user",
                "content": TEXT,
                "created_at": utc_now(),
                "version": 1,
            }
        )

    async def append_somewhere(self) -> object:
        return await self.append(f"c-{next(self.numbers) % BUSY:06d}")

    async def newest(self) -> list[Stored]:
        bounds = {"$gte": f"bench:{READ}:", "$lt": f"bench:{READ};"}
        found = await self.database.messages.find({"_id": bounds}).sort("_id", -1).limit(51).to_list()
        return found[:50][::-1]

    async def page(self) -> list[Stored]:
        query = {"tenant_id": "bench", "status": "active"}
        found = self.database.conversations.find(query).sort([("created_at", -1), ("_id", -1)])
        return (await found.limit(21).to_list())[:20]
