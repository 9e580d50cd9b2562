"""What the tests of cached conversations share."""

import asyncio
import inspect
import time
import uuid

from convostore import ConversationDocument, MessageDocument

TENANT = f"acme:{uuid.uuid4().hex[:8]}%"  # of this run, for the Redis is shared


def text(content="hello", **fields):
    return MessageDocument.user(content, **fields)


async def conversation(store, conversation_id=None):
    """Create a conversation and return its id."""
    named = {} if conversation_id is None else {"conversation_id": conversation_id}
    new = ConversationDocument.start(user_id="u", **named)
    return (await store.tenant(TENANT).conversations.create(new)).conversation_id


def loads(store):
    return store.mongodb.cached.statistics.loads


async def usable(store):
    """Wait until a store uses its cache."""
    await eventually(lambda: store.mongodb.cached.epoch.usable() is not None)


async def warm(store, conversation_id):
    """Read a conversation until it comes from the cache, and return it."""
    cached = store.mongodb.cached
    await usable(store)
    while True:
        hits = cached.statistics.hits
        found = await store.tenant(TENANT).conversations.get_by_id(conversation_id)
        if cached.statistics.hits > hits:
            return found
        await asyncio.sleep(0.01)


async def eventually(condition, seconds=20.0):
    """Poll until a condition, a function or a coroutine function, holds; fail loudly if it never does."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        result = await result if inspect.isawaitable(result) else result
        if result:
            return result
        assert time.monotonic() < end, f"it did not hold within {seconds} s"
        await asyncio.sleep(0.01)
