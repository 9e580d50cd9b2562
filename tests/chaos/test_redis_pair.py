"""The pair loses nothing that it acknowledged, whatever its faults do to it, and leads clients to the primary."""

import asyncio

import pytest
import pytest_asyncio

from convostore import ConvoStore
from convostore.database.redis_client import RedisClients
from convostore.database.settings import RedisSettings
from convostore.gateways.operation import Operation
from convostore.models.types import utc_now
from convostore.repositories.exceptions import ConnectionError as OurConnectionError
from convostore.testing import RedisPair, skewed

READ = Operation("get", "test", "Test", repeatable=True)
WRITE = Operation("set", "test", "Test", writes=True)


@pytest_asyncio.fixture
async def pair():
    async with RedisPair() as pair:
        yield pair


@pytest_asyncio.fixture
async def gateway(pair):
    clients = RedisClients.open(RedisSettings(redis_url=pair.url, redis_deadline=2, breaker_pause=0.02))
    yield clients.state
    await clients.aclose()


async def test_what_was_acknowledged_is_there_after_a_kill_and_a_failover(pair, gateway):
    await gateway.command(WRITE, "SET", "k", "1")
    async with pair.killed():
        with pytest.raises(OurConnectionError):
            await gateway.command(WRITE, "SET", "k", "2")
    assert await gateway.command(READ, "GET", "k") == b"1"
    former = pair.primary
    await pair.fail_over()
    assert pair.replica is former
    assert await gateway.command(READ, "GET", "k") == b"1"
    await gateway.command(WRITE, "SET", "k", "3")
    await pair.fail_over()
    assert await gateway.command(READ, "GET", "k") == b"3"


async def test_a_frozen_primary_answers_after_the_thaw_only(pair, gateway):
    await gateway.command(WRITE, "SET", "k", "1")
    async with pair.frozen():
        asking = asyncio.create_task(gateway.command(READ, "GET", "k"))
        _, waiting = await asyncio.wait([asking], timeout=0.3)
        assert waiting
    assert await asking == b"1"


async def test_a_blocked_proxy_lets_nothing_pass_until_it_is_healed(pair, gateway):
    await gateway.command(WRITE, "SET", "k", "1")
    pair.proxy.block()
    asking = asyncio.create_task(gateway.command(WRITE, "SET", "k", "2"))
    _, waiting = await asyncio.wait([asking], timeout=0.3)
    assert waiting
    assert pair.primary.ask("GET", "k") == "1"
    pair.proxy.heal()
    await asking
    assert pair.primary.ask("GET", "k") == "2"


@pytest.mark.parametrize("seconds", [300, -300])
async def test_a_wrong_clock_is_wrong_for_what_is_stamped_only(seconds):
    right = utc_now()
    with skewed(seconds):
        wrong = utc_now()
    assert seconds <= (wrong - right).total_seconds() < seconds + 5
    assert (utc_now() - right).total_seconds() < 5


@pytest.mark.parametrize("seconds", [300, -300])
async def test_sessions_live_by_the_servers_clock(convostore_store: ConvoStore, seconds):
    sessions = convostore_store.sessions
    with skewed(seconds):
        session = await sessions.start_session("acme", "u", idle_seconds=0.4, lifetime_seconds=0.4)
        assert await sessions.get_session("acme", session.session_id)
        await asyncio.sleep(0.5)
        assert await sessions.get_session("acme", session.session_id) is None
