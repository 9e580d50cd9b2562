"""When sessions end: idle and absolute expiry by the server's clock, whatever the client's shows; and memory."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis_scale import scaled

from convostore.database.redis_client import RedisClients
from convostore.gateways.redis_gateway import RedisGateway
from convostore.models.redis import session_cache
from convostore.models.redis.session_cache import SessionData, to_milliseconds
from convostore.models.redis.session_identity import place_of
from convostore.models.types import utc_now
from convostore.repositories import session_repository
from convostore.repositories.exceptions import ValidationError
from convostore.repositories.session_repository import SessionRepository
from convostore.repositories.session_scripts import CREATE
from convostore.testing.redis_servers import RedisServer

USER = "u-1"


@pytest.fixture
def sessions(clients: RedisClients) -> SessionRepository:
    return SessionRepository(clients.state, clients.session_key)


async def _expiry(sessions: SessionRepository, session: SessionData) -> tuple[float, int, int]:
    """Return the expiry in the index, and those of index and hash as keys, in milliseconds since 1970."""
    where = place_of(session.tenant_id, session.session_id)
    ask = sessions.redis.command
    score = await ask(sessions._operation("ZSCORE"), "ZSCORE", where.of_user, where.fingerprint)
    keys = (where.of_user, where.key)
    of_index, of_hash = [await ask(sessions._operation("PEXPIRETIME"), "PEXPIRETIME", key) for key in keys]
    return float(score), of_index, of_hash


async def test_a_session_ends_when_nobody_uses_it_for_its_idle_time(sessions: SessionRepository, tenant: str) -> None:
    used = await sessions.start_session(tenant, USER, idle_seconds=1.5)
    left = await sessions.start_session(tenant, USER, idle_seconds=1.5)
    while await sessions.get_session(tenant, left.session_id) is not None:  # reading is no use
        assert await sessions.touch_session(tenant, used.session_id) is not None
        await asyncio.sleep(0.05)
    assert utc_now() >= left.expires_at
    assert await sessions.get_session(tenant, used.session_id) is not None
    assert await sessions.touch_session(tenant, left.session_id) is None
    assert await sessions.extend_session(tenant, left.session_id) is False
    assert await sessions.delete_session(tenant, left.session_id) is False
    assert [each.fingerprint for each in await sessions.get_user_sessions(tenant, USER)] == [used.fingerprint]


async def test_no_use_and_no_extension_passes_the_absolute_end(sessions: SessionRepository, tenant: str) -> None:
    started = await sessions.start_session(tenant, USER, idle_seconds=1, lifetime_seconds=1.5)
    assert await sessions.extend_session(tenant, started.session_id, hours=1000)
    await sessions.update_session(started.extend_session(1000))
    extended = await sessions.update_fields(tenant, started.session_id, {"a": 1})
    rotated = await sessions.rotate_session(tenant, started.session_id)
    assert extended.expires_at == extended.ends_at == rotated.expires_at == rotated.ends_at == started.ends_at
    while utc_now() <= started.ends_at:
        await sessions.touch_session(tenant, rotated.session_id)
        await asyncio.sleep(0.02)
    assert await sessions.get_session(tenant, rotated.session_id) is None


async def test_an_extension_moves_the_expiry_of_everything_and_never_shortens(
    sessions: SessionRepository, tenant: str
) -> None:
    started = await sessions.start_session(tenant, USER, idle_seconds=60)
    assert await sessions.extend_session(tenant, started.session_id, hours=2)
    longer = await sessions.get_session(tenant, started.session_id)
    assert longer is not None
    assert timedelta(hours=2) <= longer.expires_at - started.created_at < timedelta(hours=2, minutes=2)
    score, of_index, of_hash = await _expiry(sessions, started)
    assert score == to_milliseconds(longer.expires_at)
    assert abs(of_index - score) < 500
    assert 500 < of_hash - score < 2000
    for _ in range(2):
        assert await sessions.extend_session(tenant, started.session_id, hours=1)
        assert (await _expiry(sessions, started))[0] == score
    assert await sessions.update_session(longer.extend_session(5))
    assert (await _expiry(sessions, started))[0] >= score + 3 * 3_600_000 - 1


async def test_the_index_lives_as_long_as_its_longest_session(sessions: SessionRepository, tenant: str) -> None:
    longest = await sessions.start_session(tenant, USER, idle_seconds=900)
    await sessions.start_session(tenant, USER, idle_seconds=5)
    score, of_index, _ = await _expiry(sessions, longest)
    assert abs(of_index - score) < 500
    await sessions.revoke_user_sessions(tenant, USER, except_id=longest.session_id)
    score, of_index, _ = await _expiry(sessions, longest)
    assert abs(of_index - score) < 500


async def test_a_use_that_wins_little_is_not_written(sessions: SessionRepository, tenant: str) -> None:
    often = await sessions.start_session(tenant, USER, idle_seconds=3600)
    seldom = await sessions.start_session(tenant, USER, idle_seconds=4)
    await asyncio.sleep(0.25)  # a twentieth of the shorter, and not of the longer
    for started, written in ((often, False), (seldom, True)):
        touched = await sessions.touch_session(tenant, started.session_id)
        assert touched is not None
        assert (touched.expires_at > started.expires_at) is written
        assert (touched.last_activity_at > started.last_activity_at) is written


@pytest.mark.parametrize("hours", [-30, -2, 2, 30])
async def test_it_does_not_matter_what_the_clock_of_the_client_shows(
    sessions: SessionRepository, tenant: str, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def skewed() -> datetime:
        return utc_now() + timedelta(hours=hours)

    monkeypatch.setattr(session_cache, "utc_now", skewed)
    monkeypatch.setattr(session_repository, "utc_now", skewed)
    started = await sessions.start_session(tenant, USER, idle_seconds=600, lifetime_seconds=7200)
    assert abs(started.created_at - datetime.now(UTC)) < timedelta(seconds=30)
    made = SessionData(
        session_id=sessions.new_session_id(tenant, USER), tenant_id=tenant, user_id=USER, created_at=skewed()
    )
    assert await sessions.create_session(made)
    assert await sessions.update_session(started.extend_session(1))
    extended = await sessions.get_session(tenant, started.session_id)
    assert extended is not None
    assert abs(extended.expires_at - datetime.now(UTC) - timedelta(hours=1)) < timedelta(seconds=30)
    assert extended.ends_at == started.ends_at
    found = await sessions.get_session(tenant, made.session_id)
    assert found is not None
    assert abs(found.expires_at - datetime.now(UTC) - timedelta(hours=1)) < timedelta(seconds=30)


@pytest.mark.parametrize(("fields", "field"), [({"hours": 2}, "expires_at"), ({"days": 40}, "expires_at")])
async def test_a_session_that_has_expired_is_not_created(
    sessions: SessionRepository, tenant: str, fields: dict[str, Any], field: str
) -> None:
    late = SessionData(
        session_id=sessions.new_session_id(tenant, USER),
        tenant_id=tenant,
        user_id=USER,
        created_at=utc_now() - timedelta(**fields),
    )
    with pytest.raises(ValidationError) as refusal:
        await sessions.create_session(late)
    assert refusal.value.field == field


async def test_cleaning_takes_what_has_expired_and_nothing_else(sessions: SessionRepository, tenant: str) -> None:
    kept = await sessions.start_session(tenant, USER)
    short = await _over(sessions, tenant)
    # The index is kept by the other session, the hashes are for a moment yet: only the clock says that they are over.
    assert [await sessions.get_session(tenant, each.session_id) for each in short] == [None] * 3
    assert [each.fingerprint for each in await sessions.get_user_sessions(tenant, USER)] == [kept.fingerprint]
    assert await sessions.revoke_user_sessions(tenant, USER, except_id=kept.session_id) == 0
    short = await _over(sessions, tenant)
    before = await _members(sessions, kept)
    assert before == {kept.fingerprint, *(each.fingerprint for each in short)}
    assert await sessions.cleanup_expired_sessions() >= 3
    assert await _members(sessions, kept) == {kept.fingerprint}
    assert await sessions.get_session(tenant, kept.session_id) == kept


async def _over(sessions: SessionRepository, tenant: str) -> list[SessionData]:
    """Return sessions whose time is over and that nobody has cleaned away yet; creating one more would."""
    made = [await sessions.start_session(tenant, USER) for _ in range(3)]
    past = to_milliseconds(utc_now()) - 1000
    for each in made:
        index = place_of(tenant, each.session_id).of_user
        await sessions.redis.command(sessions._operation("ZADD"), "ZADD", index, "XX", past, each.fingerprint)
    return made


async def _members(sessions: SessionRepository, session: SessionData) -> set[str]:
    index = place_of(session.tenant_id, session.session_id).of_user
    members = await sessions.redis.command(sessions._operation("ZRANGE"), "ZRANGE", index, 0, -1)
    return {member.decode() for member in members}


COUNT, USERS, TOGETHER, TASKS = scaled(100_000), scaled(20_000), 250, 4
IDLE = scaled(40)  # seconds; longer than it takes to create them all


@pytest.mark.slow
@pytest.mark.one_server
@pytest.mark.timeout(300)
async def test_a_hundred_thousand_sessions_leave_no_key_behind(own_server: RedisServer) -> None:
    gateway = RedisGateway.connect(own_server.url, deadline=30)
    sessions = SessionRepository(gateway, b"k" * 32)
    batches = iter(range(0, COUNT, TOGETHER))
    try:
        await asyncio.gather(*(_create(sessions, batches) for _ in range(TASKS)))
        assert int(own_server.ask("DBSIZE").strip(":")) > USERS
        print(own_server.ask("DBSIZE"), own_server.ask("INFO", "memory").splitlines()[2])
        while int(own_server.ask("DBSIZE").strip(":")) > 0:
            await sessions.cleanup_expired_sessions()
            await asyncio.sleep(0.2)
    finally:
        await gateway.aclose()


async def _create(sessions: SessionRepository, batches: Iterator[int]) -> None:
    for first in batches:
        made = [_short(sessions, f"user-{number % USERS}") for number in range(first, first + TOGETHER)]
        calls = [sessions._creation(session, session.created_at) for session in made]
        replies = await sessions.redis.scripts(sessions._running(CREATE), CREATE, calls)
        assert all(isinstance(reply, int) and reply > 0 for reply in replies)
        await sessions.delete_session("acme", made[0].session_id)
        await sessions.touch_session("acme", made[1].session_id)


def _short(sessions: SessionRepository, user: str) -> SessionData:
    return SessionData.start("acme", user, sessions.new_session_id("acme", user), IDLE, 2 * IDLE)
