"""A unit of work tells the cache once it is known to have happened, and never otherwise."""

import asyncio

import pytest
from cached_support import TENANT, conversation, loads, text, warm
from pydantic import SecretStr

from convostore import ConversationStatus, DeadlineExceededError, RepositoryError
from convostore.gateways.mongo_transaction import MongoTransaction
from convostore.repositories.exceptions import ConnectionError as StoreConnectionError
from convostore.repositories.exceptions import Outcome
from convostore.testing.proxy import Fault


class UndoneError(Exception):
    """Ends a unit of work."""


@pytest.fixture
async def cid(one):
    return await conversation(one)


async def change_everything(store, cid):
    tenant = store.tenant(TENANT)
    read = await tenant.conversations.get_by_id(cid)
    await tenant.conversations.update(read.evolve(title="changed"))
    await tenant.conversations.update_conversation_status(cid, ConversationStatus.COMPLETED)
    await tenant.messages.append(cid, text())


async def undo(store, cid):
    async with store.transaction():
        await change_everything(store, cid)
        raise UndoneError


async def test_what_has_happened_is_read_by_others(one, other, cid):
    await warm(other, cid)
    async with one.transaction():
        await change_everything(one, cid)
    found = await other.tenant(TENANT).conversations.get_by_id(cid)
    assert (found.title, found.status, found.message_count) == ("changed", ConversationStatus.COMPLETED, 1)


async def test_the_activity_of_an_append_alone_is_read_by_others(one, other, cid):
    await warm(other, cid)
    async with one.transaction():
        await one.tenant(TENANT).messages.append(cid, text())
    assert (await other.tenant(TENANT).conversations.get_by_id(cid)).message_count == 1


async def test_a_rollback_leaves_the_cache_as_it_was(one, other, cid):
    await warm(other, cid)
    before = loads(other)
    with pytest.raises(UndoneError):
        await undo(one, cid)
    assert (await other.tenant(TENANT).conversations.get_by_id(cid)).title is None
    assert loads(other) == before, "it is still there"


async def test_nothing_is_told_before_the_commit(one, other, cid):
    await warm(other, cid)
    before = loads(other)
    async with one.transaction():
        await change_everything(one, cid)
        assert (await other.tenant(TENANT).conversations.get_by_id(cid)).title is None
        assert loads(other) == before
    assert (await other.tenant(TENANT).conversations.get_by_id(cid)).title == "changed"


async def test_within_it_its_own_writes_are_read(one, cid):
    await warm(one, cid)
    async with one.transaction():
        await change_everything(one, cid)
        assert (await one.tenant(TENANT).conversations.get_by_id(cid)).title == "changed"
        await one.tenant(TENANT).conversations.delete(cid)
        assert not await one.tenant(TENANT).conversations.exists(cid)


async def test_hooks_of_the_application_read_what_was_committed(one, other, cid):
    await warm(other, cid)
    seen = []

    async def look():
        seen.append((await other.tenant(TENANT).conversations.get_by_id(cid)).title)

    async with one.transaction() as unit:
        unit.after_commit(look)
        await change_everything(one, cid)
    assert seen == ["changed"]


async def test_a_commit_that_may_have_happened_is_told(one, other, cid, monkeypatch):
    await warm(other, cid)
    commit = MongoTransaction.commit

    async def lose_the_answer(transaction):
        await commit(transaction)
        raise StoreConnectionError("MongoDB", outcome=Outcome.UNKNOWN)

    monkeypatch.setattr(MongoTransaction, "commit", lose_the_answer)
    with pytest.raises(RepositoryError):
        async with one.transaction():
            await change_everything(one, cid)
    assert (await other.tenant(TENANT).conversations.get_by_id(cid)).title == "changed"


@pytest.mark.parametrize("answer_is_lost", [False, True])
async def test_who_has_no_time_left_does_not_wait_until_it_is_told(
    opened, other, cid, proxy, monkeypatch, answer_is_lost
):
    store = await opened(redis_url=SecretStr(proxy.url), cache_deadline=20.0)
    await warm(store, cid)
    await warm(other, cid)
    store.mongodb.deadline = 2.0
    commit = MongoTransaction.commit

    async def stall_before(transaction):
        proxy.rule = lambda _: Fault.STALL
        await commit(transaction)
        if answer_is_lost:
            raise StoreConnectionError("MongoDB", outcome=Outcome.UNKNOWN)

    monkeypatch.setattr(MongoTransaction, "commit", stall_before)
    with pytest.raises(StoreConnectionError) as caught:
        await store.in_transaction(lambda _: change_everything(store, cid))
    assert isinstance(caught.value, DeadlineExceededError) is not answer_is_lost
    assert caught.value.outcome is Outcome.UNKNOWN
    assert store.mongodb.cached._writes, "it goes on without the caller"
    proxy.rule = None
    proxy.cut_connections()
    await store.mongodb.cached.finish_writes()
    assert (await other.tenant(TENANT).conversations.get_by_id(cid)).title == "changed"


async def test_a_cancelled_commit_is_told(one, other, cid):
    async def work():
        async with one.transaction():
            await change_everything(one, cid)
            asyncio.current_task().cancel()

    await warm(other, cid)
    task = asyncio.create_task(work())
    await asyncio.wait([task])
    assert (await other.tenant(TENANT).conversations.get_by_id(cid)).title == "changed"
