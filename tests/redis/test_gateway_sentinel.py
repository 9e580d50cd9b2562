"""A primary behind Sentinels: found, and found again after a failover."""

import asyncio

import pytest
from gateway_support import ADD, READ, WRITE, ended, eventually, opened

from convostore.gateways.breaker import Breaker
from convostore.repositories.exceptions import ConnectionError as OurConnectionError
from convostore.repositories.exceptions import Outcome
from convostore.testing.redis_groups import LocalSentinels
from convostore.testing.redis_servers import find_program

pytestmark = [pytest.mark.slow, pytest.mark.one_server]
KINDS = [
    "valkey",
    pytest.param("redis", marks=pytest.mark.skipif(not find_program("redis"), reason="no redis-server on the PATH")),
]


async def _succeeds(gateway):
    return (await ended(gateway.command(READ, "GET", "k")))[0] == b"1"


async def _is_written(gateway):
    return isinstance((await ended(gateway.script(WRITE, ADD, ["k"], 1)))[0], int)


@pytest.mark.parametrize("kind", KINDS)
async def test_after_a_failover_calls_work_again(kind):
    with LocalSentinels(kind) as group:
        async with opened(group.url, deadline=1, breaker=Breaker(5, 0.1)) as gateway:
            assert await gateway.script(WRITE, ADD, ["k"], 1) == 1
            assert await gateway.command(READ, "WAIT", 1, 500) == 1
            first = group.servers[0]
            group.sentinels[0].kill()  # the first of the address
            first.kill()
            error, _ = await ended(gateway.command(WRITE, "INCR", "k"))
            assert isinstance(error, OurConnectionError)
            await eventually(lambda: _succeeds(gateway), 30)
            await eventually(lambda: _is_written(gateway), 30)
            assert not gateway.breaker.is_open
            assert group.servers[1].ask("GET", "k") == "2"


def _plays(role, server):
    try:
        return f"role:{role}" in server.ask("INFO", "replication")
    except OSError:  # the Sentinels throw a server's clients out when they change its role
        return False


async def test_a_primary_that_has_become_a_replica_is_left_for_the_new_one():
    with LocalSentinels() as group:
        async with opened(group.url, deadline=1, breaker=Breaker(5, 0.1)) as gateway:
            await asyncio.gather(*(gateway.script(WRITE, ADD, ["k"], 1) for _ in range(10)))
            assert await gateway.command(READ, "WAIT", 1, 500) == 1
            group.sentinels[0].ask("SENTINEL", "FAILOVER", group.service)
            await eventually(lambda: _plays("master", group.servers[1]), 30)
            await eventually(lambda: _is_written(gateway), 30)
            await eventually(lambda: _plays("slave", group.servers[0]), 30)
            await eventually(lambda: _is_written(gateway), 30)
            assert await gateway.script(WRITE, ADD, ["k"], 0) == int(group.servers[1].ask("GET", "k"))


async def test_a_frozen_sentinel_costs_one_call_and_a_dead_one_none():
    with LocalSentinels() as group:
        group.sentinels[0].pause()
        async with opened(group.url, deadline=0.5) as gateway:
            error, _ = await ended(gateway.command(WRITE, "SET", "k", 1))
            assert isinstance(error, OurConnectionError)
            assert error.outcome is Outcome.NOT_APPLIED
            gateway.deadline = 5
            assert await gateway.command(WRITE, "SET", "k", 1) == b"OK"
        group.sentinels[0].kill()
        async with opened(group.url) as gateway:
            assert await _succeeds(gateway)


async def test_a_service_that_no_sentinel_knows_is_a_connection_error():
    with LocalSentinels(sentinels=1) as group:
        async with opened(group.url.replace(group.service, "unknown")) as gateway:
            error, _ = await ended(gateway.command(WRITE, "SET", "k", 1))
            assert isinstance(error, OurConnectionError)
            assert str(error) == "no connection to Redis could be made for write"
