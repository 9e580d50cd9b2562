"""Limits under several processes, many identities, and many keys."""

import asyncio
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rate_limit_support import MICROSECONDS, clocked, set_clock
from redis_scale import scaled

from convostore.database.redis_client import RedisClients
from convostore.database.settings import RedisSettings
from convostore.gateways.operation import Operation
from convostore.models.redis.rate_limits import WHOLE_TENANT
from convostore.repositories.rate_limit_keys import Policies, Request, identity_key
from convostore.repositories.rate_limit_repository import RateLimitRepository
from convostore.repositories.rate_limit_server import LimitScripts, decided

WORKER = Path(__file__).with_name("rate_limit_worker.py")
PROCESSES, LIMIT, ATTEMPTS = 8, 1000, 400
LOOK = Operation("look", "limit", "Test")


def _start(stack, *arguments):
    worker = subprocess.Popen(
        [sys.executable, str(WORKER), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    stack.enter_context(worker)
    stack.callback(worker.kill)
    return worker


@pytest.mark.slow
@pytest.mark.one_server
def test_eight_processes_get_exactly_the_limit_together(redis_url, tenant):
    with ExitStack() as stack:
        workers = [_start(stack, redis_url, tenant, str(LIMIT), str(ATTEMPTS)) for _ in range(PROCESSES)]
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        admitted = [int(worker.communicate(timeout=100)[0]) for worker in workers]
    assert sum(admitted) == LIMIT < PROCESSES * ATTEMPTS
    assert sum(each > 0 for each in admitted) > 1


nasty = st.lists(
    st.sampled_from([":", "%", "%3A", "{", "}", "{}", "=", "a", "b", " ", "é", "\U0001f600"]), min_size=1, max_size=6
)
identifiers = st.one_of(
    nasty.map("".join), st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=200)
)
identities = st.tuples(identifiers, st.one_of(identifiers, st.just(WHOLE_TENANT)))


@settings(max_examples=scaled(1000), deadline=None)
@given(identities, identities)
def test_no_two_identities_share_a_key(one, other):
    assert (identity_key(*one) == identity_key(*other)) == (one == other)


@pytest.mark.one_server
async def test_no_two_identities_or_policies_share_a_counter(clients, tenant):
    limits = RateLimitRepository(clients.state, {"a": "1/hour", "h": "1/hour", "day": "1 per calendar day"})
    names = [":", "%", "%3A", "{", "}", "a", "a:a", "a}:{a", "day", "3600s", "@", "!", "=now", WHOLE_TENANT]
    policies = [
        "a",
        "h",
        "day",
        "1/hour",
        "1/hour burst 1",
        "1 per calendar day",
        "1 per calendar month",
        "1/59 minutes",
    ]
    for owner in (tenant, f"{tenant}:a"):
        for name in names:
            for policy in policies:
                assert (await limits.check_rate_limit(owner, name, policy=policy)).current_count == 1, (name, policy)


@pytest.mark.slow
async def test_identities_that_are_not_used_any_more_leave_nothing_behind(own_server, tenant):
    mine = RedisClients.open(RedisSettings(redis_url=own_server.url, redis_deadline=30))
    check, policies = LimitScripts.of(guarded=False).check, Policies()
    try:
        for begin in range(0, scaled(100_000), 1000):
            subjects = [policies.subject(f"user-{number}", "5/second") for number in range(begin, begin + 1000)]
            asked = [Request(tenant, (subject,)).keys() for subject in subjects]
            replies = await mine.state.scripts(LOOK, check, [(keys, ("c1", b"", *rest)) for keys, rest in asked])
            assert all(decided((subject,), reply).allowed for subject, reply in zip(subjects, replies, strict=True))
        async with asyncio.timeout(30):
            while int(own_server.ask("DBSIZE").strip(":")):  # noqa: ASYNC110 - another process's doing
                await asyncio.sleep(0.1)
    finally:
        await mine.aclose()
    assert "evicted_keys:0" in own_server.ask("INFO", "stats")


@pytest.mark.one_server
async def test_an_identity_takes_few_bytes_whatever_its_limit(clients, tenant):
    limits = RateLimitRepository(clients.state, scripts=clocked(LimitScripts.of(guarded=False)))
    await set_clock(clients.state, tenant, 0)
    await limits.check_rate_limit(tenant, "rare", 1_000_000, 3600)
    for _ in range(100):
        await limits.increment_counter(tenant, "often", 3600, cost=10_000)
    sizes = [
        await clients.state.command(LOOK, "MEMORY", "USAGE", identity_key(tenant, name)) for name in ("rare", "often")
    ]
    assert max(sizes) <= 200
    for minute in range(61):
        await set_clock(clients.state, tenant, minute * 60 * MICROSECONDS)
        await limits.increment_counter(tenant, "spread", 3600)
    assert (await limits.get_rate_limit_info(tenant, "spread", 100, 3600))["current_count"] == 61
    assert await clients.state.command(LOOK, "MEMORY", "USAGE", identity_key(tenant, "spread")) <= 600
