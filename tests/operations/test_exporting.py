"""An export holds all conversations of a tenant, and gives them back wherever it is imported."""

import asyncio
import json
import uuid

import pytest
from chat_lines import conversation, dump, write_file
from test_importing import export_lines, import_file

from convostore import (
    ChannelType,
    ConversationDocument,
    ConversationStatus,
    CorruptDocumentError,
    DeliveryStatus,
    MessageDocument,
    TokenUsage,
    ValidationError,
)
from convostore.operations.exporting import Exporter, export_sessions
from convostore.operations.output import open_output


async def eventful(tenant):
    """Create a conversation in which everything has happened that can."""
    conversation = ConversationDocument.start("u-1", ChannelType.WHATSAPP, title="t", tags=["a"], metadata={"$k": [1]})
    identity = (await tenant.conversations.create(conversation)).conversation_id
    append = tenant.messages.append
    await append(identity, MessageDocument.user("one", external_id="e-1"), idempotency_key="k-1")
    await append(identity, MessageDocument.assistant("two", payload={"tool_calls": [{"id": "c"}], "role": "x"}))
    await append(identity, MessageDocument.assistant("three", usage=TokenUsage(input_tokens=3)))
    await tenant.messages.append_many(identity, [MessageDocument.user("four"), MessageDocument.user("five")])
    await tenant.messages.update_delivery_status(identity, 3, DeliveryStatus.SENT)
    await tenant.messages.edit(identity, 2, content="two, corrected")
    await tenant.messages.delete(MessageDocument.identify(identity, 4))
    await tenant.conversations.update_conversation_status(identity, ConversationStatus.COMPLETED)
    return identity


async def state_of(tenant, identity):
    conversation = await tenant.conversations.get_by_id(identity)
    history = await tenant.messages.history(identity, 100, include_deleted=True)
    unversioned = {"version": 1, "tenant_id": ""}
    last = conversation.last_message.model_copy(update={"version": 1})
    return (
        conversation.model_copy(update={**unversioned, "last_message": last}),
        [message.model_copy(update=unversioned) for message in history.items],
    )


async def test_a_conversation_made_by_hand_is_the_same_after_export_and_import(acme, rival, tmp_path):
    identity = await eventful(acme)
    lines = await export_lines(acme, tmp_path / "out.jsonl")
    result = await import_file(rival, tmp_path / "out.jsonl")
    assert (result.imported, result.failed) == (1, 0)
    assert await state_of(rival, identity) == await state_of(acme, identity)
    assert await export_lines(rival, tmp_path / "again.jsonl") == lines
    replayed = await rival.messages.append(
        identity, MessageDocument.user("one", external_id="e-1"), idempotency_key="k-1"
    )
    assert (replayed.replayed, replayed.sequence) == (True, 1)


async def test_conversations_come_in_the_order_of_their_identity_whatever_they_are_called(acme, rival, tmp_path):
    names = ["a", "a:b", "a-b", "a%3Ab", "{a}", "ä", "b" * 256, "a b"]
    for name in names:
        await acme.conversations.create(ConversationDocument.start("u", conversation_id=name))
        await acme.messages.append(name, MessageDocument.user(name))
    await rival.conversations.create(ConversationDocument.start("u", conversation_id="not his"))
    lines = [json.loads(line) for line in await export_lines(acme, tmp_path / "out")]
    assert [line["conversation_id"] for line in lines] == sorted(
        names, key=lambda n: acme.database.identity(n).encode()
    )
    assert all(line["messages"][0]["content"] == line["conversation_id"] for line in lines)


async def test_a_long_conversation_is_exported_whole(acme, tmp_path):
    content = {"conversation_id": "long", "messages": [{"role": "user", "content": str(n)} for n in range(2500)]}
    await import_file(acme, write_file(tmp_path / "f", [content]))
    assert await export_lines(acme, tmp_path / "out") == [dump(content)]


async def test_deleted_conversations_are_left_out(acme, tmp_path):
    identity = await eventful(acme)
    await acme.conversations.create(ConversationDocument.start("u", conversation_id="empty"))
    await acme.conversations.delete(identity)
    assert [json.loads(line)["conversation_id"] for line in await export_lines(acme, tmp_path / "out")] == ["empty"]


async def test_an_incomplete_batch_is_not_shown_and_its_places_are_kept(acme, tmp_path):
    await acme.conversations.create(ConversationDocument.start("u", conversation_id="c"))
    slots = acme.database.collection("messages", "Message")
    batch = {"id": "b", "size": 3, "index": 0}
    cut = {**MessageDocument.user("never shown").to_dict(), "conversation_id": "c", "sequence": 1, "batch": batch}
    await slots.insert(("c", "0000000001"), cut)
    assert json.loads((await export_lines(acme, tmp_path / "out"))[0])["messages"] == []
    await acme.messages.append("c", MessageDocument.user("behind"))
    messages = json.loads((await export_lines(acme, tmp_path / "out"))[0])["messages"]
    assert [message["content"] for message in messages] == ["", "behind"]
    assert "deleted_at" in messages[0]


async def test_an_imported_conversation_that_went_on_is_exported_with_what_was_added(acme, rival, tmp_path):
    content = conversation(5)
    await import_file(acme, write_file(tmp_path / "f", [content]))
    await acme.messages.append("talk-00005", MessageDocument.user("and then"))
    line = json.loads((await export_lines(acme, tmp_path / "out"))[0])
    assert line["messages"][:-1] == content["messages"]
    assert line["messages"][-1].keys() == {"role", "content", "message_id", "created_at"}
    await import_file(rival, tmp_path / "out")
    own = [(m.message_id, m.content) async for m in acme.messages.iterate("talk-00005")]
    assert own == [(m.message_id, m.content) async for m in rival.messages.iterate("talk-00005")]


async def test_a_conversation_that_is_written_to_meanwhile_is_there_as_it_was_at_some_moment(acme, tmp_path):
    names = [f"c{number}" for number in range(40)]
    for name in names:
        await acme.conversations.create(ConversationDocument.start("u", conversation_id=name))

    async def write():
        for turn in range(10):
            await asyncio.gather(*(acme.messages.append(name, MessageDocument.user(str(turn))) for name in names))

    writing = asyncio.create_task(write())
    for number in range(5):
        for line in await export_lines(acme, tmp_path / f"out{number}"):
            texts = [message["content"] for message in json.loads(line)["messages"]]
            assert texts == [str(turn) for turn in range(len(texts))]
    await writing


async def test_nothing_is_left_of_an_export_that_fails(acme, tmp_path):
    await acme.conversations.create(ConversationDocument.start("u", conversation_id="c"))
    slots = acme.database.collection("messages", "Message")
    await slots.insert(("c", "0000000001"), {"conversation_id": "c", "sequence": 1, "message_id": "m"})
    with pytest.raises(CorruptDocumentError), open_output(tmp_path / "out") as output:
        await Exporter(acme.database).run(output)
    assert list(tmp_path.iterdir()) == []


async def test_of_one_user_his_conversations_are_exported_and_nobody_elses(acme, rival, tmp_path):
    names = []
    for number in range(7):
        user = ("u", "u$", "other")[number % 3]
        created = await acme.conversations.create(ConversationDocument.start(user, title="t"))
        await acme.messages.append(created.conversation_id, MessageDocument.user(f"of {user}"))
        names += [created.conversation_id] if user == "u" else []
    await rival.conversations.create(ConversationDocument.start("u"))
    with open_output(tmp_path / "out.jsonl") as output:
        result = await Exporter(acme.database, user_id="u").run(output)
    assert (result.conversations, result.messages) == (3, 3)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert [line["conversation_id"] for line in lines] == sorted(names)
    assert (await import_file(rival, tmp_path / "out.jsonl")).imported == 3
    for user in ("", {"$ne": None}):
        with pytest.raises(ValidationError, match="user_id"):
            Exporter(acme.database, user_id=user)


async def test_what_is_kept_of_the_sessions_of_a_user_is_exported_without_what_lets_one_in(store, tmp_path):
    tenant = f"acme-{uuid.uuid4().hex[:12]}"
    kept = [await store.sessions.start_session(tenant, "u", data={"number": number}) for number in range(3)]
    await store.sessions.start_session(tenant, "other")
    await store.sessions.delete_session(tenant, kept[0].session_id)
    with open_output(tmp_path / "out.jsonl") as output:
        assert await export_sessions(store.sessions, tenant, "u", output) == 2
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert sorted(line["data"]["number"] for line in lines) == [1, 2]
    assert {line["user_id"] for line in lines} == {"u"}
    assert not [each for each in kept if each.session_id in str(lines)]
