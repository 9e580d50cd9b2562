"""What is told of what happens, whoever does it."""

import pytest
from bson import Int64
from sync_support import conversation, nothing_more, short, text, told

from convostore import DeliveryStatus, HistoryLost, Loss, RepositoryError, ValidationError
from convostore.operations.importing import Importer, OnError
from convostore.operations.line_source import LineSource


@pytest.fixture
async def changes(acme):
    async with acme.changes() as changes:
        yield changes


async def test_everything_that_happens_to_a_conversation_is_told_in_its_order(acme, changes):
    cid = await conversation(acme)
    await acme.messages.append(cid, text())
    await acme.messages.append_many(cid, [text(), text(), text()])
    found = await acme.conversations.get_by_id(cid)
    await acme.conversations.update(found.evolve(title="t", metadata={"a": {"b.c": 1}}))
    await acme.conversations.update_conversation_status(cid, "completed")
    await acme.messages.edit(cid, 2, content="other")
    await acme.messages.update_delivery_status(cid, 2, "sent")
    await acme.messages.delete((await acme.messages.get(cid, 1)).id)
    await acme.conversations.delete(cid)
    events = await told(changes, 9)
    assert [short(event) for event in events] == [
        ("ConversationCreated", 1),
        ("MessageAppended", 1, 1),
        ("MessageAppended", 4, 3),
        ("ConversationChanged", 2),
        ("ConversationChanged", 3),
        ("MessageEdited", 2, 2),
        ("DeliveryChanged", 2, DeliveryStatus.SENT),
        ("MessageDeleted", 1, 2, False),
        ("ConversationDeleted", 4, False),
    ]
    assert {(event.tenant_id, event.conversation_id) for event in events} == {("acme", cid)}
    assert events[2].sequences == range(2, 5)
    assert events[3].fields == {"title", "metadata", "version", "updated_at"}
    assert events[5].fields == {"content", "version", "edited_at"}
    assert len({event.cursor for event in events}) == 9
    await nothing_more(changes, acme)


async def test_activity_is_no_change_of_state(store, acme, changes):
    cid = await conversation(acme)
    await acme.messages.append(cid, text())
    await store.mongodb.activity.flush()
    await nothing_more_but(changes, acme, ["ConversationCreated", "MessageAppended"])


async def nothing_more_but(changes, tenant, names):
    assert [type(event).__name__ for event in await told(changes, len(names))] == names
    await nothing_more(changes, tenant)


async def test_what_other_programs_write_is_told_with_the_version_that_they_wrote(raw, acme, changes):
    cid = await conversation(acme, "a:b%{c}")
    await acme.messages.append(cid, text())
    identity = f"acme:{cid.replace('%', '%25').replace(':', '%3A').replace('{', '%7B').replace('}', '%7D')}"
    message = f"{identity}:0000000001"
    stored = await raw.conversations.find_one({"_id": identity})
    await raw.conversations.update_one({"_id": identity}, {"$set": {"metadata.a.b": 1}, "$push": {"tags": "x"}})
    await raw.conversations.update_one({"_id": identity}, [{"$set": {"status": "waiting", "version": Int64(7)}}])
    await raw.conversations.update_one({"_id": identity}, {"$inc": {"x": 1}})
    await raw.conversations.replace_one({"_id": identity}, {**stored, "version": 9})
    await raw.messages.update_one({"_id": message}, {"$set": {"delivery_status": "nonsense"}})
    await raw.messages.update_one({"_id": message}, {"$set": {"content": "x"}, "$unset": {"role": ""}})
    await raw.messages.replace_one({"_id": message}, {"tenant_id": "acme", "content": "y", "version": "3"})
    await raw.messages.delete_one({"_id": message})
    await raw.conversations.update_one({"_id": identity}, {"$unset": {"tenant_id": ""}})
    await raw.conversations.delete_one({"_id": identity})
    await raw.messages.insert_one({"_id": message, "tenant_id": "acme"})
    events = (await told(changes, 13))[2:]
    assert [short(event) for event in events] == [
        ("ConversationChanged", None),
        ("ConversationChanged", 7),
        ("ConversationChanged", None),
        ("ConversationChanged", 9),
        ("DeliveryChanged", 1, None),
        ("MessageEdited", 1, None),
        ("MessageEdited", 1, None),
        ("MessageDeleted", 1, None, True),
        ("ConversationDeleted", None, False),
        ("ConversationDeleted", None, True),
        ("MessageAppended", 1, 1),
    ]
    assert {event.conversation_id for event in events} == {cid}
    assert events[0].fields == {"metadata", "tags"}
    assert events[5].fields == {"content", "role"}
    await nothing_more(changes, acme)


FOREIGN = [
    {"_id": "acme"},
    {"_id": "acme:c:d:e", "tenant_id": "acme"},
    {"_id": "acme:%ff", "tenant_id": "acme"},
    {"_id": "acme:c:1", "tenant_id": "acme"},
    {"_id": "acme:c:000000000\u0661", "tenant_id": "acme"},
    {"_id": "rival:c:0000000001", "tenant_id": "acme"},
    {"_id": "acme:c:0000000001", "tenant_id": "rival"},
    {"_id": "acme:c:0000000002"},
    {"_id": "acme:c:0000000003", "tenant_id": "acme", "kind": "seal"},
    {"_id": "acme:c:0000000004", "tenant_id": "acme", "batch": {"id": "b", "size": 3, "index": 1}},
    {"_id": "acme:c:0000000005", "tenant_id": "acme", "batch": "b"},
    {"_id": 7, "tenant_id": "acme"},
    {"tenant_id": "acme"},
    {"_id": {"acme:c": 1}, "tenant_id": "acme"},
]


async def test_what_is_not_a_message_of_the_tenant_is_not_told(raw, acme, changes):
    await raw.messages.insert_many(FOREIGN)
    # The batch that is none counts as a message of its own, as reading does not look at it either.
    assert short((await told(changes, 1))[0]) == ("MessageAppended", 5, 1)
    await nothing_more(changes, acme)


async def test_a_batch_is_told_with_its_last_member(raw, acme, changes):
    cid = await conversation(acme)
    slots = [
        {"_id": f"acme:{cid}:{n:010d}", "tenant_id": "acme", "batch": {"id": "b", "size": 3, "index": n - 1}}
        for n in (1, 2, 3)
    ]
    await raw.messages.insert_many(slots[:2])
    await nothing_more_but(changes, acme, ["ConversationCreated"])
    await raw.messages.insert_one(slots[2])
    assert short((await told(changes, 1))[0]) == ("MessageAppended", 3, 3)


async def test_an_imported_conversation_is_created_when_it_is_whole(acme, changes, tmp_path):
    file = tmp_path / "talk.jsonl"
    file.write_text('{"conversation_id": "talk", "messages": [{"role": "user", "content": "a"}]}\n')
    with LineSource(file) as source:
        await Importer(acme.database, OnError.STOP).run(source)
    assert [short(event) for event in await told(changes, 2)] == [("MessageAppended", 1, 1), ("ConversationCreated", 1)]
    await nothing_more(changes, acme)


async def test_nothing_is_told_of_a_unit_of_work_before_it_is_committed_or_if_it_is_undone(store, acme, changes):
    async def undone():
        async with store.transaction():
            await conversation(acme, "undone")
            raise LookupError

    with pytest.raises(LookupError):
        await undone()
    async with store.transaction():
        cid = await conversation(acme, "done")
        await acme.messages.append(cid, text())
        assert await changes.batch(0.5) == []
    events = await told(changes, 2)
    assert [(event.conversation_id, *short(event)) for event in events] == [
        ("done", "ConversationCreated", 1),
        ("done", "MessageAppended", 1, 1),
    ]
    await nothing_more(changes, acme)


async def test_a_follower_may_begin_in_a_unit_of_work_and_is_no_part_of_it(store, acme):
    async with store.transaction():
        await conversation(acme)
        async with acme.changes() as changes:
            assert await changes.batch(0.3) == []


async def test_nothing_of_another_tenant_is_told_not_even_in_a_cursor(store, acme, rival):
    async with acme.changes() as changes, rival.changes() as others:
        before = changes.cursor
        await conversation(rival, "also-of-the-rival")
        await conversation(rival, "of-the-rival")
        assert {event.tenant_id for event in await told(others, 2)} == {"rival"}
        assert await changes.batch(0.3) == []
        assert before < changes.cursor, "a quiet follower gets on all the same"
        for cursor in (before, changes.cursor):
            assert b"of-the-rival" not in bytes.fromhex(cursor)
        # A tenant whose name begins like another's, or has a meaning in an identity, is another.
        for name in ("acme:", "acme%", "acme;", "acm"):
            await conversation(store.tenant(name))
        async with acme.changes(before) as again:
            await nothing_more(again, acme)
        await told(changes, 1)
        await nothing_more(changes, acme)


async def test_the_end_of_a_collection_is_told(raw, acme, changes):
    await conversation(acme)
    await raw.drop_collection("messages")
    events = await told(changes, 2)
    assert isinstance(events[1], HistoryLost)
    assert (events[1].reason, events[1].tenant_id) == (Loss.DROPPED, "")
    await raw.client.drop_database(raw.name)
    lost = await told(changes, 1)
    assert short(lost[0]) == ("HistoryLost", "dropped")
    await nothing_more(changes, acme)


async def test_a_large_document_is_no_large_event(acme, changes):
    cid = await conversation(acme)
    await acme.messages.append(cid, text("x" * (16 * 1024 * 1024 - 500)))
    await acme.messages.edit(cid, 1, content="y" * (16 * 1024 * 1024 - 500))
    assert [short(event)[0] for event in await told(changes, 3)][1:] == ["MessageAppended", "MessageEdited"]


NO_CURSORS = ["", "x", "82", "82" + "0" * 19, "82" + "g" * 20, 7, b"82", "82" + "00" * 5000]


async def test_what_cannot_be_a_cursor_is_refused_before_anything_is_sent(acme):
    for after in NO_CURSORS:
        with pytest.raises(ValidationError, match="after: must be the cursor") as caught:
            acme.changes(after)
        assert caught.value.field == "after"


async def test_a_tenant_has_to_be_named(store):
    with pytest.raises(ValidationError, match="tenant_id"):
        store.changes("")
    with pytest.raises(ValidationError, match="tenant_id"):
        store.changes(None)


async def test_a_server_that_tells_nothing_is_an_error_and_no_wait(store, acme, monkeypatch):
    monkeypatch.setattr("convostore.sync.feed.pipeline", lambda *_: [{"$nonsense": 1}])
    with pytest.raises(RepositoryError, match="refused watch"):
        await anext(acme.changes())
    async with acme.changes("82" + "6B0769A5" + "00000001" + "2B0229296E04") as changes:
        with pytest.raises(RepositoryError, match="refused watch"):
            await anext(changes)
