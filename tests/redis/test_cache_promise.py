"""No read through the cache is older than a write that has returned, whatever is evicted, slow or cancelled."""

import asyncio

import pytest
from cache_checker import Outcome, check
from redis_scale import scaled


async def _checked(cache: str, url: str, tenant: str, seconds: float) -> Outcome:
    outcome = await asyncio.to_thread(check, cache, url, tenant, seconds, seed=7)
    print(outcome)
    assert min(outcome.reads, outcome.writes, outcome.loads, outcome.evictions) > 0
    return outcome


async def test_no_read_is_older_than_a_write_that_has_returned(redis_url: str, tenant: str) -> None:
    outcome = await _checked("ProtocolCache", redis_url, tenant, scaled(30))
    assert (outcome.old, outcome.stale) == (0, 0)
    assert outcome.loads < outcome.reads / 2, "it is a cache"


@pytest.mark.one_server
async def test_no_read_is_older_than_a_write_without_versions(redis_url: str, tenant: str) -> None:
    outcome = await _checked("UnversionedCache", redis_url, tenant, scaled(30))
    assert (outcome.old, outcome.stale) == (0, 0)


@pytest.mark.one_server
async def test_the_checker_sees_what_deleting_after_a_write_leaves_behind(redis_url: str, tenant: str) -> None:
    outcome = await _checked("PlainDelCache", redis_url, tenant, 3)
    assert outcome.old > 0
