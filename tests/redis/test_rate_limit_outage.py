"""P11: the server stopped, frozen, emptied or full: each limit answers by its policy, in time, and recovers."""

import asyncio
import time

import pytest

from convostore.gateways.breaker import Breaker
from convostore.gateways.operation import Operation
from convostore.gateways.redis_gateway import RedisGateway
from convostore.models.redis.rate_limits import WHOLE_TENANT, RateLimitPolicy
from convostore.repositories.exceptions import ConnectionError, RepositoryError  # noqa: A004
from convostore.repositories.rate_limit_repository import RateLimitRepository
from convostore.testing.redis_servers import RedisServer, find_program

DEADLINE, GRACE = 0.3, 1.0  # seconds; what a busy machine may add
KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(find_program(kind) is None, reason="no such server"))
    for kind in ("valkey", "redis")
]


@pytest.fixture(params=KINDS)
def server(request):
    with RedisServer(request.param) as started:
        yield started


@pytest.fixture
async def limits(server):
    gateway = RedisGateway.connect(server.url, deadline=DEADLINE, breaker=Breaker(5, 0.2))
    policies = [
        RateLimitPolicy(name=name, limit=5, window_seconds=3600, when_unavailable=name)
        for name in ("local", "open", "closed")
    ]
    yield RateLimitRepository(gateway, policies)
    await gateway.aclose()


async def _in_time(call):
    began = time.monotonic()
    result = await call
    assert time.monotonic() - began < DEADLINE + GRACE
    return result


async def _follow_their_policies(limits, identifier):
    local = [await _in_time(limits.check_rate_limit("t", identifier, policy="local")) for _ in range(7)]
    assert [each.allowed for each in local] == [True] * 5 + [False] * 2
    assert local[-1].retry_after > 3500
    opened = [await _in_time(limits.check_rate_limit("t", identifier, policy="open")) for _ in range(7)]
    assert all(each.allowed for each in opened)
    closed = await _in_time(limits.check_rate_limit("t", identifier, policy="closed"))
    assert not closed.allowed
    assert closed.retry_after == 1
    assert closed.headers()["Retry-After"] == "1"
    both = await _in_time(limits.check_rate_limits("t", [(identifier, "open"), (WHOLE_TENANT, "closed")]))
    assert (both.allowed, both.policy.name) == (False, "closed")
    assert all(each.degraded for each in [*local, *opened, closed, both])


async def _every_call_answers(limits):
    await _in_time(limits.peek_rate_limits("t", [("p", "local")]))
    assert await _in_time(limits.get_remaining_quota("t", "p", policy="local")) == 5
    assert (await _in_time(limits.get_rate_limit_info("t", "p", 7, 60)))["remaining"] == 7
    assert await _in_time(limits.increment_counter("t", "p", 60)) == 1
    reservation = await _in_time(limits.reserve("t", [("p", "local")], 3))
    assert reservation.result.degraded
    assert await _in_time(limits.commit(reservation, 1)) is False
    for call in (limits.reset_rate_limit, limits.get_block, limits.lift_block):
        with pytest.raises(ConnectionError):
            await _in_time(call("t", "p"))


async def _recovered(limits, identifier):
    async with asyncio.timeout(20):
        while (await limits.check_rate_limit("t", identifier, 1000, 60)).degraded:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("fault", ["frozen", "killed"])
async def test_without_an_answer_each_limit_follows_its_policy(server, limits, fault):
    assert not (await limits.check_rate_limit("t", "u", policy="local")).degraded
    (server.pause if fault == "frozen" else server.kill)()
    await _follow_their_policies(limits, "away")
    await _every_call_answers(limits)
    (server.resume if fault == "frozen" else server.start)()
    await _recovered(limits, "back")
    assert (await limits.check_rate_limit("t", "new", policy="closed")).allowed


async def test_a_server_that_comes_back_empty_counts_from_nothing(server, limits):
    answers = [await limits.check_rate_limit("t", "u", policy="local") for _ in range(6)]
    assert not answers[-1].allowed
    server.restart()
    await _recovered(limits, "back")
    await asyncio.sleep(1.1)  # what is remembered of a denial
    result = await limits.check_rate_limit("t", "u", policy="local")
    assert (result.allowed, result.degraded) == (True, False)


def _fill(server):
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.ask("CONFIG", "SET", "maxmemory", "1")


async def test_a_full_server_is_as_good_as_none(server, limits):
    await limits.check_rate_limit("t", "u", 5, 60)
    _fill(server)
    assert (await limits.check_rate_limit("t", "u", 5, 60)).degraded
    await _follow_their_policies(limits, "full")
    assert await limits.get_remaining_quota("t", "u", 5, 60) == 4  # reading goes on, and nothing was taken
    server.ask("CONFIG", "SET", "maxmemory", "0")
    await _recovered(limits, "back")


async def test_a_full_server_takes_from_none_of_several_policies(server, limits):
    both = [("u", "local"), (WHOLE_TENANT, "open")]
    await limits.check_rate_limits("t", both)
    _fill(server)
    assert (await limits.check_rate_limits("t", both)).degraded
    server.ask("CONFIG", "SET", "maxmemory", "0")
    told = [await limits.peek_rate_limits("t", [pair]) for pair in both]
    assert [each.current_count for each in told] == [1, 1]


async def test_a_reservation_can_be_settled_when_the_server_is_back(server, limits):
    reservation = await limits.reserve("t", [("u", "local")], 3)
    server.pause()
    with pytest.raises(ConnectionError):
        await limits.commit(reservation, 1)
    server.resume()
    await _recovered(limits, "back")
    assert await limits.commit(reservation, 1) is True
    assert await limits.get_remaining_quota("t", "u", policy="local") == 4


async def test_a_refusal_is_no_outage(limits):
    put = Operation("SET", "limit", "Test", writes=True)
    await limits._server.redis.command(put, "SET", "cs:limit:{t}:broken", "not a hash")
    with pytest.raises(RepositoryError, match="refused") as caught:
        await limits.check_rate_limit("t", "broken", 5, 60)
    assert not isinstance(caught.value, ConnectionError)
