"""The cost of the end of a conversation does not grow with its length (documents examined, not seconds)."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from convostore import ConversationDocument, ConvoStore, MessageDocument, TenantStore

LENGTHS = (100, 20_000)


@pytest.fixture
async def profiled(store: ConvoStore) -> AsyncIterator[ConvoStore]:
    """A store whose server writes down what each operation costs."""
    yield store
    await store.mongodb.administration.command({"profile": 0})


async def _conversation(acme: TenantStore, length: int) -> str:
    created = await acme.conversations.create(ConversationDocument.start(user_id="user"))
    for _ in range(0, length, 10_000):
        messages = [MessageDocument.user("text")] * min(length, 10_000)
        await acme.messages.append_many(created.conversation_id, messages)
    return created.conversation_id


async def _costs(store: ConvoStore, acme: TenantStore, conversation: str) -> list[dict[str, Any]]:
    """Return what the server says of the operations of an append and of reading the newest 50."""
    await acme.messages.history(conversation, limit=1)
    store.mongodb.lanes.forget(acme.database.identity(conversation))
    await store.mongodb.administration.command({"profile": 2})
    await acme.messages.append(conversation, MessageDocument.user("one more"))
    page = await acme.messages.history(conversation)
    await acme.messages.window(conversation, max_messages=50)
    await acme.messages.list({"conversation_id": conversation})
    await acme.messages.count({"conversation_id": conversation})
    await store.mongodb.administration.command({"profile": 0})
    assert len(page.items) == 50
    profile = store.mongodb.database["system.profile"]
    found = await profile.find({"ns": {"$regex": r"\.messages$"}}).sort("ts").to_list()
    await profile.drop()
    return [
        {name: entry.get(name, 0) for name in ("op", "keysExamined", "docsExamined", "nreturned", "planSummary")}
        for entry in found
    ]


async def test_append_and_the_newest_messages_cost_the_same_in_a_long_conversation(
    profiled: ConvoStore, acme: TenantStore
) -> None:
    costs = [await _costs(profiled, acme, await _conversation(acme, length)) for length in LENGTHS]
    assert costs[0] == costs[1]
    assert [cost["op"] for cost in costs[1]].count("insert") == 1
    reads = [cost for cost in costs[1] if cost["op"] == "query"]
    assert len(reads) >= 5
    for cost in reads:
        assert cost["docsExamined"] <= cost["nreturned"] + 2 <= 53, cost
        assert "COLLSCAN" not in cost["planSummary"] or cost["planSummary"] == "CLUSTERED_IXSCAN", cost


async def test_the_measure_notices_a_read_that_examines_everything(profiled: ConvoStore, acme: TenantStore) -> None:
    conversation = await _conversation(acme, 500)
    await profiled.mongodb.administration.command({"profile": 2})
    await (
        profiled.mongodb.database.messages.find({"conversation_id": conversation})
        .sort("sequence", -1)
        .limit(50)
        .to_list()
    )
    await profiled.mongodb.administration.command({"profile": 0})
    profile = profiled.mongodb.database["system.profile"]
    [entry] = await profile.find({"ns": {"$regex": r"\.messages$"}, "op": "query"}).to_list()
    assert entry["docsExamined"] >= 500
