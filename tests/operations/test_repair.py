"""What follows from something else is made right again, what was left unfinished is finished, and nothing else."""

import asyncio
from datetime import timedelta

import pytest
from chat_lines import conversation, write_file
from test_importing import claim, counts, import_file

from convostore import ConversationDocument, EntityNotFoundError, MessageDocument, ValidationError
from convostore.gateways.bulk_collection import BulkCollection
from convostore.models.types import utc_now
from convostore.operations import repair as repairing
from convostore.operations.claiming import Claiming
from convostore.operations.doctor import Doctor, Level
from convostore.operations.log_walk import LogWalk
from convostore.operations.repair import Ailment, Repair

TOLD = ("message_count", "last_message", "last_activity_at")


def cases(report):
    return {str(ailment): tally.count for ailment, tally in report.cases.items() if tally.count}


async def stored_conversations(store):
    await store.mongodb.activity.flush()
    found = await store.mongodb.database["conversations"].find({}).sort("_id", 1).to_list()
    return {each["_id"]: each for each in found}


async def everything(store):
    messages = await store.mongodb.database["messages"].find({}).sort("_id", 1).to_list()
    return await stored_conversations(store), messages


async def talk(tenant, name, *messages):
    await tenant.conversations.create(ConversationDocument.start("u", conversation_id=name))
    for message in messages:
        await tenant.messages.append(name, message)
    return f"{tenant.tenant_id}:{name}"


@pytest.fixture
async def told(store, acme, rival):
    """What conversations of every kind tell of their messages."""
    start = utc_now() - timedelta(minutes=1)
    for tenant in (acme, rival):
        await talk(tenant, "empty")
        await talk(tenant, "short", MessageDocument.user("ü" * 300), MessageDocument.assistant("🙂" * 130))
    await talk(acme, "a:b%", MessageDocument.user("late", created_at=start), MessageDocument.user("early"))
    await talk(acme, "batch", MessageDocument.user("one"))
    await acme.messages.append_many("batch", [MessageDocument.user(f"{n}") for n in range(5)])
    await talk(acme, "edited", MessageDocument.user("one"), MessageDocument.user("two"))
    await acme.messages.edit("edited", 2, content="zwei")
    await talk(acme, "blanked", MessageDocument.user("one"), MessageDocument.user("two"))
    await acme.messages.delete(MessageDocument.identify("blanked", 2))
    await talk(
        acme, "soon", MessageDocument.user("now"), MessageDocument.user("x", created_at=start.replace(year=9000))
    )
    await talk(acme, "wordless", MessageDocument.assistant("", payload={"calls": [1]}))
    await cut_short(acme, "wordless", 2)
    return {key: {name: each.get(name) for name in TOLD} for key, each in (await stored_conversations(store)).items()}


async def cut_short(tenant, name, first):
    """Leave what a crash in the middle of a batch of five leaves."""
    slots = tenant.database.collection("messages", "Message")
    for index in range(3):
        message = MessageDocument.user("never shown").to_dict()
        message |= {"conversation_id": name, "sequence": first + index, "batch": {"id": "b", "size": 5, "index": index}}
        await slots.insert((name, f"{first + index:010d}"), message)


WRONG = {
    "lost": [
        {"$set": {"message_count": 0, "last_activity_at": utc_now().replace(year=2020)}},
        {"$unset": "last_message"},
    ],
    "behind": [{"$set": {"message_count": 0}}],
    "ahead": [{"$set": {"message_count": 99, "last_message.sequence": 99}}],
    "other": [{"$set": {"last_message.preview": "something else"}}],
    "nonsense": [{"$set": {"last_message": "nonsense"}}],
}


@pytest.mark.parametrize("portion", [1, 20_000])
async def test_activity_is_made_anew_as_the_appends_had_made_it(store, told, monkeypatch, portion):
    monkeypatch.setattr(repairing, "LogWalk", lambda administration: LogWalk(administration, portion))
    monkeypatch.setattr(repairing, "_TOGETHER", 4)
    assert (await Repair(store.mongodb).plan()).count == 0
    for kind, change in WRONG.items():
        with_messages = {"message_count": {"$gt": 0}}
        await store.mongodb.database["conversations"].update_many(with_messages, change)
        planned = await Repair(store.mongodb).plan()
        done = await Repair(store.mongodb).run()
        assert cases(planned) == cases(done) == {"activity": 8}, kind
        found = await stored_conversations(store)
        lowered = "acme:soon"  # when its second message was appended nobody can tell any more
        for key, expected in told.items():
            seen = {name: found[key].get(name) for name in TOLD}
            if key == lowered:
                assert seen["last_activity_at"] <= expected["last_activity_at"]
                seen["last_activity_at"] = expected["last_activity_at"]
            assert seen == expected, (kind, key)
            assert found[key]["version"] == 1
        assert (await Repair(store.mongodb).plan()).count == 0


async def test_a_conversation_whose_messages_are_gone_tells_of_none_and_goes_on(store, acme):
    await talk(acme, "lost", MessageDocument.user("one"), MessageDocument.user("two"))
    await store.mongodb.activity.flush()
    await store.mongodb.database["messages"].delete_many({})
    assert cases(await Repair(store.mongodb).run()) == {"activity": 1}
    found = await acme.conversations.get_by_id("lost")
    assert (found.message_count, found.last_message) == (0, None)


async def test_a_repair_undoes_no_append_that_comes_in_its_middle(store, acme, monkeypatch):
    """At each look that the repair takes somebody appends, and has told of it before the repair goes on."""
    await talk(acme, "busy", MessageDocument.user("one"))
    await store.mongodb.activity.flush()
    looks, look = 0, LogWalk.log

    async def looked(walk, identity):
        nonlocal looks
        looks += 1
        before = await append()
        summary = await look(walk, identity)
        after = await append()
        assert after == before + 1
        return summary

    async def append():
        sent = await acme.messages.append("busy", MessageDocument.user("and another one"))
        await store.mongodb.activity.flush()
        return sent.sequence

    monkeypatch.setattr(LogWalk, "log", looked)
    for value in (99, 0):
        change = {"$set": {"message_count": value, "last_message.sequence": value}}
        await store.mongodb.database["conversations"].update_one({}, change)
        await Repair(store.mongodb).run()
        found = await acme.conversations.get_by_id("busy")
        count = await acme.messages.count({"conversation_id": "busy"})
        assert found.message_count in (count, 99)  # changed meanwhile, it was left as it was
        assert found.last_message.sequence == found.message_count
    assert looks > 2


async def test_what_another_has_corrected_meanwhile_is_not_lowered_again(store, acme, monkeypatch):
    await talk(acme, "c", MessageDocument.user("one"))
    await store.mongodb.activity.flush()
    conversations, look, told = store.mongodb.database["conversations"], LogWalk.log, []

    async def overtaken(walk, identity):
        found = await look(walk, identity)
        told.append((await conversations.find_one({}))["message_count"])
        if len(told) == 2:  # the first look is that of the plan
            await conversations.update_one({}, {"$set": {"message_count": 2}})
        return found

    monkeypatch.setattr(LogWalk, "log", overtaken)
    await conversations.update_one({}, {"$set": {"message_count": 99}})
    await Repair(store.mongodb).run()
    assert told == [99, 99, 2]


async def test_an_append_between_two_looks_is_no_ailment(store, acme, monkeypatch):
    await talk(acme, "c", MessageDocument.user("one"))
    find = LogWalk.find_conversations

    async def overtaken(walk, identities):
        await acme.messages.append("c", MessageDocument.user("two"))
        await store.mongodb.activity.flush()
        return await find(walk, identities)

    monkeypatch.setattr(LogWalk, "find_conversations", overtaken)
    assert (await Repair(store.mongodb).plan()).count == 0


async def test_repairs_and_writers_at_the_same_time_end_with_what_is_true(store, acme):
    names = [f"c{number}" for number in range(8)]
    for name in names:
        await talk(acme, name)
    done = False

    async def write(name):
        for number in range(40):
            await acme.messages.append(name, MessageDocument.user(f"{number}"))

    async def disturb():
        while not done:
            change = {"$set": {"message_count": 1000, "last_message": {"sequence": 1000}}}
            await store.mongodb.database["conversations"].update_many({}, change)
            await Repair(store.mongodb).run()

    disturbing = asyncio.create_task(disturb())
    await asyncio.gather(*map(write, names))
    done = True
    await disturbing
    await store.mongodb.activity.flush()
    found = [await acme.conversations.get_by_id(name) for name in names]
    assert [(each.message_count, each.last_message.sequence, each.last_message.preview) for each in found] == [
        (40, 40, "39")
    ] * 8


async def test_deletions_are_finished_and_orphans_are_swept(store, acme, rival):
    await talk(rival, "kept", MessageDocument.user("rival's"))
    for name in ("unsealed", "unblanked", "orphan", "never-sealed"):
        await talk(acme, name, *[MessageDocument.user("secret")] * (name != "never-sealed"))
    await store.mongodb.activity.flush()
    conversations = store.mongodb.database["conversations"]
    tombstone = [{"$replaceWith": {"_id": "$_id", "version": 2, "deleted_at": "$$NOW"}}]
    for name in ("unsealed", "never-sealed"):
        await conversations.update_one({"_id": f"acme:{name}"}, tombstone)
    await acme.conversations.delete("unblanked")
    await store.mongodb.database["messages"].update_one(
        {"_id": "acme:unblanked:0000000001"}, {"$set": {"content": "secret"}, "$unset": {"kind": "", "purge_at": ""}}
    )
    await conversations.delete_one({"_id": "acme:orphan"})
    expected = {"orphans": 1, "unsealed": 2, "contents": 1}
    before = await everything(store)
    assert cases(await Repair(store.mongodb).plan()) == expected
    assert await everything(store) == before
    assert cases(await Repair(store.mongodb).run()) == expected
    assert (await Repair(store.mongodb).run()).count == 0
    left = await store.mongodb.database["messages"].find({"content": {"$exists": True}}).to_list()
    assert [message["_id"] for message in left] == ["rival:kept:0000000001"]
    findings = [finding async for finding in Doctor(store.mongodb.administration, 0).examine()]
    assert {finding.level for finding in findings} == {Level.OK}
    for name in ("unsealed", "unblanked", "orphan", "never-sealed"):
        with pytest.raises(EntityNotFoundError):
            await acme.messages.append(name, MessageDocument.user("too late"))


async def test_what_is_created_in_the_place_of_an_orphan_is_left_alone(store, acme, monkeypatch):
    await talk(acme, "orphan", MessageDocument.user("one"))
    await store.mongodb.activity.flush()
    await store.mongodb.database["conversations"].delete_many({})
    bury, log = BulkCollection.claim, Ailment.ORPHANS

    async def overtaken(places, claims):
        await acme.conversations.create(ConversationDocument.start("u", conversation_id="orphan"))
        return await bury(places, claims)

    monkeypatch.setattr(BulkCollection, "claim", overtaken)
    assert cases(await Repair(store.mongodb).run()) == {log: 1}
    assert (await acme.messages.append("orphan", MessageDocument.user("two"))).sequence == 2


async def test_abandoned_imports_are_removed_by_age_and_can_be_imported_again(store, acme, tmp_path):
    await claim(acme, conversation(1))
    await claim(acme, conversation(2))
    slots = acme.database.collection("messages", "Message")
    message = {**MessageDocument.user("half").to_dict(), "conversation_id": "talk-00001", "sequence": 1}
    await slots.insert(("talk-00001", "0000000001"), message)
    conversations = store.mongodb.database["conversations"]
    await conversations.update_one({"_id": "acme:talk-00001"}, {"$set": {"at": utc_now() - timedelta(hours=3)}})
    assert (await Repair(store.mongodb).plan()).count == 0
    assert (await Repair(store.mongodb, timedelta(hours=4)).plan()).count == 0
    assert cases(await Repair(store.mongodb, timedelta(hours=2)).run()) == {"claims": 1}
    assert await counts(store) == (1, 0)
    places = BulkCollection(store.mongodb, "conversations", "acme")
    assert not await places.condemn(("talk-00002",), utc_now() - timedelta(hours=2))
    done = await import_file(acme, write_file(tmp_path / "f", [conversation(1), conversation(2)]))
    assert (done.imported, done.failed) == (2, 0)
    with pytest.raises(ValidationError, match="claims_older_than"):
        Repair(store.mongodb, timedelta(minutes=59))


async def test_an_import_learns_that_it_was_taken_for_abandoned(store, acme, tmp_path, monkeypatch):
    insert = Claiming._insert

    async def overtaken(claiming, claimed, outcome):
        entered = await insert(claiming, claimed, outcome)
        await store.mongodb.database["conversations"].update_one(
            {"_id": "acme:talk-00001"}, {"$set": {"at": utc_now() - timedelta(hours=3)}}
        )
        await Repair(store.mongodb, timedelta(hours=2)).run()
        return entered

    monkeypatch.setattr(Claiming, "_insert", overtaken)
    done = await import_file(acme, write_file(tmp_path / "f", [conversation(1), conversation(2)]))
    assert (done.imported, done.unchanged, done.failed) == (1, 0, 1)
    assert "abandoned" in done.problems[0].reason
    assert not await acme.messages.count({"conversation_id": "talk-00001"})


async def test_what_others_have_put_into_the_database_stops_no_repair(store, acme):
    await talk(acme, "right", MessageDocument.user("one"))
    await store.mongodb.activity.flush()
    messages = store.mongodb.database["messages"]
    strange = {"content": 5, "created_at": "today", "kind": None, "batch": {"size": "x", "index": 2}}
    slots = acme.database.collection("messages", "Message")
    odd = {**MessageDocument.user("x").to_dict(), "conversation_id": "odd", "sequence": 1, "content": {"a": 1}}
    await slots.insert(("odd", "0000000001"), odd)
    await messages.insert_many([{"_id": "zz", **strange}, {"_id": "acme:right:0000000002", "tenant_id": 3, **strange}])
    await store.mongodb.database["conversations"].update_one({}, {"$set": {"message_count": 7}})
    assert cases(await Repair(store.mongodb).run()) == {"activity": 1, "orphans": 1}
    assert (await acme.conversations.get_by_id("right")).message_count == 1
