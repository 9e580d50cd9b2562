"""Following: from where one left off, through lost connections, many on one stream, the slow ones on their own."""

import asyncio
import gc

import anyio
import pytest
from sync_support import conversation, eventually, nothing_more, short, text, told

from convostore import ConnectionError, ConvoStore, MessageAppended, RepositoryError  # noqa: A004
from convostore.sync import feed
from convostore.sync.feed import ChangeFeed
from convostore.testing.proxy import Fault


def _watches(server, name):
    """Return the change streams that a client of a name has open on the server."""
    pipeline = [{"$currentOp": {"allUsers": True, "idleCursors": True}}]
    found = server.admin.aggregate([*pipeline, {"$match": {"appName": name}}])
    return {op["cursor"]["cursorId"] for op in found if "$changeStream" in str(op.get("cursor", {}))}


async def _append(tenant, cid, count):
    for _ in range(count):
        await tenant.messages.append(cid, text())


async def test_a_follower_goes_on_behind_any_event_and_misses_none(acme):
    async with acme.changes() as changes:
        cid = await conversation(acme)
        await _append(acme, cid, 5)
        events = await told(changes, 6)
        assert changes.cursor >= events[-1].cursor
    for index, event in enumerate(events):
        async with acme.changes(event.cursor) as again:
            assert [later.cursor for later in await told(again, 5 - index)] == [e.cursor for e in events[index + 1 :]]
    async with acme.changes(again.cursor) as again:
        await nothing_more(again, acme)


async def test_a_cursor_never_passes_what_is_waiting(acme):
    async with acme.changes() as changes:
        await _append(acme, await conversation(acme), 3)
        await eventually(lambda: len(changes._waiting) == 4)
        await told(changes, 1)
        async with acme.changes(changes.cursor) as again:
            assert [event.sequence for event in await told(again, 3)] == [1, 2, 3]


async def test_without_a_cursor_it_begins_when_it_is_entered(acme):
    await conversation(acme)
    changes = acme.changes()
    await conversation(acme)
    async with changes:
        await nothing_more(changes, acme)


async def test_many_followers_share_one_stream(convostore_settings, store, server):
    settings = convostore_settings.evolve(app_name="sharing")
    async with ConvoStore.open(settings) as other:
        followers = [other.changes(f"t-{n % 3}") for n in range(30)]
        await asyncio.gather(*(follower.__aenter__() for follower in followers))
        late = [other.changes(f"t-{n}", followers[0].cursor) for n in range(3)]
        await asyncio.gather(*(follower.__aenter__() for follower in late))
        for n in range(3):
            await conversation(store.tenant(f"t-{n}"))
        for follower in [*followers, *late]:
            assert (await told(follower, 1))[0].tenant_id == follower.tenant_id

        async def all_share():
            # Places get past an event when something happens that is none, as the activity that follows an append.
            tenant = store.tenant("somebody else")
            await tenant.messages.append(await conversation(tenant), text("x"))
            await store.mongodb.activity.flush()
            await asyncio.sleep(0.5)
            return not other.feed._behind

        await eventually(all_share, 30, what="those who came late have joined")
        await eventually(lambda: len(_watches(server, "sharing")) == 1, what="one stream")
        await eventually(lambda: len(other.feed._tasks) == 1, what="one task")
        for n in range(3):
            await conversation(store.tenant(f"t-{n}"), f"more-{n}")
        for follower in [*followers, *late]:
            assert (await told(follower, 1))[0].conversation_id == f"more-{follower.tenant_id[-1]}"


async def test_who_is_slow_holds_up_nobody_and_misses_nothing(store, acme, monkeypatch):
    monkeypatch.setattr(store.feed, "_buffer", 10)
    async with acme.changes() as slow, acme.changes() as quick:
        cid = await conversation(acme)
        await told(quick, 1)
        for n in range(1, 101):
            await acme.messages.append(cid, text())
            assert [event.sequence for event in await told(quick, 1)] == [n]
        assert len(slow._waiting) == 10
        assert slow not in store.feed._shared.followers
        events = await told(slow, 101)
        assert [event.sequence for event in events[1:]] == list(range(1, 101))
        await eventually(lambda: slow in store.feed._shared.followers, what="he joins the others again")
        await nothing_more(slow, acme)
        assert [short(event)[0] for event in await told(quick, 1)] == ["ConversationCreated"]


async def test_a_follower_far_behind_gets_as_much_as_he_takes(store, acme, monkeypatch):
    """His own stream waits for him, so that not all of history lies in memory."""
    monkeypatch.setattr(store.feed, "_buffer", 10)
    async with acme.changes() as changes:
        before = changes.cursor
    cid = await conversation(acme)
    await _append(acme, cid, 60)
    async with acme.changes(before) as behind:
        await told(behind, 1)
        most = 0
        for n in range(1, 61):
            await asyncio.sleep(0.002)
            most = max(most, len(behind._waiting))
            assert [event.sequence for event in await told(behind, 1)] == [n]
    assert most == 10


async def test_joining_the_others_loses_and_repeats_nothing_while_much_happens(store, acme):
    """Each joins from where he is, again and again, while the shared stream goes on."""
    cids = [await conversation(acme, f"c-{n}") for n in range(4)]
    async with acme.changes() as changes:
        begin = changes.cursor
        writing = asyncio.gather(*(_append(acme, cid, 50) for cid in cids))
        cursor, joined = begin, 0
        seen = dict.fromkeys(cids, 0)
        while not writing.done() or sum(seen.values()) < 200:
            async with acme.changes(cursor) as follower:
                for _ in range(3):
                    for event in await follower.batch(0.3):
                        assert event.sequence == seen[event.conversation_id] + 1
                        seen[event.conversation_id] = event.sequence
                joined += follower in store.feed._shared.followers
                cursor = follower.cursor
        await writing
        assert joined > 0
        assert {event.sequence for event in await told(changes, 200)} == set(range(1, 51))


def _cut_now_and_then(rule):
    count = 0

    def cut(name):
        nonlocal count
        if name not in ("aggregate", "getMore"):
            return None
        count += 1
        return rule if count % 2 else None

    return cut


@pytest.mark.parametrize("fault", ["cut before", "cut after"])
async def test_lost_connections_lose_and_repeat_nothing(acme, proxied, proxy, fault):
    cid = await conversation(acme)
    async with proxied.tenant("acme").changes() as changes, proxied.changes("acme", changes.cursor) as behind:
        proxy.rule = _cut_now_and_then(Fault(fault))
        count = 0
        while len(proxy.struck) < 3:
            await _append(acme, cid, 5)
            count += 5
        proxy.heal()
        for follower in (changes, behind):
            assert [event.sequence for event in await told(follower, count)] == list(range(1, count + 1))
        await nothing_more(changes, acme)


async def test_a_server_that_stays_away_for_long_is_waited_for(acme, proxied, proxy):
    cid = await conversation(acme)
    async with proxied.tenant("acme").changes() as changes:
        proxy.rule = lambda _: Fault.CUT_BEFORE
        proxy.cut_connections()
        await _append(acme, cid, 3)
        assert await changes.batch(0.5) == []
        proxied.mongodb.deadline = 0.5
        with pytest.raises(ConnectionError):
            await ChangeFeed(proxied.mongodb).changes("acme").__aenter__()
        proxied.mongodb.deadline = 10
        proxy.heal()
        assert [event.sequence for event in await told(changes, 3)] == [1, 2, 3]


async def test_a_connection_without_an_answer_is_given_up(acme, proxied, proxy):
    """As when a router forgets a connection: nobody tells, and the rest of the server is well."""
    cid = await conversation(acme)
    proxied.mongodb.deadline = 0.5
    async with proxied.tenant("acme").changes() as changes:
        proxy.rule = lambda name: Fault.STALL if name == "getMore" else None
        await eventually(lambda: proxy.struck)
        await _append(acme, cid, 1)
        proxy.heal()
        assert [event.sequence for event in await told(changes, 1)] == [1]


@pytest.mark.parametrize("code", [13, 40573])
async def test_a_refusal_ends_it_and_is_told_to_all(convostore_settings, store, acme, server, code):
    options = {"failCommands": ["getMore", "aggregate"], "errorCode": code, "appName": "refused"}
    async with ConvoStore.open(convostore_settings.evolve(app_name="refused")) as refused:
        mine = refused.changes("acme")
        other = refused.changes("rival")
        async with mine, other:
            server.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": options})
            try:
                for changes in (mine, other, refused.changes("acme", mine.reached)):
                    with pytest.raises(RepositoryError):
                        await changes.batch(5)
            finally:
                server.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
        async with refused.changes("acme") as again:
            await nothing_more(again, acme)


async def _nothing_left(server, name, tasks):
    await eventually(lambda: asyncio.all_tasks() == tasks, what="no task left")
    await eventually(lambda: not _watches(server, name), what="no stream left")


async def test_a_store_that_is_closed_in_reach_of_a_scope_leaves_nothing(convostore_settings, store, acme, server):
    """The scope cancels the caller again and again."""
    name, tasks = "closing in a scope", asyncio.all_tasks()
    opening = ConvoStore.open(convostore_settings.evolve(app_name=name))
    other = await opening.__aenter__()
    await other.changes("acme").__aenter__()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await opening.__aexit__(None, None, None)
    await _nothing_left(server, name, tasks)
    pipeline = [{"$currentOp": {"allUsers": True, "idleConnections": True}}, {"$match": {"appName": name}}]
    await eventually(lambda: not list(server.admin.aggregate(pipeline)), what="all connections gone")


@pytest.mark.parametrize("how", ["closed", "closed with the store", "cancelled", "forgotten"])
async def test_closing_leaves_nothing(convostore_settings, store, acme, server, how):
    name = f"closing {how}"
    tasks = asyncio.all_tasks()
    before = server.admin.command("serverStatus")["metrics"]["cursor"]["open"]["total"]
    async with ConvoStore.open(convostore_settings.evolve(app_name=name)) as other:
        shared = other.changes("acme")
        await shared.__aenter__()
        start = shared.cursor
        await conversation(acme)
        behind = other.changes("acme", start)
        other.feed._buffer = 1
        slow = other.changes("acme", start)
        other.feed._buffer = 100
        for changes in (behind, slow):
            await changes.__aenter__()
        await _append(acme, await conversation(acme), 5)
        await told(shared, 2)
        if how == "closed":
            for changes in (shared, behind, slow):
                await changes.aclose()
            assert [event async for event in shared] == []
            await eventually(lambda: not _watches(server, name), what="no stream left")
        if how == "cancelled":
            waiting = asyncio.create_task(_to_the_end(shared))
            await asyncio.sleep(0.05)
            waiting.cancel()
        if how == "closed with the store":
            ending = asyncio.create_task(_to_the_end(shared))
            await asyncio.sleep(0.05)
    if how == "closed with the store":
        assert isinstance(await ending, list), "the iteration has ended"
    gc.collect()
    await _nothing_left(server, name, tasks)
    assert server.admin.command("serverStatus")["metrics"]["cursor"]["open"]["total"] <= before


async def _to_the_end(changes):
    return [event async for event in changes]


async def test_entering_that_is_cancelled_leaves_nothing(convostore_settings, store, server):
    tasks = asyncio.all_tasks()
    async with ConvoStore.open(convostore_settings.evolve(app_name="entering")) as other:
        for at in range(40):
            task = asyncio.create_task(other.changes("acme").__aenter__())
            for _ in range(at):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                await task.result().aclose()
        await eventually(lambda: not _watches(server, "entering"), what="no stream left")
    await _nothing_left(server, "entering", tasks)


async def test_a_stream_that_does_not_end_by_itself_is_cancelled(acme, proxied, proxy, monkeypatch):
    monkeypatch.setattr(feed, "_PATIENCE", 0.1)
    async with proxied.tenant("acme").changes() as changes:
        proxy.rule = lambda name: Fault.STALL if name == "getMore" else None
        await eventually(lambda: proxy.struck)
        async with asyncio.timeout(3):
            await proxied.feed.aclose()
        assert [event async for event in changes] == []
        assert not proxied.feed._tasks


async def test_a_closed_store_tells_nothing(convostore_settings, store):
    async with ConvoStore.open(convostore_settings) as other:
        changes = other.changes("acme")
    assert [event async for event in changes] == []


async def test_events_are_values(acme):
    async with acme.changes() as changes:
        await _append(acme, await conversation(acme), 1)
        event = (await told(changes, 2))[1]
    assert isinstance(event, MessageAppended)
    assert hash(event) == hash(event)
    with pytest.raises(AttributeError):
        event.sequence = 2
