"""What one store must tell the other happens once the write is known, whatever is away meanwhile; and never before."""

import asyncio
import os
import sys
import uuid
from functools import partial
from pathlib import Path

import pytest
from pydantic import SecretStr
from sync_support import eventually

from convostore import (
    ConversationDocument,
    ConversationStatus,
    ConvoStore,
    Dispatcher,
    Effect,
    EntityNotFoundError,
    MessageDocument,
    Outbox,
    RepositoryError,
    ValidationError,
)
from convostore.database.settings import LOCAL_SESSION_KEY, RedisSettings
from convostore.gateways.epoch_counter import EpochCounter
from convostore.operations.doctor import Level
from convostore.operations.sync_doctor import SyncDoctor
from convostore.repositories.cache_repository import CacheRepository
from convostore.repositories.entity_spaces import CONVERSATION
from convostore.repositories.message_log import MessageLog
from convostore.sync.dispatcher import Targets
from convostore.testing.redis_servers import RedisServer

ERASURES = 1000 if float(os.environ.get("CONVOSTORE_TEST_SCALE", "1")) >= 10 else 50


@pytest.fixture
def name():
    """A tenant that no other test uses, for all share one Redis."""
    return f"acme-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def tenant(store, name):
    return store.tenant(name)


def dispatcher(store, lease=60.0):
    return Dispatcher(Targets(store.mongodb, store.sessions, store.cache), longest_pause=0.2, lease=lease)


async def entries(store):
    return await store.mongodb.database["outbox"].find({}).to_list()


async def emptied(store, carrier, seconds=30.0):
    """Carry out what is in the outbox until there is nothing."""

    async def is_empty():
        await carrier.run_once()
        return not await entries(store)

    await eventually(is_empty, seconds, "the outbox was empty")


async def talk(tenant, user, **fields):
    """Begin a conversation and return its id."""
    created = await tenant.conversations.create(ConversationDocument.start(user, **fields))
    await tenant.messages.append(created.conversation_id, MessageDocument.user("secret"))
    return created.conversation_id


async def lives(store, session):
    return await store.sessions.get_session(session.tenant_id, session.session_id) is not None


async def contents(store):
    return await store.mongodb.database["messages"].distinct("conversation_id", {"content": {"$exists": True}})


async def test_all_erasures_take_effect_although_redis_stops_in_their_middle(store, convostore_settings, name):
    """It freezes after a third, dies after two thirds, and comes back with what it had."""
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        redis = RedisSettings(
            redis_url=SecretStr(server.url), session_key=SecretStr(LOCAL_SESSION_KEY), redis_deadline=0.5,
            cache_deadline=0.5, breaker_pause=0.2,
        )  # fmt: skip
        async with ConvoStore.open(convostore_settings, redis) as own:
            await expect_all_erasures(own, own.tenant(name), server)


async def expect_all_erasures(own, tenant, server):
    users = [f"u-{number}" for number in range(ERASURES)]
    sessions = [await own.sessions.start_session(tenant.tenant_id, user) for user in [*users, "spared"]]
    await asyncio.gather(*(talk(tenant, user) for user in users))
    spared = await talk(tenant, "spared")
    third = ERASURES // 3

    def erase(some):
        return asyncio.gather(*(own.users.erase(tenant.tenant_id, user) for user in some))

    assert await erase(users[:third]) == [True] * third
    server.pause()
    assert not any(await erase(users[third : 2 * third]))
    server.kill()
    assert not any(await erase(users[2 * third :]))
    assert await contents(own) == [spared], "what is in MongoDB need not wait for Redis"
    assert len([entry for entry in await entries(own) if "conversation_ids" not in entry]) == ERASURES - third
    server.start()
    await asyncio.gather(*(emptied(own, dispatcher(own)) for _ in range(2)))
    assert [await lives(own, session) for session in sessions] == [False] * ERASURES + [True]
    assert await tenant.conversations.count() == 1


async def fail_behind(store, name, conversation_id):
    assert not await store.users.erase(name, "u")
    assert await store.users.close_conversation(name, conversation_id)
    raise ZeroDivisionError


async def test_what_is_rolled_back_leaves_nothing_and_what_is_committed_takes_effect_at_once(store, tenant, name):
    session = await store.sessions.start_session(name, "u")
    kept = await talk(tenant, "u")
    with pytest.raises(ZeroDivisionError):
        await store.in_transaction(lambda _: fail_behind(store, name, kept))
    assert (await entries(store), await lives(store, session)) == ([], True)
    assert (await tenant.conversations.get_by_id(kept)).status == ConversationStatus.ACTIVE
    async with store.transaction() as unit:
        await store.users.erase(name, "u")
        assert await lives(store, session), "not before the commit"
    assert unit.failed_hooks == 0
    assert (await entries(store), await lives(store, session), await contents(store)) == ([], False, [])
    with pytest.raises(EntityNotFoundError):
        await tenant.messages.append(kept, MessageDocument.user("too late"))


async def test_signing_out_ends_sessions_and_closes_what_is_open_of_this_user(store, tenant, name):
    own, other = [await store.sessions.start_session(name, user) for user in ("u", "v")]
    open_ones = [await talk(tenant, "u", status=status) for status in ("active", "waiting", "escalated")]
    untouched = [await talk(tenant, "u", status="archived"), await talk(tenant, "v")]
    assert await store.users.sign_out(name, "u")
    assert (await lives(store, own), await lives(store, other)) == (False, True)
    assert await store.users.sign_out(name, "u", close_conversations=True)
    assert {(await tenant.conversations.get_by_id(each)).status for each in open_ones} == {"completed"}
    assert [(await tenant.conversations.get_by_id(each)).status for each in untouched] == ["archived", "active"]
    assert await entries(store) == []


async def test_the_cache_forgets_what_is_closed_and_what_is_erased(store, tenant, name):
    names = [await talk(tenant, "u") for _ in range(2)]
    for each in names:
        await store.cache.get_or_load(name, CONVERSATION, each, partial(tenant.conversations.get_by_id, each))
    assert await store.users.close_conversation(name, names[0])
    assert [await store.cache.get(name, CONVERSATION, each) is None for each in names] == [True, False]
    assert await store.users.erase(name, "u")
    assert await store.cache.get(name, CONVERSATION, names[1]) is None
    assert not await store.users.close_conversation(name, "nobody")
    assert await entries(store) == []


async def test_the_cache_forgets_in_the_epoch_that_is_in_use(store, tenant, name):
    cid = await talk(tenant, "u")
    counter = EpochCounter(store.mongodb)
    number = (await counter.advance()).number
    await counter.settle(number)
    cache = CacheRepository(store.redis.cache, epoch=str(number))
    await cache.get_or_load(name, CONVERSATION, cid, partial(tenant.conversations.get_by_id, cid))
    assert await cache.get(name, CONVERSATION, cid) is not None
    assert await store.users.close_conversation(name, cid)
    assert await cache.get(name, CONVERSATION, cid) is None
    await cache.aclose()


async def test_a_dispatcher_that_is_killed_in_the_middle_is_replaced(
    store, tenant, name, convostore_servers, convostore_settings
):
    names = await asyncio.gather(*(talk(tenant, "u") for _ in range(150)))
    session = await store.sessions.start_session(name, "u")
    await Outbox(store.mongodb).add(name, [Effect.ERASE_CONVERSATIONS, Effect.REVOKE_SESSIONS], user_id="u")
    where = (convostore_servers.mongodb_uri, convostore_settings.database_name, convostore_servers.redis_url)
    process = await asyncio.create_subprocess_exec(sys.executable, str(Path(__file__).with_name("erasing.py")), *where)
    try:
        await eventually(lambda: is_begun(store, len(names)), 20, "it has begun")
    finally:
        process.kill()
        await process.wait()
    left = await tenant.conversations.count()
    assert 0 < left < len(names)
    assert await lives(store, session)
    await emptied(store, dispatcher(store))
    assert (await tenant.conversations.count(), await contents(store)) == (0, [])
    assert not await lives(store, session)


async def is_begun(store, conversations):
    return await store.mongodb.database["conversations"].count_documents({"user_id": "u"}) < conversations


async def test_a_deletion_that_was_cut_short_is_finished_by_whoever_comes_next(store, tenant, name):
    cut, session = await talk(tenant, "u"), await store.sessions.start_session(name, "u")
    tombstone = [{"$replaceWith": {"_id": "$_id", "version": 2, "deleted_at": "$$NOW"}}]
    await Outbox(store.mongodb).add(name, [Effect.DELETE, Effect.FORGET], conversation_ids=[cut])
    await store.mongodb.database["conversations"].update_one({}, tombstone)
    await Outbox(store.mongodb).add(name, [Effect.REVOKE_SESSIONS], user_id="u")
    await store.synchronizer(f"test-{name}").run_once()  # which runs the dispatcher too
    assert (await entries(store), await contents(store), await lives(store, session)) == ([], [], False)


async def test_the_synchronizer_carries_out_what_comes_into_the_outbox_while_it_runs(store, name):
    session = await store.sessions.start_session(name, "u")
    running = asyncio.create_task(store.synchronizer(f"test-{name}").run())
    await Outbox(store.mongodb).add(name, [Effect.REVOKE_SESSIONS], user_id="u")

    async def is_empty():
        return not await entries(store)

    await eventually(is_empty)
    running.cancel()
    await asyncio.wait([running])
    assert not await lives(store, session)


async def test_an_erasure_that_fails_between_a_tombstone_and_its_seal_goes_on(store, tenant, name, monkeypatch):
    await asyncio.gather(talk(tenant, "u"), talk(tenant, "u"))
    close, failures = MessageLog.close, iter([True])

    async def failing(log, conversation_id):
        if next(failures, False):
            raise RepositoryError("the log does not answer")
        await close(log, conversation_id)

    monkeypatch.setattr(MessageLog, "close", failing)
    assert not await store.users.erase(name, "u")
    assert len(await contents(store)) == 2
    await emptied(store, dispatcher(store))
    assert await contents(store) == []


async def test_an_entry_is_removed_after_its_effects_and_what_fails_is_tried_again(store, name, monkeypatch):
    session, carrier = await store.sessions.start_session(name, "u"), dispatcher(store)
    revoke, tried = carrier._sessions.revoke_user_sessions, []

    async def failing(*arguments):
        tried.append(await entries(store))
        if len(tried) < 3:
            raise EntityNotFoundError("Session", "somewhere")
        return await revoke(*arguments)

    monkeypatch.setattr(carrier._sessions, "revoke_user_sessions", failing)
    effects = [Effect.REVOKE_SESSIONS, Effect.CLOSE_CONVERSATIONS]
    strange = await Outbox(store.mongodb).add(name, [Effect.FORGET], conversation_ids=["c"])
    await store.mongodb.database["outbox"].update_one({"_id": strange}, {"$set": {"effects": ["of a later release"]}})
    await Outbox(store.mongodb).add(name, effects, user_id="u")
    assert await carrier.run_once() == 0
    assert await lives(store, session)

    async def is_tried():
        await carrier.run_once()
        return len(tried) == 3

    await eventually(is_tried)
    assert not await lives(store, session)
    assert all(found for found in tried), "the entry was there while its effect was not"
    assert [entry["_id"] for entry in await entries(store)] == [strange], "nobody understands it here"
    findings = {finding.check: finding.level async for finding in SyncDoctor(store.mongodb).examine()}
    assert findings["outbox"] is Level.WARNING


async def test_what_cannot_be_right_is_refused_before_anything_is_written(store, tenant, name):
    outbox = Outbox(store.mongodb)
    for user in ("", "a\nb", None, {"$ne": 1}):
        with pytest.raises(ValidationError, match="user_id"):
            await store.users.erase(name, user)
        with pytest.raises(ValidationError, match="user_id"):
            await outbox.add(name, [Effect.REVOKE_SESSIONS], user_id=user)
    with pytest.raises(ValidationError, match="conversation_ids"):
        await outbox.add(name, [Effect.FORGET])
    with pytest.raises(ValidationError, match="effects"):
        await outbox.add(name, [])
    with pytest.raises(ValidationError, match="redis_url"):
        _ = ConvoStore(store.mongodb).users
    assert await entries(store) == []
