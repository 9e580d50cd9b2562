"""What cannot be told any more is said, once, and it goes on from now."""

import asyncio

import pytest
from pydantic import SecretStr
from small_server import forgetful_server, make_forget
from sync_support import address_of, conversation, eventually, nothing_more, short, text, told

from convostore import ConvoStore, HistoryLost, Loss, RepositoryError
from convostore.gateways.change_stream import ChangeStream
from convostore.repositories.entity_spaces import CONVERSATION
from convostore.sync import feed
from convostore.sync.reading import pipeline
from convostore.testing.mongo_proxy import MongoProxy
from convostore.testing.proxy import Fault


@pytest.fixture(scope="module")
def forgetful():
    with forgetful_server() as uri:
        yield uri


@pytest.fixture
def settings(forgetful, convostore_settings):
    return convostore_settings.evolve(mongodb_uri=SecretStr(forgetful))


@pytest.fixture
async def small(settings, convostore_redis_settings):
    async with ConvoStore.open(settings, convostore_redis_settings) as store:
        yield store
        await store.mongodb.administration.drop_database()


async def test_a_cursor_of_a_forgotten_event_is_told_as_lost_and_never_tried_again(small, forgetful):
    acme = small.tenant("acme")
    async with acme.changes() as changes:
        await conversation(acme)
        old = (await told(changes, 1))[0].cursor
    await asyncio.to_thread(make_forget, forgetful)
    async with acme.changes(old) as changes:
        lost = (await told(changes, 1))[0]
        assert isinstance(lost, HistoryLost)
        assert (lost.reason, lost.tenant_id) == (Loss.HISTORY, "")
        await nothing_more(changes, acme)
    async with acme.changes(lost.cursor) as changes:
        assert short((await told(changes, 1))[0]) == ("ConversationCreated", 1)
        await nothing_more(changes, acme)


async def test_all_who_follow_are_told_when_the_stream_has_lost_its_place(small, settings, forgetful):
    acme = small.tenant("acme")
    async with (
        MongoProxy(*address_of(forgetful)) as proxy,
        ConvoStore.open(settings.evolve(mongodb_uri=SecretStr(proxy.uri))) as other,
        other.changes("acme") as mine,
        other.changes("rival") as others,
    ):
        cid = await conversation(acme)
        await told(mine, 1)
        # Away for so long that the server forgets.
        proxy.rule = lambda name: Fault.CUT_BEFORE if name in ("aggregate", "getMore") else None
        proxy.cut_connections()
        await acme.messages.append(cid, text())
        await asyncio.to_thread(make_forget, forgetful)
        proxy.heal()
        for changes in (mine, others):
            assert [short(event) for event in await told(changes, 1)] == [("HistoryLost", "history")]
        await nothing_more(mine, acme)
        await nothing_more(others, small.tenant("rival"))


async def test_a_stepdown_loses_and_repeats_nothing(small):
    acme = small.tenant("acme")
    cid = await conversation(acme)
    async with acme.changes() as changes:
        await acme.messages.append(cid, text())
        await small.mongodb.administration.command({"replSetStepDown": 1, "force": True}, admin=True)
        for _ in range(10):
            await acme.messages.append(cid, text())
        assert [event.sequence for event in await told(changes, 11)] == list(range(1, 12))
        await nothing_more(changes, acme)


async def test_the_cache_forgets_everything_when_history_is_lost(small, forgetful):
    acme = small.tenant("acme")
    cid = await conversation(acme)
    await small.synchronizer().run_once()
    await small.cache.get_or_load("acme", CONVERSATION, cid, lambda: acme.conversations.get_by_id(cid))
    await small.mongodb.database.conversations.update_one({}, {"$set": {"title": "x"}})
    await asyncio.to_thread(make_forget, forgetful)
    status = await small.synchronizer().run_once()
    assert status.losses == 1
    assert await small.cache.get("acme", CONVERSATION, cid) is None
    assert (await small.synchronizer().run_once()).losses == 0


LEADING_NOWHERE = [
    "82" + "FFFFFFF0" + "00000001" + "2B0229296E04",  # a moment that is yet to come
    "82" + "6B0769A5" + "00000001" + "2B022C01FF29",  # cut off
    "82" + "6B0769A5" + "00000001" + "FF" * 20,
    # of another database
    "826B0769A5000000012B022C0100296E5A1004C467F43245AA4341B05479B89BB9EEA5463C5F6964003C61636D653A33000004",
]


async def test_a_cursor_that_leads_nowhere_is_told_as_lost(acme):
    for cursor in LEADING_NOWHERE:
        async with acme.changes(cursor) as changes:
            await conversation(acme)  # only now the server looks for a place that could be one
            assert [short(event) for event in await told(changes, 1)] == [("HistoryLost", "history")]
            await changes.batch(0.3)
            await nothing_more(changes, acme)


@pytest.mark.parametrize(("code", "reason"), [(286, "history"), (280, "history"), (10334, "size")])
async def test_what_ends_a_stream_is_told_as_lost_and_it_goes_on(convostore_settings, acme, server, code, reason):
    options = {"failCommands": ["getMore"], "errorCode": code, "appName": "ending"}
    fail = {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": options}
    async with ConvoStore.open(convostore_settings.evolve(app_name="ending")) as other:
        async with other.changes("acme") as shared:
            server.admin.command(fail)
            assert [short(event) for event in await told(shared, 1)] == [("HistoryLost", reason)]
            await nothing_more(shared, acme)
            place = shared.cursor
        await eventually(lambda: not other.feed._tasks)
        server.admin.command(fail)
        async with other.changes("acme", place) as alone:
            assert [short(event) for event in await told(alone, 1)] == [("HistoryLost", reason)]
            await nothing_more(alone, acme)


async def test_it_knows_its_place_while_others_write(store, acme):
    """What happens between the server's start and its first answer is in that answer, which then names no mark."""
    writing = [asyncio.create_task(_write_on(acme)) for _ in range(8)]
    try:
        for _ in range(60):
            stream = ChangeStream(store.mongodb, pipeline())
            await stream.open()
            assert stream.position
            assert stream.mark
            await stream.aclose()
    finally:
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)


async def _write_on(tenant):
    while True:
        await conversation(tenant)


async def test_a_follower_never_waits_for_a_feed_that_has_failed(acme, monkeypatch):
    async with acme.changes() as changes:
        await conversation(acme)
        cursor = (await told(changes, 1))[0].cursor

    def broken(_):
        raise ArithmeticError

    monkeypatch.setattr(feed, "event_of", broken)
    for changes in (acme.changes(cursor), acme.changes()):
        async with changes:
            await conversation(acme)
            with pytest.raises(RepositoryError, match="ArithmeticError"):
                await told(changes, 1)
