"""A new primary may for a moment not know what the majority has: what it told then must not be kept."""

import pytest
from cached_support import TENANT, conversation, eventually, usable
from pydantic import SecretStr

from convostore import ConvoStore
from convostore.testing import ReplicaSet

pytestmark = pytest.mark.slow


async def test_the_number_is_raised_once_for_an_election_and_not_used_before(
    convostore_settings, convostore_redis_settings
):
    async with ReplicaSet() as replica_set:
        settings = convostore_settings.evolve(mongodb_uri=SecretStr(replica_set.uri))
        redis = convostore_redis_settings.evolve(cache_conversations=True)
        async with (
            ConvoStore.open(settings, redis) as one,
            ConvoStore.open(settings, redis) as other,
        ):
            cid = await conversation(one)
            for store in (one, other):
                await usable(store)
            before = await one.mongodb.cached.epoch.current()
            assert before.election == one.mongodb.election != ""
            await replica_set.step_down()
            await eventually(lambda: one.mongodb.election > before.election)
            assert one.mongodb.cached.epoch.usable() is None
            for store in (one, other):
                assert await store.tenant(TENANT).conversations.get_by_id(cid)
                await usable(store)
                after = await store.mongodb.cached.epoch.current()
                assert after.number > before.number
                assert after.election == store.mongodb.election
            assert after.number == before.number + 1


async def test_what_was_being_loaded_when_the_epoch_ended_is_not_kept(one, other, monkeypatch):
    cid = await conversation(one)
    await usable(one)
    cached, election = one.mongodb.cached, "f" * 24
    assert cached.epoch.usable() is not None

    async def load():
        monkeypatch.setattr(type(one.mongodb), "election", election)  # the driver learns of it while it reads
        return await one.tenant(TENANT).conversations.get_by_id(cid, fresh=True)

    assert (await cached.get(TENANT, cid, load)).conversation_id == cid
    monkeypatch.undo()
    assert await cached._cache.get(TENANT, cached._space, cid) is None
