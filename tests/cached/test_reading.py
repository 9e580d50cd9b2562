"""Conversations through the cache, from two processes, as far as Redis and MongoDB can tell."""

import asyncio
import uuid
from contextlib import suppress

import pytest
from cached_support import TENANT, conversation, eventually, loads, text, usable, warm

from convostore import (
    ConcurrencyError,
    ConversationDocument,
    ConversationStatus,
    ConvoStore,
    EntityNotFoundError,
    ValidationError,
)
from convostore.operations.repair import Repair


class UndoneError(Exception):
    """Ends a unit of work."""


@pytest.fixture
async def cid(one):
    return await conversation(one)


async def test_what_is_cached_is_not_read_from_the_database(one, cid):
    await warm(one, cid)
    before = loads(one)
    for _ in range(5):
        assert (await one.tenant(TENANT).conversations.get_by_id(cid)).conversation_id == cid
        assert await one.tenant(TENANT).conversations.exists(cid)
    assert loads(one) == before


async def test_it_is_off_unless_asked_for(store):
    assert store.mongodb.cached is None
    assert await store.tenant(TENANT).conversations.exists(await conversation(store))


async def test_it_needs_a_redis(convostore_settings):
    with pytest.raises(ValidationError, match="redis_url"):
        async with ConvoStore.open(convostore_settings, cache_conversations=True):
            pass


async def test_what_is_not_there_is_not_kept(one, other):
    cid = uuid.uuid4().hex
    await usable(other)
    assert await other.tenant(TENANT).conversations.get_by_id(cid) is None
    await conversation(one, cid)
    assert await other.tenant(TENANT).conversations.exists(cid)


async def test_another_process_reads_what_an_update_has_written(one, other, cid):
    read = await warm(other, cid)
    await one.tenant(TENANT).conversations.update(read.evolve(title="new"))
    assert (await other.tenant(TENANT).conversations.get_by_id(cid)).title == "new"


async def test_another_process_reads_a_new_status(one, other, cid):
    await warm(other, cid)
    await one.tenant(TENANT).conversations.update_conversation_status(cid, ConversationStatus.COMPLETED)
    assert (await other.tenant(TENANT).conversations.get_by_id(cid)).status is ConversationStatus.COMPLETED


async def test_another_process_sees_that_a_conversation_is_gone(one, other, cid):
    await warm(other, cid)
    assert await one.tenant(TENANT).conversations.delete(cid)
    assert await other.tenant(TENANT).conversations.get_by_id(cid) is None
    assert not await other.tenant(TENANT).conversations.exists(cid)


async def test_a_process_reads_the_activity_of_its_own_appends(one, cid):
    await warm(one, cid)
    for number in range(1, 4):
        await one.tenant(TENANT).messages.append(cid, text())
        assert (await one.tenant(TENANT).conversations.get_by_id(cid)).message_count == number


async def test_another_process_reads_the_activity_that_was_written(one, other, cid):
    await warm(other, cid)
    await one.tenant(TENANT).messages.append(cid, text("hello"))
    await one.mongodb.activity.flush()
    assert (await other.tenant(TENANT).conversations.get_by_id(cid)).last_message.preview == "hello"
    await one.tenant(TENANT).messages.edit(cid, 1, content="edited")
    await one.mongodb.activity.flush()
    assert (await other.tenant(TENANT).conversations.get_by_id(cid)).last_message.preview == "edited"


async def test_activity_is_pending_until_the_cache_is_told(behind, other, proxy, cid):
    await warm(other, cid)
    proxy.cut_before(1, times=1000)
    await behind.tenant(TENANT).messages.append(cid, text("hello"))
    await behind.mongodb.activity.flush()
    assert behind.mongodb.cached.epoch.raised
    await eventually(lambda: _activity(other, cid, 1))
    proxy.heal()


async def _activity(store, cid, count):
    return (await store.tenant(TENANT).conversations.get_by_id(cid)).message_count == count


async def test_fresh_reads_past_the_cache(one, store, cid):
    await warm(one, cid)
    # The other store stands for a program that tells nobody.
    await store.tenant(TENANT).conversations.update_with(cid, lambda it: it.evolve(title="elsewhere"))
    conversations = one.tenant(TENANT).conversations
    assert (await conversations.get_by_id(cid)).title is None, "it is a cache"
    assert (await conversations.get_by_id(cid, fresh=True)).title == "elsewhere"
    assert (await conversations.get_by_conversation_id(cid, fresh=True)).title == "elsewhere"
    await store.tenant(TENANT).conversations.delete(cid)
    assert await conversations.exists(cid)
    assert not await conversations.exists(cid, fresh=True)


async def test_update_with_changes_the_newest(one, store, cid):
    await warm(one, cid)
    await store.tenant(TENANT).conversations.update_with(cid, lambda it: it.evolve(title="elsewhere"))
    changed = await one.tenant(TENANT).conversations.update_with(cid, lambda it: it.evolve(assignee="me"))
    assert (changed.title, changed.version) == ("elsewhere", 3)


async def test_who_is_told_of_a_conflict_reads_what_has_caused_it(one, store, cid):
    read = await warm(one, cid)
    await store.tenant(TENANT).conversations.update_with(cid, lambda it: it.evolve(title="elsewhere"))
    conversations = one.tenant(TENANT).conversations
    with pytest.raises(ConcurrencyError):
        await conversations.update(read.evolve(title="mine"))
    assert (await conversations.get_by_id(cid)).title == "elsewhere"


async def test_what_cannot_be_right_is_refused_before_anything_is_told(one):
    conversations = one.tenant(TENANT).conversations
    with pytest.raises(ValidationError, match="entity"):
        await conversations.update("no conversation")
    for call in (conversations.get_by_id, conversations.exists, conversations.delete):
        with pytest.raises(ValidationError, match="conversation_id"):
            await call("")
    with pytest.raises(EntityNotFoundError):
        await conversations.update(ConversationDocument.start(user_id="u"))


async def test_the_synchronizer_tells_what_other_programs_write(one, store, cid):
    await warm(one, cid)
    synchronizer = one.synchronizer()
    await synchronizer.run_once()
    await warm(one, cid)
    await store.tenant(TENANT).conversations.update_with(cid, lambda it: it.evolve(title="elsewhere"))
    await synchronizer.run_once()
    assert (await one.tenant(TENANT).conversations.get_by_id(cid)).title == "elsewhere"


async def test_a_write_goes_on_without_a_caller_who_was_cancelled_and_is_told(one, other, store, cid):
    async def hold():
        with suppress(UndoneError):
            async with store.transaction():
                await store.tenant(TENANT).conversations.update(read.evolve(title="undone"))
                held.set()
                await release.wait()
                raise UndoneError

    read, held, release = await warm(other, cid), asyncio.Event(), asyncio.Event()
    holding = asyncio.create_task(hold())
    await held.wait()
    writing = asyncio.create_task(one.tenant(TENANT).conversations.update(read.evolve(title="new")))
    await asyncio.sleep(0.2)  # a write to the same document waits for the end of the transaction
    writing.cancel()
    await asyncio.wait([writing], timeout=5)
    assert writing.cancelled()
    assert (await warm(other, cid)).title is None
    release.set()
    await asyncio.gather(holding, *one.mongodb.cached._writes)
    assert (await other.tenant(TENANT).conversations.get_by_id(cid)).title == "new"


async def test_a_cancelled_write_is_told_all_the_same(one, other, cid):
    for number in range(30):
        read = await warm(other, cid)
        writing = asyncio.create_task(one.tenant(TENANT).conversations.update(read.evolve(title=f"{number}")))
        for _ in range(number):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        await asyncio.gather(*one.mongodb.cached._writes, return_exceptions=True)
        fresh = await other.tenant(TENANT).conversations.get_by_id(cid, fresh=True)
        assert (await other.tenant(TENANT).conversations.get_by_id(cid)).version == fresh.version


async def test_what_is_repaired_is_read_at_once(one, other, cid):
    acme = one.tenant(TENANT)
    await acme.messages.append(cid, text("one"))
    await one.mongodb.activity.flush()
    await other.mongodb.database.conversations.update_one({}, {"$set": {"message_count": 7}})
    await warm(other, cid)
    assert (await other.tenant(TENANT).conversations.get_by_id(cid)).message_count == 7
    assert (await Repair(one.mongodb).run()).count == 1
    assert (await other.tenant(TENANT).conversations.get_by_id(cid)).message_count == 1
