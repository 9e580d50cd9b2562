"""Usage of quotas, written for billing: once for each period, whoever writes it and however often."""

import asyncio
from datetime import UTC, datetime

import pytest
from rate_limit_support import MICROSECONDS, clocked, set_clock

from convostore import WHOLE_TENANT, ConnectionError, ConvoStore, RateLimitPolicy, ValidationError  # noqa: A004
from convostore.database.redis_client import RedisClients
from convostore.database.settings import RedisSettings
from convostore.models.redis.quota_usage import QuotaUsage
from convostore.operations.quota_usage import write_usage, written_usage
from convostore.repositories.rate_limit_repository import RateLimitRepository
from convostore.repositories.rate_limit_server import LimitScripts

POLICIES = [
    RateLimitPolicy(name="plan", limit=1000, algorithm="month"),
    RateLimitPolicy(name="daily", limit=1000, algorithm="day"),
]
QUOTAS = [("u-1", "plan"), ("v:2", "plan"), (WHOLE_TENANT, "plan"), ("u-1", "daily")]


def moment(*date):
    return round(datetime(*date, tzinfo=UTC).timestamp()) * MICROSECONDS


@pytest.fixture
def limits(convostore_store):
    scripts = clocked(LimitScripts.of(guarded=False))
    return RateLimitRepository(convostore_store.redis.state, POLICIES, remember_denials=0, scripts=scripts)


@pytest.fixture
async def database(convostore_store, tenant):
    await set_clock(convostore_store.redis.state, tenant, moment(2026, 11, 30, 23))
    return convostore_store.tenant(tenant).database


async def _documents(store: ConvoStore):
    return await store.mongodb.database["usage"].find({}).sort("_id").to_list()


async def _use(limits, tenant, cost=1):
    for identifier, policy in QUOTAS:
        assert (await limits.check_rate_limit(tenant, identifier, policy=policy, cost=cost)).allowed


async def test_each_period_of_each_identity_is_written_once_however_often(convostore_store, database, limits, tenant):
    await _use(limits, tenant, cost=3)
    await set_clock(convostore_store.redis.state, tenant, moment(2026, 12, 1, 1))
    await _use(limits, tenant, cost=5)
    used = await write_usage(limits, database, QUOTAS)
    assert QuotaUsage("u-1", "daily", "2026-11-30", 3) in used
    assert await written_usage(database, "plan", "2026-11") == [
        QuotaUsage(None, "plan", "2026-11", 3),
        QuotaUsage("u-1", "plan", "2026-11", 3),
        QuotaUsage("v:2", "plan", "2026-11", 3),
    ]
    assert await written_usage(database, "daily", "2026-12-01") == [QuotaUsage("u-1", "daily", "2026-12-01", 5)]
    written = await _documents(convostore_store)
    assert len(written) == 2 * len(QUOTAS)
    await asyncio.gather(*(write_usage(limits, database, QUOTAS) for _ in range(10)))
    assert await _documents(convostore_store) == written


async def test_several_programs_that_write_the_first_time_make_one_document(convostore_store, database, limits, tenant):
    await _use(limits, tenant)
    await asyncio.gather(*(write_usage(limits, database, QUOTAS) for _ in range(20)))
    assert [each["units"] for each in await _documents(convostore_store)] == [1] * len(QUOTAS)


async def test_what_was_written_never_sinks(database, limits, tenant):
    await limits.check_rate_limit(tenant, "u-1", policy="plan", cost=9)
    await write_usage(limits, database, QUOTAS)
    await limits.reset_rate_limit(tenant, "u-1")
    await limits.check_rate_limit(tenant, "u-1", policy="plan", cost=2)
    assert await write_usage(limits, database, QUOTAS) == [QuotaUsage("u-1", "plan", "2026-11", 2)]
    assert await written_usage(database, "plan", "2026-11") == [QuotaUsage("u-1", "plan", "2026-11", 9)]


async def test_what_is_reserved_is_written_once_it_is_settled(convostore_store, database, limits, tenant):
    await limits.check_rate_limit(tenant, "u-1", policy="plan", cost=1)
    short, long = [await limits.reserve(tenant, QUOTAS[:1], 100, lease_seconds=seconds) for seconds in (10, 86_400)]
    assert [each.units for each in await write_usage(limits, database, QUOTAS)] == [1]
    await set_clock(convostore_store.redis.state, tenant, moment(2026, 12, 1, 1))
    assert [each.units for each in await write_usage(limits, database, QUOTAS)] == [1]  # of a period that is over
    assert await limits.commit(long, 7)
    await write_usage(limits, database, QUOTAS)
    assert await written_usage(database, "plan", "2026-11") == [QuotaUsage("u-1", "plan", "2026-11", 8)]
    assert not await limits.commit(short, 7)


async def test_tenants_are_written_apart_and_many_quotas_in_turns(convostore_store, database, limits, tenant):
    many = [(f"u-{number}", "plan") for number in range(70)]
    for pair in many:
        await limits.check_rate_limits(tenant, [pair])
    assert len(await write_usage(limits, database, many)) == 70
    assert len(await written_usage(database, "plan", "2026-11")) == 70
    assert await written_usage(convostore_store.tenant("other").database, "plan", "2026-11") == []


async def test_a_limit_that_is_no_quota_is_refused_and_nothing_is_written_while_redis_is_away(
    convostore_store, database, limits
):
    with pytest.raises(ValidationError, match=r"limits: policy '60s' is no quota of the calendar"):
        await write_usage(limits, database, [("u-1", "5/minute")])
    away = RedisClients.open(RedisSettings.from_environment({}, redis_url="redis://127.0.0.1:1/0"))
    with pytest.raises(ConnectionError):
        await write_usage(RateLimitRepository(away.state, POLICIES), database, QUOTAS)
    await away.aclose()
    assert await _documents(convostore_store) == []
