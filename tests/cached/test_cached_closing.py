"""Closing a store that caches: what is pending is told, and nothing is left."""

import asyncio

from cached_support import TENANT, conversation, text, warm


async def test_what_comes_after_the_cache_was_closed_is_told_by_the_database(opened, other):
    cid = await conversation(other)
    await warm(other, cid)
    late = await opened()
    await late.redis.aclose()
    await late.tenant(TENANT).messages.append(cid, text())
    await late.mongodb.activity.flush()
    assert late.mongodb.cached.epoch.raised == 1


async def test_no_task_is_left(opened, store):
    before = asyncio.all_tasks()
    late = await opened()
    cid = await conversation(late)
    read = await warm(late, cid)
    updating = asyncio.create_task(late.tenant(TENANT).conversations.update(read.evolve(title="new")))
    await asyncio.sleep(0)
    updating.cancel()
    await asyncio.wait([updating])
    await late.tenant(TENANT).messages.append(cid, text())
    await late.aclose()
    assert asyncio.all_tasks() == before
    found = await store.tenant(TENANT).conversations.get_by_id(cid)
    assert found.message_count == 1
