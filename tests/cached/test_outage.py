"""Redis is away, slow or out of reach of one process: conversations go on, and nothing old is read afterwards."""

import asyncio
import time

import pytest
from cached_support import TENANT, conversation, eventually, loads, text, usable, warm
from pydantic import SecretStr

from convostore import ConversationStatus, ConvoStore, DeadlineExceededError
from convostore.gateways.epoch_counter import EpochCounter
from convostore.repositories.cache_epoch import LEASE_SECONDS
from convostore.repositories.exceptions import ConnectionError as StoreConnectionError
from convostore.repositories.exceptions import Outcome


async def read(store, cid):
    return await store.tenant(TENANT).conversations.get_by_id(cid)


async def set_title(store, cid, title):
    return await store.tenant(TENANT).conversations.update_with(cid, lambda it: it.evolve(title=title))


@pytest.fixture
async def cid(other):
    return await conversation(other)


async def test_a_lost_invalidation_is_no_stale_read(behind, other, proxy, cid):
    await warm(other, cid)
    proxy.cut_before(1, times=1000)
    await set_title(behind, cid, "new")
    assert (await read(other, cid)).title == "new"
    proxy.heal()
    await usable(other)
    assert (await read(other, cid)).title == "new"
    assert behind.mongodb.cached.epoch.raised == 1


async def test_a_read_is_one_command_and_a_write_another(behind, proxy, cid):
    await warm(behind, cid)
    proxy.commands.clear()
    for _ in range(5):
        await read(behind, cid)
    await set_title(behind, cid, "new")
    assert proxy.commands == [*["GET"] * 6, "DEL"]


async def test_a_write_that_the_database_does_not_answer_says_so_and_nothing_of_the_cache(
    other, cid, convostore_settings, convostore_redis_settings
):
    admin = other.mongodb.database.client.admin
    commands = ["find", "aggregate", "insert", "update", "findAndModify"]
    data = {"failCommands": commands, "appName": "slow", "blockConnection": True, "blockTimeMS": 4000}
    caching = convostore_redis_settings.evolve(cache_conversations=True)
    async with ConvoStore.open(convostore_settings.evolve(app_name="slow"), caching) as slow:
        await warm(slow, cid)
        slow.mongodb.deadline = 2 * LEASE_SECONDS  # so that of the epoch nothing is known any more
        await admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
        with pytest.raises(DeadlineExceededError) as caught:
            await slow.tenant(TENANT).conversations.update_conversation_status(cid, ConversationStatus.COMPLETED)
        await admin.command("configureFailPoint", "failCommand", mode="off")
        slow.mongodb.deadline = 10.0
        assert "did not answer" in str(caught.value)
        assert caught.value.outcome is Outcome.UNKNOWN
        await slow.mongodb.cached.finish_writes()
        told, true = await read(other, cid), await other.tenant(TENANT).conversations.get_by_id(cid, fresh=True)
        assert told == true


async def test_a_connection_that_is_lost_once_costs_nothing(behind, other, proxy, cid):
    await warm(other, cid)
    await usable(behind)
    proxy.cut_before(1)
    await behind.tenant(TENANT).conversations.update_conversation_status(cid, ConversationStatus.COMPLETED)
    assert proxy.struck
    assert behind.mongodb.cached.epoch.raised == 0
    assert (await read(other, cid)).status is ConversationStatus.COMPLETED


async def test_an_invalidation_without_an_answer_is_no_stale_read(behind, other, proxy, cid):
    await warm(other, cid)
    proxy.cut_after(1, times=1000)
    await behind.tenant(TENANT).conversations.update_conversation_status(cid, ConversationStatus.COMPLETED)
    assert (await read(other, cid)).status is ConversationStatus.COMPLETED


async def test_a_unit_of_work_whose_invalidation_is_lost_is_no_stale_read(behind, other, proxy, cid):
    await warm(other, cid)
    proxy.cut_before(1, times=1000)
    async with behind.transaction():
        await set_title(behind, cid, "new")
    assert (await read(other, cid)).title == "new"


async def test_while_redis_is_away_only_the_first_write_waits(behind, other, proxy, cid):
    await warm(other, cid)
    proxy.cut_before(1, times=10**9)
    waited = []
    for number in range(8):
        started = time.monotonic()
        await set_title(behind, cid, f"{number}")
        waited.append(time.monotonic() - started > LEASE_SECONDS / 2)
        assert (await read(other, cid)).title == f"{number}"
        await asyncio.sleep(LEASE_SECONDS / 2)
    assert waited == [True] + [False] * 7


async def test_redis_stops_in_the_middle_and_comes_back_with_what_it_held(opened, own_redis, cid):
    stores = [await opened(redis_url=SecretStr(own_redis.url), cache_deadline=0.2) for _ in range(2)]
    cids = [await conversation(stores[0]) for _ in range(10)]
    for each in cids:
        await warm(stores[1], each)
    own_redis.pause()  # it keeps what it holds
    await asyncio.gather(*(set_title(stores[0], each, "during") for each in cids))
    await stores[0].tenant(TENANT).messages.append(cids[0], text())
    assert {(await read(stores[1], each)).title for each in cids} == {"during"}
    own_redis.resume()
    for store in stores:
        await eventually(lambda store=store: _caches(store, cids))
        assert {(await read(store, each)).title for each in cids} == {"during"}
        assert (await read(store, cids[0])).message_count == 1


async def _caches(store, cids):
    before = store.mongodb.cached.statistics.hits
    for each in cids:
        await read(store, each)
    return store.mongodb.cached.statistics.hits == before + len(cids)


async def test_the_cache_is_used_again_and_by_those_who_come_later(behind, other, opened, proxy, cid):
    await usable(behind)
    proxy.cut_before(1, times=1000)
    await set_title(behind, cid, "new")
    proxy.heal()
    late = await opened()
    for store in (other, late, behind):
        await warm(store, cid)
        before = loads(store)
        assert (await read(store, cid)).title == "new"
        assert loads(store) == before
    await set_title(late, cid, "newer")
    assert {(await read(store, cid)).title for store in (other, late, behind)} == {"newer"}


async def test_a_number_that_is_not_settled_and_the_one_before_are_told_both(other, opened, cid):
    # A third process has raised the number, and has not waited: for a moment, the one before is still in use.
    await warm(other, cid)
    late = await opened()
    await EpochCounter(other.mongodb).advance()
    await set_title(late, cid, "new")
    assert other.mongodb.cached.epoch.usable() is not None, "or the test was too slow to show anything"
    assert (await read(other, cid)).title == "new"


async def test_the_synchronizer_tells_the_number_that_is_in_use(behind, other, store, proxy, cid):
    synchronizer = other.synchronizer()
    await synchronizer.run_once()
    proxy.cut_before(1, times=1000)
    await set_title(behind, cid, "new")
    proxy.heal()
    await warm(other, cid)
    await set_title(store, cid, "elsewhere")
    assert (await read(other, cid)).title == "new", "it is a cache"
    await synchronizer.run_once()
    assert (await read(other, cid)).title == "elsewhere"


async def test_where_nobody_can_be_told_the_write_says_so_and_it_is_made_good(behind, proxy, cid, monkeypatch):
    await warm(behind, cid)
    cached = behind.mongodb.cached
    advance = EpochCounter.advance

    async def unreachable(_):
        raise StoreConnectionError("MongoDB")

    monkeypatch.setattr(EpochCounter, "advance", unreachable)
    proxy.cut_before(1, times=1000)
    with pytest.raises(StoreConnectionError) as caught:
        await behind.tenant(TENANT).conversations.update_conversation_status(cid, ConversationStatus.COMPLETED)
    assert caught.value.outcome is Outcome.UNKNOWN
    proxy.heal()
    assert cached.epoch.usable() is None
    assert (await read(behind, cid)).status is ConversationStatus.COMPLETED
    monkeypatch.setattr(EpochCounter, "advance", advance)
    await warm(behind, cid)
    assert cached.epoch.raised == 1


async def test_a_store_that_is_closed_tells_the_activity_that_was_pending(opened, other, cid):
    await warm(other, cid)
    late = await opened()
    await late.tenant(TENANT).messages.append(cid, text())
    await late.mongodb.cached.aclose()
    assert (await read(other, cid)).message_count == 1
