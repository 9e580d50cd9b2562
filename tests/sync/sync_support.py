"""Making things happen, and what is told of them."""

import asyncio
import inspect
import time
from urllib.parse import urlsplit

from convostore import ConversationDocument, HistoryLost, MessageDocument


def address_of(uri):
    """Return host and port of an address with one host."""
    parts = urlsplit(uri)
    return parts.hostname, parts.port


def text(content="hello", **fields):
    return MessageDocument.user(content, **fields)


async def conversation(tenant, conversation_id=None):
    """Create a conversation and return its id."""
    named = {} if conversation_id is None else {"conversation_id": conversation_id}
    return (await tenant.conversations.create(ConversationDocument.start(user_id="u", **named))).conversation_id


async def told(changes, count):
    """Return exactly so many events."""
    async with asyncio.timeout(20):
        return [await anext(changes) for _ in range(count)]


async def nothing_more(changes, tenant):
    """Make sure that nothing is told before what happens next."""
    marker = await conversation(tenant)
    event = (await told(changes, 1))[0]
    assert event.conversation_id == marker, f"told as well: {event}"


def short(event):
    """Return an event without what differs from run to run."""
    name = type(event).__name__
    if isinstance(event, HistoryLost):
        return (name, str(event.reason))
    left_out = ("tenant_id", "cursor", "at", "conversation_id", "fields")
    return (name, *(getattr(event, each) for each in type(event).__dataclass_fields__ if each not in left_out))


async def eventually(condition, seconds=10.0, what="the condition"):
    """Poll until a condition, a function or a coroutine function, holds; fail loudly if it never does."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        result = await result if inspect.isawaitable(result) else result
        if result:
            return result
        assert time.monotonic() < end, f"{what} did not hold within {seconds} s"
        await asyncio.sleep(0.01)
