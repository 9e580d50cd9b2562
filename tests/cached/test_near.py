"""What is kept in the process is forgotten at once by who writes, within a bound by others, and on any doubt."""

import asyncio
import time
from urllib.parse import urlsplit

import pytest
from cached_support import TENANT, conversation, eventually, text, usable, warm
from paused_proxy import PausedProxy
from pydantic import SecretStr

from convostore import ConversationStatus, RepositoryError, ValidationError
from convostore.gateways import redis_tracking
from convostore.repositories.cache_space import CacheSpace
from convostore.testing.redis_servers import RedisServer

ROOM = 1_000_000
LAG = 0.1


@pytest.fixture
async def near(opened):
    return await opened(near_cache_bytes=ROOM)


@pytest.fixture
async def cid(other):
    return await conversation(other)


@pytest.fixture
async def paused(convostore_redis_settings):
    parts = urlsplit(convostore_redis_settings.redis_url.get_secret_value())
    async with PausedProxy(parts.hostname, parts.port) as proxy:
        yield proxy
        proxy.flows.set()


@pytest.fixture
async def behind_paused(opened, paused):
    return await opened(redis_url=SecretStr(paused.url), near_cache_bytes=ROOM, cache_deadline=0.2)


async def read(store, cid):
    await usable(store)
    return await store.tenant(TENANT).conversations.get_by_id(cid)


async def set_title(store, cid, title):
    return await store.tenant(TENANT).conversations.update_with(cid, lambda it: it.evolve(title=title))


async def kept(store, cid):
    """Read a conversation until it comes from the process, and return it."""
    gateway = store.redis.cache

    async def is_hit():
        hits = gateway.hits
        found = await read(store, cid)
        return found if gateway.hits > hits else None

    return await eventually(is_hit)


async def hits_of(store, cid, count=20):
    """Return how many of some reads come from the process."""
    before = store.redis.cache.hits
    for _ in range(count):
        await read(store, cid)
    return store.redis.cache.hits - before


async def test_what_is_kept_asks_nobody(opened, proxy, cid):
    store = await opened(redis_url=SecretStr(proxy.url), near_cache_bytes=ROOM)
    await kept(store, cid)
    proxy.commands.clear()
    assert await hits_of(store, cid) > 0
    assert proxy.commands.count("GET") < 20


async def test_it_is_off_unless_asked_for(one, cid):
    await warm(one, cid)
    assert not hasattr(one.redis.cache, "hits")


async def test_its_own_write_is_read_at_once_and_needs_nobody_to_say_so(behind_paused, paused, cid):
    await kept(behind_paused, cid)
    behind_paused.redis.cache.tracking.lag = 30
    paused.flows.clear()
    for number in range(5):
        await kept(behind_paused, cid)
        await set_title(behind_paused, cid, f"{number}")
        assert (await read(behind_paused, cid)).title == f"{number}"


async def test_its_own_write_refuses_a_reply_that_is_on_its_way(near, cid):
    conversations = near.tenant(TENANT).conversations
    await usable(near)
    for number in range(60):
        reading = [asyncio.create_task(conversations.get_by_id(cid)) for _ in range(4)]
        await set_title(near, cid, f"{number}")
        assert (await read(near, cid)).title == f"{number}"
        await asyncio.gather(*reading)
        assert (await read(near, cid)).title == f"{number}"


async def test_its_own_unit_of_work_and_activity_are_read_at_once(near, cid):
    await kept(near, cid)
    async with near.transaction():
        await set_title(near, cid, "united")
        await near.tenant(TENANT).messages.append(cid, text())
    found = await read(near, cid)
    assert (found.title, found.message_count) == ("united", 1)
    await kept(near, cid)
    await near.tenant(TENANT).messages.append(cid, text())
    assert (await read(near, cid)).message_count == 2


async def test_the_write_of_another_process_is_read_within_the_bound(near, other, cid):
    for number in range(10):
        await kept(near, cid)
        await set_title(other, cid, f"{number}")
        end = time.monotonic() + LAG
        while time.monotonic() < end:
            await read(near, cid)  # so that it goes on asking whether what it knows is complete
        assert (await read(near, cid)).title == f"{number}"


async def test_a_new_status_by_another_process_is_told_and_not_only_waited_for(near, other, cid):
    near.redis.cache.tracking.lag = 30
    await kept(near, cid)
    await other.tenant(TENANT).conversations.update_conversation_status(cid, ConversationStatus.COMPLETED)
    await eventually(lambda: _completed(near, cid))


async def _completed(store, cid):
    return (await read(store, cid)).status is ConversationStatus.COMPLETED


async def test_invalidations_that_stall_end_its_use_within_the_bound(behind_paused, paused, other, cid):
    for number in range(3):
        await kept(behind_paused, cid)
        paused.flows.clear()
        await set_title(other, cid, f"{number}")
        await asyncio.sleep(LAG)
        assert (await read(behind_paused, cid)).title == f"{number}"
        paused.flows.set()


async def test_an_answer_counts_from_when_it_was_asked_for(opened, own_redis, monkeypatch):
    monkeypatch.setattr(redis_tracking, "PATIENCE", 30)  # on this occasion the connection is not given up
    async with PausedProxy("127.0.0.1", own_redis.port) as paused:
        other = await opened(redis_url=SecretStr(own_redis.url))
        store = await opened(redis_url=SecretStr(paused.url), near_cache_bytes=ROOM, near_cache_lag=0.5)
        cid, tracking = await conversation(other), store.redis.cache.tracking
        await kept(store, cid)
        await eventually(lambda: tracking._pinged is None)
        paused.flows.clear()
        await asyncio.sleep(tracking.lag)
        assert not tracking.is_complete()
        await paused.let_pass_once()  # the question
        await set_title(other, cid, "new")
        await asyncio.sleep(tracking.lag)
        await paused.let_pass_once()  # the answer, and not what the server has said since
        assert tracking._pinged is None
        assert (await read(store, cid)).title == "new"
        paused.flows.set()


async def test_a_connection_that_stalls_is_given_up_and_everything_forgotten(behind_paused, paused, cid):
    await kept(behind_paused, cid)
    paused.flows.clear()
    await asyncio.sleep(LAG)
    await read(behind_paused, cid)
    await eventually(lambda: not behind_paused.redis.cache.tracking.stands)
    assert len(behind_paused.redis.cache.replies) == 0
    paused.flows.set()
    await kept(behind_paused, cid)


async def test_a_lost_connection_forgets_everything_and_another_one_is_made(behind_paused, paused, other, cid):
    replies = behind_paused.redis.cache.replies
    await kept(behind_paused, cid)
    kept_before = replies.get(_key(replies))
    paused.cut_connections()
    await eventually(lambda: replies.get(_key(replies)) is not kept_before)
    await set_title(other, cid, "while it was away")
    await eventually(lambda: behind_paused.redis.cache.tracking.stands)
    await asyncio.sleep(LAG)
    assert (await kept(behind_paused, cid)).title == "while it was away"


def _key(replies):
    return next(iter(replies._replies), "")


async def test_a_frozen_server_ends_its_use_within_the_bound(opened, other, cid):
    with RedisServer() as server:
        store = await opened(redis_url=SecretStr(server.url), near_cache_bytes=ROOM, cache_deadline=0.2)
        await kept(store, cid)
        server.pause()
        await asyncio.sleep(LAG)
        assert await hits_of(store, cid, 3) == 0
        server.resume()


async def test_a_server_that_forgets_everything_says_so(opened, cid):
    with RedisServer() as server:
        store = await opened(redis_url=SecretStr(server.url), near_cache_bytes=ROOM)
        store.redis.cache.tracking.lag = 30
        await kept(store, cid)
        server.ask("FLUSHALL")
        await eventually(lambda: len(store.redis.cache.replies) == 0)


async def test_what_ends_or_is_evicted_is_forgotten(opened):
    with RedisServer() as server:
        store = await opened(redis_url=SecretStr(server.url), near_cache_bytes=ROOM)
        space = CacheSpace("short", ttl=0.2, negative_ttl=0, jitter=0)

        async def load():
            return "value"

        for _ in range(3):
            await store.cache.get_or_load(TENANT, space, "key", load)
        await eventually(lambda: len(store.redis.cache.replies) == 0)


async def test_an_epoch_that_was_raised_ends_the_use_of_what_is_kept(near, behind, other, proxy, cid):
    await kept(near, cid)
    await usable(behind)
    proxy.cut_before(1, times=1000)
    await set_title(behind, cid, "not told")
    assert (await near.tenant(TENANT).conversations.get_by_id(cid)).title == "not told"


async def test_an_idle_process_asks_again_before_it_uses_what_it_has(near, other, cid):
    await kept(near, cid)
    await asyncio.sleep(3 * LAG)
    await usable(near)
    before = near.redis.cache.hits
    await near.tenant(TENANT).conversations.get_by_id(cid)
    assert near.redis.cache.hits == before
    await kept(near, cid)


async def test_a_cluster_is_refused_at_opening(opened):
    with pytest.raises(ValidationError, match="near_cache_bytes"):
        await opened(redis_url=SecretStr("redis+cluster://127.0.0.1:1"), near_cache_bytes=ROOM)


async def test_a_server_that_does_not_say_what_changes_is_refused_at_opening(opened):
    with RedisServer() as server:
        server.ask("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-client|tracking")
        url = server.url.replace("redis://", "redis://app:secret@")
        with pytest.raises(RepositoryError, match="denied CLIENT TRACKING for the near cache"):
            await opened(redis_url=SecretStr(url), near_cache_bytes=ROOM)
        assert (await opened(redis_url=SecretStr(url))).redis.cache.deadline


async def test_a_server_that_is_away_at_opening_is_listened_to_when_it_comes(opened, cid):
    with RedisServer() as server:
        server.kill()
        store = await opened(redis_url=SecretStr(server.url), near_cache_bytes=ROOM, breaker_pause=0.05)
        assert (await read(store, cid)).conversation_id == cid
        server.start()
        await kept(store, cid)


@pytest.mark.parametrize(("name", "value"), [("near_cache_bytes", -1), ("near_cache_lag", 0), ("near_cache_lag", 11)])
async def test_a_setting_that_cannot_be_right_is_refused(opened, name, value):
    with pytest.raises(ValidationError, match=name):
        await opened(**{name: value})


async def test_newest_messages_are_kept_too_and_its_own_are_read_at_once(opened, paused, cid):
    settings = {"cache_messages": True, "near_cache_bytes": ROOM, "cache_deadline": 0.5}
    store = await opened(redis_url=SecretStr(paused.url), **settings)
    messages, gateway = store.tenant(TENANT).messages, store.redis.cache

    async def newest():
        return [each.content for each in (await messages.history(cid)).items]

    async def is_kept():
        await usable(store)
        hits = gateway.hits
        await newest()
        return gateway.hits > hits

    for number in range(4):
        gateway.tracking.lag = LAG
        await eventually(is_kept)
        gateway.tracking.lag = 30
        paused.flows.clear()
        sent = await messages.append(cid, text(f"{number}"))
        assert (await newest())[-1] == f"{number}"
        await messages.edit(cid, sent.sequence, content="edited")
        assert (await newest())[-1] == "edited"
        paused.flows.set()
