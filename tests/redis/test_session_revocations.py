"""Who holds a session open, such as a web socket, is told when it ends before its time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convostore.database.redis_client import RedisClients
from convostore.gateways.redis_gateway import RedisGateway
from convostore.models.redis.session_cache import SessionData
from convostore.models.redis.session_identity import channel
from convostore.repositories.session_events import Revocation, RevocationKind
from convostore.repositories.session_policy import SessionPolicy
from convostore.repositories.session_repository import SessionRepository
from convostore.testing.redis_servers import RedisServer

USER = 'u"1\\é/'
MISSED = Revocation(RevocationKind.MISSED)


@pytest.fixture
def sessions(clients: RedisClients) -> SessionRepository:
    return SessionRepository(clients.state, clients.session_key, SessionPolicy(max_sessions=3))


Take = Callable[[int], Awaitable[list[Revocation]]]


@asynccontextmanager
async def listening(sessions: SessionRepository, tenant: str) -> AsyncIterator[Take]:
    """Listen to a tenant; gives a function that waits for so many events and returns them."""
    heard: asyncio.Queue[Revocation] = asyncio.Queue()

    async def listen() -> None:
        async for event in sessions.revocations(tenant):
            await heard.put(event)

    async def take(count: int) -> list[Revocation]:
        async with asyncio.timeout(20):
            return [await heard.get() for _ in range(count)]

    task = asyncio.ensure_future(listen())
    try:
        assert await take(1) == [MISSED]  # from here on everything is heard
        yield take
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_every_end_before_its_time_is_told(sessions: SessionRepository, tenant: str) -> None:
    async with listening(sessions, tenant) as take, listening(sessions, f"{tenant}x") as take_elsewhere:
        first, second, third = [await sessions.start_session(tenant, USER, idle_seconds=900 + n) for n in range(3)]
        fourth = await sessions.start_session(tenant, USER)
        new = await sessions.rotate_session(tenant, second.session_id)
        await sessions.delete_session(tenant, third.session_id)
        await sessions.delete_session(tenant, third.session_id)  # ended already: nothing to tell
        await sessions.revoke_user_sessions(tenant, USER, except_id=new.session_id)
        await sessions.revoke_session(tenant, USER, new.fingerprint)
        assert await take(5) == [
            Revocation(RevocationKind.EVICTED, USER, first.fingerprint),
            Revocation(RevocationKind.ROTATED, USER, second.fingerprint, new.fingerprint),
            Revocation(RevocationKind.ENDED, USER, third.fingerprint),
            Revocation(RevocationKind.ALL, USER, new.fingerprint),
            Revocation(RevocationKind.ENDED, USER, new.fingerprint),
        ]
        await sessions.start_session(f"{tenant}x", USER)
        await sessions.revoke_user_sessions(f"{tenant}x", USER)
        assert await take_elsewhere(1) == [Revocation(RevocationKind.ALL, USER)]
        assert fourth.user_id == USER


async def test_an_event_says_which_open_sessions_it_may_concern(sessions: SessionRepository, tenant: str) -> None:
    mine, spared, other = [await sessions.start_session(tenant, user) for user in (USER, USER, "other")]
    kind = RevocationKind
    concerned: dict[Revocation, list[SessionData]] = {
        Revocation(kind.ENDED, USER, mine.fingerprint): [mine],
        Revocation(kind.ROTATED, USER, mine.fingerprint, "new"): [mine],
        Revocation(kind.EVICTED, USER, mine.fingerprint): [mine],
        Revocation(kind.ALL, USER): [mine, spared],
        Revocation(kind.ALL, USER, spared.fingerprint): [mine],
        MISSED: [mine, spared, other],
    }
    for event, expected in concerned.items():
        assert [each for each in (mine, spared, other) if event.may_concern(each)] == expected


NONE_OF_OURS = [b'["ended"', b'["gone","u"]', b"{}", b'["all",1]', b"[]", b'["all","u","f","s","more"]']


@given(st.one_of(st.binary(max_size=30), st.sampled_from(NONE_OF_OURS)))
def test_a_message_that_nobody_of_us_wrote_may_stand_for_anything(message: bytes) -> None:
    assert Revocation.parse(message) == MISSED


@pytest.mark.one_server
@pytest.mark.parametrize("fault", ["restart", "pause"])
async def test_after_a_lost_connection_the_listener_is_told_to_look(own_server: RedisServer, fault: str) -> None:
    gateway = RedisGateway.connect(own_server.url, deadline=5)
    sessions = SessionRepository(gateway, b"k" * 32)
    async with listening(sessions, "acme") as take:
        if fault == "restart":
            own_server.restart()
            assert await take(1) == [MISSED]
        else:
            own_server.pause()
            await asyncio.sleep(2)  # longer than the watch over the connection allows
            own_server.resume()
            assert await take(1) == [MISSED]
        await sessions.redis.command(sessions._operation("PUBLISH", writes=True), "PUBLISH", channel("acme"), "{")
        assert await take(1) == [MISSED]
    await gateway.aclose()
