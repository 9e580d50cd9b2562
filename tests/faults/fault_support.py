"""What the fault tests need beside fixtures: the truth about a database, and waiting with a deadline."""

import asyncio
import inspect
import time
from collections import Counter
from urllib.parse import urlsplit

import pytest

# PyMongo forgets to close a socket when it is cancelled while it connects; the garbage collector does it then.
FORGOTTEN_SOCKETS = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def address_of(uri):
    """Return host and port of an address with one host."""
    parts = urlsplit(uri)
    return parts.hostname, parts.port


async def eventually(condition, seconds=5.0, what="the condition"):
    """Poll until a condition, a function or a coroutine function, holds; fail loudly if it never does."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        result = await result if inspect.isawaitable(result) else result
        if result:
            return result
        assert time.monotonic() < end, f"{what} did not hold within {seconds} s"
        await asyncio.sleep(0.005)


class Truth:
    """Reads a database past the library."""

    def __init__(self, client, name):
        self.client = client
        self.admin = client.admin
        self.database = client[name]

    async def log(self, conversation_id, tenant="acme"):
        """Return the slots of a conversation, having made sure that they are dense and none is there twice."""
        low = f"{tenant}:{conversation_id}:"
        below = {"_id": {"$gte": low, "$lt": low[:-1] + ";"}}
        slots = await self.database.messages.find(below).sort("_id", 1).to_list()
        sequences = [slot["sequence"] for slot in slots]
        assert sequences == list(range(1, len(slots) + 1)), f"the log is not dense: {sequences}"
        assert [slot["_id"] for slot in slots] == [f"{low}{sequence:010d}" for sequence in sequences]
        return slots

    async def contents(self, conversation_id, tenant="acme"):
        """Return the visible contents of a conversation in order: batches cut short and deleted ones left out."""
        slots = await self.log(conversation_id, tenant)
        return [slot.get("content", "") for slot in visible(slots) if not slot.get("kind") and "deleted_at" not in slot]

    async def conversation(self, conversation_id, tenant="acme"):
        """Return a conversation as it is stored, or None."""
        return await self.database.conversations.find_one({"_id": f"{tenant}:{conversation_id}"})

    async def open_transactions(self):
        """Return the number of transactions that are open on the server."""
        return (await self.admin.command("serverStatus"))["transactions"]["currentOpen"]

    async def open_cursors(self):
        """Return the number of cursors that are open on the server."""
        return (await self.admin.command("serverStatus"))["metrics"]["cursor"]["open"]["total"]


def visible(slots):
    """Return the slots that do not belong to a batch cut short, by counting members: another way than the library's."""
    members = Counter(slot["batch"]["id"] for slot in slots if "batch" in slot)
    return [slot for slot in slots if "batch" not in slot or members[slot["batch"]["id"]] == slot["batch"]["size"]]
