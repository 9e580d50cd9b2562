"""One process of a concurrency test: connects, says so, waits for the start, does its part, prints what came of it.

Run as ``python concurrent_worker.py <address> <database> <part> <arguments as JSON>``.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import SecretStr

from convostore import (
    ConversationDocument,
    ConvoStore,
    DuplicateEntityError,
    EntityNotFoundError,
    MessageDocument,
    MongoSettings,
    TenantStore,
)
from convostore.database.mongodb import open_mongodb
from convostore.gateways.operation import OperationDetails

Part = Callable[..., Awaitable[Any]]
POLL_SECONDS = 0.02


async def append(acme: TenantStore, conversation: str, name: str, count: int, size: int = 1) -> list[Any]:
    """Append messages one after the other, or batches, and return where each is said to stand."""
    calls = []
    for start in range(0, count, size):
        texts = [f"{name}-{index}" for index in range(start, start + size)]
        if size == 1:
            stored = [await acme.messages.append(conversation, MessageDocument.user(texts[0]))]
        else:
            stored = await acme.messages.append_many(conversation, [MessageDocument.user(text) for text in texts])
        calls.append([(message.sequence, message.content) for message in stored])
    return calls


async def tail(acme: TenantStore, conversation: str, total: int) -> list[Any]:
    """Follow the log from its beginning, always asking for what is behind the last message seen."""
    seen: list[Any] = []
    while len(seen) < total:
        page = await acme.messages.history(conversation, after=seen[-1][0] if seen else 0, limit=1000)
        seen += [(message.sequence, message.content) for message in page.items]
        if not page.has_later:
            await asyncio.sleep(POLL_SECONDS)
    return seen


async def append_once(acme: TenantStore, conversation: str, keys: int, size: int = 1) -> list[Any]:
    """Append the same keyed messages as everybody else."""
    answers = []
    for index in range(keys):
        key = f"key-{index}"
        messages = [MessageDocument.user(f"{key}-{member}") for member in range(size)]
        if size == 1:
            stored = [await acme.messages.append(conversation, messages[0], idempotency_key=key)]
        else:
            stored = await acme.messages.append_many(conversation, messages, idempotency_key=key)
        answers.append([[message.sequence for message in stored], stored[0].replayed])
    return answers


async def create(acme: TenantStore, count: int, name: str) -> list[bool]:
    """Create the same conversations as everybody else and say which were created here."""
    won = []
    for index in range(count):
        try:
            await acme.conversations.create(
                ConversationDocument.start(user_id=name, conversation_id=f"conversation-{index}")
            )
            won.append(True)
        except DuplicateEntityError:
            won.append(False)
    return won


async def append_until_gone(acme: TenantStore, conversation: str, name: str) -> list[Any]:
    """Append until the conversation is gone."""
    calls: list[Any] = []
    while True:
        text = f"{name}-{len(calls)}"
        try:
            stored = await acme.messages.append(conversation, MessageDocument.user(text))
        except EntityNotFoundError:
            return calls
        calls.append([(stored.sequence, stored.content)])


async def delete_when_long(acme: TenantStore, conversation: str, length: int) -> bool:
    """Delete the conversation once it has grown to a length."""
    while await acme.messages.count({"conversation_id": conversation}) < length:  # noqa: ASYNC110 - by others
        await asyncio.sleep(POLL_SECONDS)
    return await acme.conversations.delete(conversation)


async def raise_counter(acme: TenantStore, conversation: str, count: int) -> int:
    """Raise a number in the metadata, each time whatever it is now."""

    def raised(found: ConversationDocument) -> ConversationDocument:
        return found.evolve(metadata={"number": found.metadata.get("number", 0) + 1})

    for _ in range(count):
        await acme.conversations.update_with(conversation, raised)
    return count


PARTS: dict[str, Part] = {
    part.__name__: part
    for part in (append, tail, append_once, create, append_until_gone, delete_when_long, raise_counter)
}


async def main(address: str, database: str, part: str, arguments: str) -> None:
    """Do a part and print its result, and how often each operation was sent."""
    sent: Counter[str] = Counter()

    def observe(details: OperationDetails) -> None:
        sent[details.operation] += 1

    settings = MongoSettings(mongodb_uri=SecretStr(address), database_name=database)
    store = ConvoStore(open_mongodb(settings, observers=(observe,)))
    try:
        acme = store.tenant("acme")
        await acme.conversations.exists("connect")
        print("ready", flush=True)
        if await asyncio.to_thread(sys.stdin.readline) != "go\n":
            return  # whoever started this is gone
        result = await PARTS[part](acme, **json.loads(arguments))
    finally:
        await store.aclose()
    print(json.dumps({"result": result, "sent": sent}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
