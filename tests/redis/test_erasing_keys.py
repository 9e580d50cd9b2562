"""What Redis holds of a tenant or a user is found and erased, on one server and on a cluster, and nothing else."""

import pytest

from convostore import CacheRepository, CacheSpace, RateLimitRepository, SessionRepository
from convostore.gateways.operation import Operation
from convostore.models.keys import LONGEST_COMPONENT, pattern, redis_key
from convostore.operations.redis_erasing import InRedis, RedisErasing
from convostore.repositories.session_erasing import SessionErasing, Wanted

SPACE = CacheSpace("anything")
USERS = 30
_ANY = Operation("test", "redis", "Key", writes=True, repeatable=True)


async def settle_in(clients, tenant):
    """Leave something of every kind, on every server of a cluster; return the sessions."""
    sessions = SessionRepository(clients.state, clients.session_key)
    limits, cache = RateLimitRepository(clients.state), CacheRepository(clients.cache)
    started = []
    for number in range(USERS):
        started.append(await sessions.start_session(tenant, f"u-{number}", data={"k": 1}))
        await limits.check_rate_limit(tenant, f"u-{number}", 10, 60)
        await cache.set(tenant, SPACE, f"k-{number}", number, tags=[f"t-{number}"])
    await sessions.revoke_user_sessions(tenant, "u-0")
    return started


async def keys(clients, tenant):
    found = []
    async for some in clients.state.scan(_ANY, pattern("*", tenant)):
        found += some
    return sorted(found)


async def test_everything_of_a_tenant_goes_and_nothing_of_one_whose_name_is_like_his(clients, tenant):
    sibling = tenant[:-1] + "*"  # a pattern that is not escaped would match the other
    sessions, theirs = await settle_in(clients, tenant), await settle_in(clients, sibling)
    kept = await keys(clients, sibling)
    for name in (tenant, sibling):
        found = await RedisErasing(clients, Wanted(name)).look()
        assert found == InRedis(sessions=USERS, limits=USERS, others=2 * USERS + USERS - 1)
    events = clients.state
    await RedisErasing(clients, Wanted(tenant)).erase()
    assert await RedisErasing(clients, Wanted(tenant)).look() == InRedis()
    assert await keys(clients, sibling) == kept
    repository = SessionRepository(events, clients.session_key)
    for session in sessions:
        assert await repository.get_session(tenant, session.session_id) is None
        assert not await repository.create_session(session), "a used id stays used"
    assert await repository.get_session(sibling, theirs[1].session_id) is not None
    for key in await keys(clients, tenant):
        assert await clients.state.command(_ANY, "HKEYS", key) == [b"gone"]
        assert await clients.state.command(_ANY, "PTTL", key) > 0


async def test_everything_of_a_user_goes_also_without_the_secret_of_the_sessions(clients, tenant):
    sessions = await settle_in(clients, tenant)
    for number, kept in ((0, USERS), (1, USERS - 1)):
        erasing = RedisErasing(clients, Wanted(tenant, f"u-{number}"), [f"u-{number}"])
        assert await erasing.look() == InRedis(sessions=1, limits=1)
        await erasing.erase()
        assert await erasing.look() == InRedis()
        assert await SessionErasing(clients.state).count(Wanted(tenant)) == kept - 1
    repository = SessionRepository(clients.state, clients.session_key)
    lives = [await repository.get_session(tenant, each.session_id) is not None for each in sessions]
    assert lives == [False, False] + [True] * (USERS - 2)


@pytest.mark.one_server
async def test_those_who_hold_a_session_open_are_told_of_its_end_and_only_if_it_lived(clients, tenant):
    sessions = SessionRepository(clients.state, clients.session_key)
    ended, other, _ = [await sessions.start_session(tenant, user) for user in ("u", "v", "revoked")]
    await sessions.revoke_user_sessions(tenant, "revoked")
    revocations = sessions.revocations(tenant)
    await anext(revocations)  # the connection stands
    for user, count in (("u", 1), ("u", 0), ("revoked", 1)):
        assert await SessionErasing(clients.state).erase(Wanted(tenant, user)) == count
    await sessions.delete_session(tenant, other.session_id)
    told = [await anext(revocations) for _ in range(2)]
    assert [(each.user_id, each.fingerprint) for each in told] == [("u", ended.fingerprint), ("v", other.fingerprint)]
    await revocations.aclose()


@pytest.mark.parametrize("name", ["a", "a:b", "{a}", "*", "[a-z]", "a\\", "?", "^", "é🙂", "x" * LONGEST_COMPONENT * 2])
@pytest.mark.one_server
async def test_a_pattern_finds_the_keys_of_its_tenant_and_no_others(clients, tenant, name):
    own, other = name + tenant, "b" + tenant
    marked = [redis_key("limit", (own,)), redis_key("limit", (own,), own), redis_key("cache", (own, other, own), "0")]
    others = [
        redis_key("limit", (other,), own),
        redis_key("cache", (other, own), own),
        redis_key("limit", (own + "x",)),
    ]
    for key in (*marked, *others):
        await clients.state.command(_ANY, "SET", key, "1", "PX", 60_000)
    assert await keys(clients, own) == sorted(key.encode() for key in marked)
