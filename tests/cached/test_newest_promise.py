"""No read of newest messages is older than a write that has returned, whoever is slow, cancelled or killed."""

import uuid

import pytest
from newest_checker import Outcome, Plan, check


async def _checked(settings, redis, cache, seconds, victims=0, **numbers):
    plan = Plan(
        mongodb=settings.mongodb_uri.get_secret_value(),
        database=settings.database_name,
        redis=redis.redis_url.get_secret_value(),
        tenant=uuid.uuid4().hex,
        cache=cache,
        seconds=seconds,
        readers=12,
        appenders=2,
        seed=11,
        **numbers,
    )
    outcome: Outcome = await check(plan, 3, victims)
    print(outcome)
    assert min(outcome.reads, outcome.hits, outcome.appends) > 0
    return outcome


async def test_no_read_is_older_than_a_write_that_has_returned(
    store, convostore_settings, convostore_redis_settings, scale
):
    given = convostore_settings, convostore_redis_settings, "SlowCache"
    outcome = await _checked(*given, 6 * scale, victims=6, changers=1, uniters=1, conversations=8)
    assert (outcome.old, outcome.torn, outcome.stale) == (0, 0, 0)
    assert min(outcome.changes, outcome.units, outcome.evictions, outcome.cancelled, outcome.kills) > 0


@pytest.mark.parametrize(
    ("cache", "changers"),
    [
        ("BlindCache", 0),  # extends without a look at the sequence, which each change would make good
        ("PlainDelCache", 1),  # fills without a lease
        ("HastyCache", 1),  # tells before it writes
    ],
)
async def test_the_checker_sees_what_is_wrong_with_others(
    store, convostore_settings, convostore_redis_settings, cache, changers
):
    given = convostore_settings, convostore_redis_settings, cache
    for _ in range(6):  # how often it happens depends on how busy the machine is
        outcome = await _checked(*given, 4, changers=changers, uniters=changers, conversations=3)
        if outcome.old + outcome.torn:
            return
    pytest.fail("it did not see it")
