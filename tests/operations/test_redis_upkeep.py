"""What doctor and stats say of the Redis of a store, and a store whose Redis is away."""

import pytest

from convostore import (
    CacheSpace,
    ConnectionError,  # noqa: A004 - the name is the specification's
    ConversationDocument,
    ConvoStore,
    MongoSettings,
    RedisSettings,
    RepositoryError,
    ValidationError,
    get_rate_limit_repository,
    get_session_repository,
)
from convostore.database.redis_client import RedisClients
from convostore.operations.doctor import Level
from convostore.operations.redis_doctor import RedisDoctor
from convostore.operations.redis_stats import collect

NOWHERE = "redis://:a-planted-password@127.0.0.1:1/0"


async def findings(clients: RedisClients) -> dict[str, tuple[Level, str]]:
    return {found.check: (found.level, found.text) async for found in RedisDoctor(clients).examine()}


async def test_the_doctor_examines_redis(store: ConvoStore) -> None:
    found = await findings(store.redis)
    assert found["Redis"][0] is Level.OK
    assert found["session key"] == (Level.OK, "set")
    assert {"persistence", "eviction"} <= found.keys()


async def test_the_doctor_names_what_is_missing_and_who_is_away_without_secrets() -> None:
    settings = RedisSettings.from_environment({}, redis_url=NOWHERE, cache_url=NOWHERE.replace("/0", "/1"))
    clients = RedisClients.open(settings)
    found = await findings(clients)
    await clients.aclose()
    assert found["session key"][0] is Level.WARNING
    assert found["Redis"][0] is Level.PROBLEM
    assert found["Redis, cache"][0] is Level.PROBLEM
    assert "planted" not in str(found)
    assert "planted" not in repr(settings)


async def test_the_keys_of_each_kind_are_counted_and_weighed(store: ConvoStore) -> None:
    before = {kind.kind: kind.keys for kind in (await collect(store.redis.state)).kinds}
    await store.rate_limits.check_rate_limit("stats-tenant", "u-1", 10, 60)
    await store.sessions.start_session("stats-tenant", "u-1")
    stats = await collect(store.redis.state, most=0)
    after = {kind.kind: kind for kind in stats.kinds}
    assert stats.complete
    assert after["limit"].keys >= before.get("limit", 0) + 1
    assert after["session"].keys >= before.get("session", 0) + 1
    assert all(kind.bytes_per_key > 0 for kind in stats.kinds)
    assert await store.rate_limits.reset_rate_limit("stats-tenant", "u-1")
    assert await store.sessions.revoke_user_sessions("stats-tenant", "u-1") == 1


async def test_conversations_go_on_while_redis_is_away(convostore_settings: MongoSettings) -> None:
    away = RedisSettings.from_environment({}, redis_url=NOWHERE, session_key="x" * 32)
    space: CacheSpace[str] = CacheSpace("text", ttl=60)

    async def load() -> str:
        return "loaded"

    async with ConvoStore.open(convostore_settings, away) as store:
        acme = store.tenant("acme")
        conversation = await acme.conversations.create(ConversationDocument.start(user_id="u-1"))
        assert await acme.conversations.get_by_id(conversation.conversation_id) is not None
        assert await store.cache.get_or_load("acme", space, "k", load) == "loaded"
        assert (await store.rate_limits.check_rate_limit("acme", "u-1", 1, 60)).degraded
        with pytest.raises(ConnectionError):
            await store.sessions.start_session("acme", "u-1")
        await store.mongodb.administration.drop_database()


async def test_a_store_without_redis_says_so(convostore_settings: MongoSettings) -> None:
    async with ConvoStore.open(convostore_settings, RedisSettings()) as store:
        for name in ("sessions", "rate_limits", "cache", "redis"):
            with pytest.raises(ValidationError, match="redis_url"):
                getattr(store, name)
        with store.tenant("acme").current(), pytest.raises(RepositoryError, match="no store with a Redis"):
            await get_session_repository()
        await store.mongodb.administration.drop_database()


async def test_the_dependencies_answer_for_the_current_store(store: ConvoStore) -> None:
    with store.tenant("acme").current():
        session = await (await get_session_repository()).start_session("acme", "u-dependency")
        assert await store.sessions.get_session("acme", session.session_id) is not None
        assert (await (await get_rate_limit_repository()).check_rate_limit("acme", "u-dependency", 5, 60)).allowed
        await store.sessions.delete_session("acme", session.session_id)
    with pytest.raises(RepositoryError):
        await get_session_repository()
