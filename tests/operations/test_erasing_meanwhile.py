"""Nothing brings back what is erased: no late append, load, outbox, nor an import that is under way."""

import asyncio
import uuid

import pytest
from chat_lines import write_file
from erasing_support import claim, documents, erasure, talk
from test_importing import import_file

from convostore import ConversationDocument, ConvoStore, EntityNotFoundError, ErasureCounts, MessageDocument
from convostore.gateways.bulk_collection import BulkCollection
from convostore.gateways.erasure_marks import COLLECTION, Erased, ErasureMarks
from convostore.models.keys import digest
from convostore.operations.burying import Burying
from convostore.operations.claiming import Claiming
from convostore.operations.mongo_erasing import MongoErasing
from convostore.repositories.entity_spaces import CONVERSATION
from convostore.repositories.message_log import MessageLog
from convostore.sync.outbox import Effect, Outbox


@pytest.fixture
def name():
    return f"acme-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def tenant(store, name):
    return store.tenant(name)


async def holds(store, *texts):
    """Say which texts stand anywhere in the database."""
    found = str(await documents(store))
    return [text for text in texts if text in found]


@pytest.mark.parametrize("user", ["u", None])
async def test_late_appends_of_whoever_remembers_the_end_of_a_log_are_refused(
    store, tenant, name, user, convostore_settings, convostore_redis_settings
):
    talks = [await talk(tenant, "u", messages=["one", "two"]) for _ in range(3)]
    async with ConvoStore.open(convostore_settings, convostore_redis_settings) as other:
        theirs = other.tenant(name)
        for each in talks:
            await theirs.messages.append(each, MessageDocument.user("three"))
        assert (await erasure(store, tenant, user).run()).is_complete
        for each in talks:
            with pytest.raises(EntityNotFoundError):
                await theirs.messages.append(each, MessageDocument.user("late"))
            with pytest.raises(EntityNotFoundError):
                await theirs.messages.append_many(each, [MessageDocument.user("late")] * 3)
            with pytest.raises(EntityNotFoundError):
                await theirs.messages.edit(each, 1, content="late")
    assert await holds(store, "one", "two", "three", "late") == []


async def test_writers_at_full_speed_lose_the_race_wholly(store, tenant):
    """Whatever was acknowledged to them, nothing is left when all is over, for each append stood before a seal."""
    talks, erased = [await talk(tenant, "u") for _ in range(20)], asyncio.Event()

    async def write(each):
        appended = 0
        while True:
            try:
                await tenant.messages.append(each, MessageDocument.user("secret"))
                appended += 1
            except EntityNotFoundError:
                return appended

    writers = [asyncio.create_task(write(each)) for each in talks]
    await asyncio.sleep(0.1)
    report = await erasure(store, tenant, "u").run()
    erased.set()
    assert min(await asyncio.gather(*writers)) > 0
    assert report.after == ErasureCounts()
    await store.mongodb.activity.flush()
    assert await holds(store, "secret") == []


async def test_what_is_being_loaded_for_the_cache_does_not_come_into_it(store, tenant, name):
    cid, begun, go = await talk(tenant, "u"), asyncio.Event(), asyncio.Event()

    async def load():
        found = await tenant.conversations.get_by_id(cid)
        begun.set()
        await go.wait()
        return found

    loading = asyncio.create_task(store.cache.get_or_load(name, CONVERSATION, cid, load))
    await begun.wait()
    assert (await erasure(store, tenant, "u").run()).is_complete
    go.set()
    await loading
    assert await store.cache.get(name, CONVERSATION, cid) is None


async def test_the_outbox_brings_nothing_back_and_is_empty_of_him(store, tenant, name):
    await talk(tenant, "u")
    for effect in (Effect.CLOSE_CONVERSATIONS, Effect.ERASE_CONVERSATIONS, Effect.REVOKE_SESSIONS):
        await Outbox(store.mongodb).add(name, [effect], user_id="u")
    kept = await Outbox(store.mongodb).add(name, [Effect.REVOKE_SESSIONS], user_id="other")
    taken = await store.dispatcher._entries.take(60)  # one is being carried out
    await erasure(store, tenant, "u").run()
    await store.dispatcher._deliver(taken)
    assert [entry["_id"] for entry in (await documents(store))["outbox"]] == [kept]
    assert await store.dispatcher.run_once() == 1
    assert await tenant.conversations.count() == 0


@pytest.mark.parametrize("often", [1, 99])
async def test_what_is_created_meanwhile_goes_too_or_is_reported(store, tenant, monkeypatch, often):
    """Somebody begins a conversation after all were deleted: once, or each time, and then there is one more."""
    await talk(tenant, "u")
    bury, times = MongoErasing._bury_claims, []

    async def beginning(erasing):
        if len(times) < often:
            times.append(await talk(tenant, "u"))
        await bury(erasing)

    with monkeypatch.context() as patched:
        patched.setattr(MongoErasing, "_bury_claims", beginning)
        report = await erasure(store, tenant, "u").run()
    left = 0 if often == 1 else 1
    assert (report.after, report.is_complete) == (ErasureCounts(conversations=left, messages=left), not left)
    assert (await erasure(store, tenant, "u").run()).is_complete


def lines(user, *numbers):
    return [
        {
            "conversation_id": f"{user}-{number}", "user_id": user, "metadata": {"k": f"about {user}"},
            "messages": [{"role": "user", "content": f"by {user}"}] * 3,
        }
        for number in numbers
    ]  # fmt: skip


@pytest.mark.parametrize("whom", ["u", None])
@pytest.mark.parametrize("step", ["_claim", "_without_erased", "_insert", "_problems"])
async def test_a_running_import_brings_nothing_back(store, tenant, tmp_path, monkeypatch, step, whom):
    """It stands still before a step of its first portion while the erasure begins and ends."""
    original, stood = getattr(Claiming, step if step != "_problems" else "_insert"), []

    async def standing(claiming, *arguments):
        if step == "_problems":  # after its messages were stored, before it is finished
            found = await original(claiming, *arguments)
        if not stood:
            stood.append(await erasure(store, tenant, whom).run())
        return found if step == "_problems" else await original(claiming, *arguments)

    monkeypatch.setattr(Claiming, step if step != "_problems" else "_insert", standing)
    monkeypatch.setattr("convostore.operations.importing.CHUNK_MESSAGES", 12)
    file = write_file(tmp_path / "in", [*lines("u", 1, 2), *lines("other", 1), *lines("u", *range(3, 30))])
    result = await import_file(tenant, file, "skip")
    assert stood[0].is_complete
    expected = 0 if whom is None else 1
    assert (result.imported, result.failed) == (expected, 30 - expected)
    assert {problem.reason.partition(":")[0] for problem in result.problems} == {"user_id"}
    assert await holds(store, "by u", "about u") == []
    assert await tenant.conversations.count() == expected
    assert await store.mongodb.database["conversations"].count_documents({"importing": {"$exists": True}}) == 0
    assert (await erasure(store, tenant, whom).look()).total == 0
    again = await import_file(tenant, file, "skip")  # a new one, of somebody who wants it: what there was stays refused
    assert again.failed + again.imported + again.unchanged == 30
    assert again.unchanged == expected


async def test_what_a_dead_import_has_under_way_finds_no_place(store, tenant, name):
    """Its client was killed; the server, or a proxy, carries out the rest of its commands later."""
    claimed = await claim(store, tenant, "u", messages=2500, stored=2)
    empty = await claim(store, tenant, "v", messages=0, stored=0)
    assert (await erasure(store, tenant, "u").run()).before == ErasureCounts(imports=1, messages=2)
    await erasure(store, tenant, "v").run()
    late = [{"_id": f"{number:010d}", "content": "late", "sequence": number} for number in range(1, 2501)]
    messages, places = (BulkCollection(store.mongodb, each, name) for each in ("messages", "conversations"))
    assert len((await messages.insert_below({(claimed,): late})).occupied) == 2500
    assert await places.finish({(claimed,): "digest"}) == 0
    assert await places.claim({(claimed,): {}, (empty,): {}}) == {(claimed,), (empty,)}
    assert await holds(store, "late", "secret") == []


async def test_an_import_cannot_finish_what_is_being_erased_nor_is_erased_what_it_has_finished(
    store, tenant, name, tmp_path, monkeypatch
):
    claimed, places = await claim(store, tenant, "u"), BulkCollection(store.mongodb, "conversations", name)
    close, finished = MessageLog.close, []

    async def finishing(log, conversation_id):
        finished.append(await places.finish({(claimed,): "digest"}))
        await close(log, conversation_id)

    with monkeypatch.context() as patched:
        patched.setattr(MessageLog, "close", finishing)
        assert (await erasure(store, tenant, "u").run()).is_complete
    assert finished == [0]
    await import_file(tenant, write_file(tmp_path / "in", lines("v", 1)))
    await Burying(store.mongodb, name).bury_claim({"_id": tenant.database.identity("v-1"), "message_count": 9})
    assert (await tenant.messages.append("v-1", MessageDocument.user("next"))).sequence == 4


async def test_an_import_that_begins_behind_an_erasure_is_not_refused(store, tenant, tmp_path):
    await talk(tenant, "u")
    await erasure(store, tenant, "u").run()
    await erasure(store, tenant).run()
    result = await import_file(tenant, write_file(tmp_path / "in", lines("u", 1, 2)))
    assert (result.imported, result.failed) == (2, 0)


async def test_marks_tell_who_was_erased_since_a_number_and_name_nobody(store, name):
    marks, others = ErasureMarks(store.mongodb, name), ErasureMarks(store.mongodb, f"{name}2")
    start = await marks.number()
    assert (start, await marks.since(start)) == (0, Erased())
    await marks.make("u")
    later = await marks.number()
    await marks.make("v")
    assert [(await marks.since(start)).includes(user) for user in ("u", "v", "w")] == [True, True, False]
    assert [(await marks.since(later)).includes(user) for user in ("u", "v", "w")] == [False, True, False]
    await marks.make("u")
    assert (await marks.since(later)).includes("u")
    last = await marks.number()
    await marks.make()
    assert (await marks.since(last)).includes("w")
    assert await marks.since(await marks.number()) == Erased()
    assert (await others.number(), await others.since(0)) == (0, Erased())
    kept = await store.mongodb.database[COLLECTION].find({}).to_list()
    assert {each["_id"] for each in kept} == {name, f"{name}:{digest('u')}", f"{name}:{digest('v')}"}


async def test_marks_of_long_ago_are_removed(store, name):
    marks = ErasureMarks(store.mongodb, name)
    await marks.make("u")
    collection = store.mongodb.database[COLLECTION]
    await collection.update_many({"at": {"$exists": True}}, [{"$set": {"at": {"$subtract": ["$at", 31 * 86_400_000]}}}])
    await marks.make("v")
    assert {each["_id"] for each in await collection.find({}).to_list()} == {name, f"{name}:{digest('v')}"}


async def test_a_conversation_created_while_its_user_is_erased_is_somebodys_new_one(store, tenant):
    await erasure(store, tenant, "u").run()
    created = await tenant.conversations.create(ConversationDocument.start("u"))
    await tenant.messages.append(created.conversation_id, MessageDocument.user("back again"))
    assert (await tenant.conversations.get_by_id(created.conversation_id)).message_count == 1
