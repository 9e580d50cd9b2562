"""A message may be as large as the database allows, to the byte, and one byte more is refused before it is sent."""

from typing import Any

import pytest
from bson import encode

from convostore import ConversationDocument, ConvoStore, MessageDocument, TenantStore, ValidationError

MAX = 16 * 1024 * 1024


async def _stored(store: ConvoStore, conversation_id: str) -> dict[str, Any]:
    found = await store.mongodb.database["messages"].find_one({"conversation_id": conversation_id}, sort=[("_id", -1)])
    assert found is not None
    return found


@pytest.mark.parametrize("conversation_id", ["c" * 32, "ü:%{" * 64])
@pytest.mark.parametrize("way", ["append", "keyed", "many"])
async def test_a_message_fills_a_document_to_the_last_byte(
    store: ConvoStore, acme: TenantStore, conversation_id: str, way: str
) -> None:
    await acme.conversations.create(ConversationDocument.start("u", conversation_id=conversation_id))

    async def append(content: str, key: str) -> None:
        message = MessageDocument.user(content, message_id="m")
        if way == "many":
            await acme.messages.append_many(conversation_id, [MessageDocument.user("first"), message])
        else:
            named = {"idempotency_key": key} if way == "keyed" else {}
            await acme.messages.append(conversation_id, message, **named)

    await append("x", "a")
    room = 1 + MAX - len(encode(await _stored(store, conversation_id)))
    await append("x" * room, "b")
    stored = await _stored(store, conversation_id)
    assert len(encode(stored)) == MAX
    with pytest.raises(ValidationError) as refusal:
        await append("x" * (room + 1), "c")
    assert refusal.value.field == ("messages" if way == "many" else "document")
    assert await _stored(store, conversation_id) == stored
