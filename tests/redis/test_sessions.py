"""What a session repository does, on real servers."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from convostore.database.redis_client import RedisClients, current_redis
from convostore.models.redis.session_cache import SessionData
from convostore.models.redis.session_identity import new_session_id, place_of
from convostore.repositories.exceptions import (
    ConcurrencyError,
    EntityNotFoundError,
    RepositoryError,
    ValidationError,
)
from convostore.repositories.session_policy import SessionLimitError, SessionPolicy
from convostore.repositories.session_repository import SessionRepository, get_session_repository

USER = "u:1{é}"


@pytest.fixture
def sessions(clients: RedisClients) -> SessionRepository:
    return SessionRepository(clients.state, clients.session_key)


async def test_a_session_is_created_read_and_deleted(sessions: SessionRepository, tenant: str) -> None:
    made = SessionData(
        session_id=sessions.new_session_id(tenant, USER),
        tenant_id=tenant,
        user_id=USER,
        expires_at=datetime.now(UTC) + timedelta(hours=2),
        data={"a:b": [1, 1.5, None, {"é/\\": "\x7f\x01"}]},
    )
    assert await sessions.create_session(made) is True
    found = await sessions.get_session(tenant, made.session_id)
    assert found is not None
    assert (found.session_id, found.user_id, found.data, found.version) == (made.session_id, USER, made.data, 1)
    assert abs(found.expires_at - made.expires_at) < timedelta(seconds=30)
    assert await sessions.delete_session(tenant, made.session_id) is True
    assert await sessions.delete_session(tenant, made.session_id) is False
    assert await sessions.get_session(tenant, made.session_id) is None


async def test_a_started_session_is_what_is_read(sessions: SessionRepository, tenant: str) -> None:
    started = await sessions.start_session(tenant, USER, data={"n": 1}, idle_seconds=60, lifetime_seconds=600)
    assert await sessions.get_session(tenant, started.session_id) == started
    assert started.expires_at - started.created_at == timedelta(seconds=60)
    assert started.ends_at - started.created_at == timedelta(seconds=600)
    assert started.idle_seconds == 60


async def test_an_id_that_was_used_is_not_used_again(sessions: SessionRepository, tenant: str) -> None:
    for end in (sessions.delete_session, sessions.rotate_session, None):
        started = await sessions.start_session(tenant, USER)
        assert await sessions.create_session(started) is False
        if end is None:
            await sessions.revoke_user_sessions(tenant, USER)
        else:
            await end(tenant, started.session_id)
        assert await sessions.create_session(started) is False
        assert await sessions.get_session(tenant, started.session_id) is None


async def test_only_ids_made_for_the_tenant_and_user_are_adopted(sessions: SessionRepository, tenant: str) -> None:
    foreign = [
        sessions.new_session_id(tenant, "other"),
        sessions.new_session_id("other", USER),
        new_session_id(b"another key of thirty-two bytes, or so", tenant, USER),
        "chosen-by-somebody",
        "x" * 20 + "." + "y" * 32,
    ]
    for session_id in foreign:
        with pytest.raises(ValidationError) as refusal:
            await sessions.create_session(SessionData(session_id=session_id, tenant_id=tenant, user_id=USER))
        assert refusal.value.field == "session_id"
        assert session_id not in str(refusal.value)


async def test_an_update_stores_the_data_of_the_version_that_was_read(sessions: SessionRepository, tenant: str) -> None:
    started = await sessions.start_session(tenant, USER, data={"a": 1, "b": 2})
    assert await sessions.update_session(started.evolve(data={"b": 3, "c": 4})) is True
    found = await sessions.get_session(tenant, started.session_id)
    assert found is not None
    assert (found.data, found.version) == ({"b": 3, "c": 4}, 2)
    assert found.expires_at >= started.expires_at
    with pytest.raises(ConcurrencyError) as conflict:
        await sessions.update_session(started.evolve(data={}))
    assert (conflict.value.expected_version, conflict.value.actual_version) == (1, 2)
    assert started.session_id not in str(conflict.value)
    assert await sessions.update_session(started.evolve(data={}), expected_version=2)
    with pytest.raises(ConcurrencyError):
        await sessions.update_session(found)


async def test_of_many_updates_of_one_version_one_wins(sessions: SessionRepository, tenant: str) -> None:
    started = await sessions.start_session(tenant, USER)
    calls = (sessions.update_session(started.evolve(data={"winner": number})) for number in range(30))
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(end) for end in ends if end is not True] == [ConcurrencyError] * 29
    found = await sessions.get_session(tenant, started.session_id)
    assert found is not None
    assert found.data == {"winner": ends.index(True)}


async def test_fields_change_apart_from_each_other(sessions: SessionRepository, tenant: str) -> None:
    started = await sessions.start_session(tenant, USER, data={"kept": 1, "gone": 2})
    changes = [sessions.update_fields(tenant, started.session_id, {f"f{number}": number}) for number in range(40)]
    await asyncio.gather(*changes)
    changed = await sessions.update_fields(tenant, started.session_id, {"kept": None}, remove=["gone", "never-there"])
    assert changed.data == {"kept": None, **{f"f{number}": number for number in range(40)}}
    assert changed.version == 42
    assert changed == await sessions.get_session(tenant, started.session_id)
    with pytest.raises(ConcurrencyError):
        await sessions.update_fields(tenant, started.session_id, {"a": 1}, expected_version=41)


async def test_a_rotated_session_goes_on_under_another_id(sessions: SessionRepository, tenant: str) -> None:
    old = await sessions.start_session(tenant, USER, data={"role": "admin"})
    other = await sessions.start_session(tenant, USER)
    new = await sessions.rotate_session(tenant, old.session_id)
    assert new.session_id != old.session_id
    assert (new.data, new.created_at, new.version) == (old.data, old.created_at, old.version)
    assert await sessions.get_session(tenant, old.session_id) is None
    assert await sessions.get_session(tenant, new.session_id) == new
    assert await sessions.get_session(tenant, other.session_id) == other
    assert await sessions.update_session(new.evolve(data={"role": "user"}))
    with pytest.raises(EntityNotFoundError):
        await sessions.rotate_session(tenant, old.session_id)


async def test_one_of_many_rotations_wins(sessions: SessionRepository, tenant: str) -> None:
    old = await sessions.start_session(tenant, USER)
    calls = [sessions.rotate_session(tenant, old.session_id) for _ in range(20)]
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(end, SessionData) for end in ends) == 1
    assert len(await sessions.get_user_sessions(tenant, USER)) == 1


async def test_the_sessions_of_a_user_are_listed_the_last_used_first(sessions: SessionRepository, tenant: str) -> None:
    started = [await sessions.start_session(tenant, USER, data={"n": number}) for number in range(5)]
    await sessions.start_session(tenant, "other")
    await asyncio.sleep(0.002)
    await sessions.update_fields(tenant, started[2].session_id, {"n": 99})
    await sessions.delete_session(tenant, started[3].session_id)
    listed = await sessions.get_user_sessions(tenant, USER)
    assert listed[0].data == {"n": 99}
    assert [each.last_activity_at for each in listed] == sorted(
        (each.last_activity_at for each in listed), reverse=True
    )
    assert {each.fingerprint for each in listed} == {started[index].fingerprint for index in (0, 1, 2, 4)}
    assert {each.session_id for each in listed} == {""}
    assert await sessions.get_user_sessions(tenant, "nobody") == []


async def test_a_session_of_a_list_is_ended_by_its_fingerprint(sessions: SessionRepository, tenant: str) -> None:
    started = await sessions.start_session(tenant, USER)
    assert not await sessions.revoke_session(tenant, "other", started.fingerprint)
    assert not await sessions.revoke_session("other", USER, started.fingerprint)
    assert await sessions.revoke_session(tenant, USER, started.fingerprint)
    assert await sessions.get_session(tenant, started.session_id) is None


async def test_a_list_takes_two_round_trips_whatever_its_length(clients: RedisClients, tenant: str) -> None:
    sessions = SessionRepository(clients.state, clients.session_key)
    await asyncio.gather(*(sessions.start_session(tenant, USER) for _ in range(60)))
    told: list[str] = []
    clients.state._observers = (lambda details: told.append(details.operation),)
    assert len(await sessions.get_user_sessions(tenant, USER)) == 60
    assert told[0] == "session_list"
    assert len(told) <= 3  # a script that the server sees for the first time is sent twice


@pytest.mark.parametrize("count", [1, 40])
async def test_all_sessions_of_a_user_are_revoked_but_one(sessions: SessionRepository, tenant: str, count: int) -> None:
    mine = await asyncio.gather(*(sessions.start_session(tenant, USER) for _ in range(count)))
    other = await sessions.start_session(tenant, "other")
    kept = mine[0]
    assert await sessions.revoke_user_sessions(tenant, USER, except_id=kept.session_id) == count - 1
    assert [each.fingerprint for each in await sessions.get_user_sessions(tenant, USER)] == [kept.fingerprint]
    assert await sessions.get_session(tenant, kept.session_id) is not None
    assert await sessions.revoke_user_sessions(tenant, USER, except_id=other.session_id) == 1
    assert await sessions.revoke_user_sessions(tenant, USER) == 0
    assert await sessions.get_session(tenant, other.session_id) is not None
    again = await sessions.start_session(tenant, USER)
    alive = [each for each in mine if await sessions.get_session(tenant, each.session_id)]
    assert alive == []
    assert len(await sessions.get_user_sessions(tenant, USER)) == 1
    assert await sessions.get_session(tenant, again.session_id) == again


async def test_what_is_lost_under_an_eviction_policy_does_not_live(
    sessions: SessionRepository, clients: RedisClients, tenant: str
) -> None:
    started = await sessions.start_session(tenant, USER)
    key = SessionData.get_cache_key(tenant, started.session_id)
    assert await clients.state.command(sessions._operation("DEL", writes=True), "DEL", key) == 1
    assert await sessions.get_session(tenant, started.session_id) is None
    assert await sessions.touch_session(tenant, started.session_id) is None
    assert await sessions.get_user_sessions(tenant, USER) == []
    for call in (
        sessions.update_session(started),
        sessions.update_fields(tenant, started.session_id, {"a": 1}),
        sessions.rotate_session(tenant, started.session_id),
    ):
        with pytest.raises(EntityNotFoundError):
            await call
    assert await clients.state.command(sessions._operation("EXISTS"), "EXISTS", key) == 0


@pytest.mark.parametrize("when_full", ["evict", "reject"])
async def test_a_user_has_no_more_sessions_than_the_policy_says_whatever_happens_at_once(
    clients: RedisClients, tenant: str, when_full: Any
) -> None:
    policy = SessionPolicy(max_sessions=3, when_full=when_full)
    sessions = SessionRepository(clients.state, clients.session_key, policy)
    calls = [sessions.start_session(tenant, USER, data={"n": number}) for number in range(30)]
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(end, SessionLimitError) for end in ends) == (27 if when_full == "reject" else 0)
    assert sum(isinstance(end, SessionData) for end in ends) == (3 if when_full == "reject" else 30)
    started = [end for end in ends if isinstance(end, SessionData)]
    alive = [each for each in started if await sessions.get_session(tenant, each.session_id)]
    assert len(alive) == len(await sessions.get_user_sessions(tenant, USER)) == 3
    await sessions.start_session(tenant, "other")
    await sessions.delete_session(tenant, alive[0].session_id)
    await sessions.start_session(tenant, USER)


async def test_the_session_that_would_expire_first_makes_room(clients: RedisClients, tenant: str) -> None:
    sessions = SessionRepository(clients.state, clients.session_key, SessionPolicy(max_sessions=2))
    first = await sessions.start_session(tenant, USER, idle_seconds=100)
    second = await sessions.start_session(tenant, USER, idle_seconds=50)
    third = await sessions.start_session(tenant, USER, idle_seconds=100)
    alive = {each.fingerprint for each in await sessions.get_user_sessions(tenant, USER)}
    assert alive == {first.fingerprint, third.fingerprint}
    assert await sessions.get_session(tenant, second.session_id) is None


async def test_sessions_that_have_expired_leave_room(clients: RedisClients, tenant: str) -> None:
    sessions = SessionRepository(clients.state, clients.session_key, SessionPolicy(max_sessions=2, when_full="reject"))
    await sessions.start_session(tenant, USER)
    await sessions.start_session(tenant, USER, idle_seconds=0.05)
    await asyncio.sleep(0.1)
    await sessions.start_session(tenant, USER)
    with pytest.raises(SessionLimitError) as refusal:
        await sessions.start_session(tenant, USER)
    assert refusal.value.limit == 2


async def test_a_call_that_is_sent_twice_does_its_work_once_and_answers_the_same(
    clients: RedisClients, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = SessionRepository(clients.state, clients.session_key, SessionPolicy(max_sessions=2))
    send = clients.state.script

    async def send_twice(operation: Any, script: Any, *arguments: Any) -> Any:
        first = await send(operation, script, *arguments)
        assert operation.repeatable
        assert await send(operation, script, *arguments) == first
        return first

    await sessions.start_session(tenant, USER)
    monkeypatch.setattr(clients.state, "script", send_twice)
    started = await sessions.start_session(tenant, USER)
    assert await sessions.update_session(started.evolve(data={"a": 1}))
    assert (await sessions.update_fields(tenant, started.session_id, {"b": 2}, expected_version=2)).version == 3
    rotated = await sessions.rotate_session(tenant, started.session_id)
    assert rotated == await sessions.get_session(tenant, rotated.session_id)
    assert len(await sessions.get_user_sessions(tenant, USER)) == 2
    assert await sessions.delete_session(tenant, rotated.session_id)
    assert len(await sessions.get_user_sessions(tenant, USER)) == 1


async def test_the_names_that_the_specification_has_for_the_index_keep_its_rule(
    sessions: SessionRepository, tenant: str
) -> None:
    started = await sessions.start_session(tenant, USER)
    await sessions._add_to_user_sessions_index(tenant, USER, started.session_id)
    assert len(await sessions.get_user_sessions(tenant, USER)) == 1
    await sessions._remove_from_user_sessions_index(tenant, USER, started.session_id)
    assert await sessions.get_session(tenant, started.session_id) is None
    await sessions._add_to_user_sessions_index(tenant, USER, started.session_id)
    assert await sessions.get_user_sessions(tenant, USER) == []
    with pytest.raises(ValidationError):
        await sessions._add_to_user_sessions_index(tenant, "other", started.session_id)


async def test_the_dependency_is_the_repository_of_the_current_store(clients: RedisClients, tenant: str) -> None:
    with pytest.raises(RepositoryError):
        await get_session_repository()
    with current_redis(clients):
        sessions = await get_session_repository()
    started = await sessions.start_session(tenant, USER)
    assert place_of(tenant, started.session_id).fingerprint == started.fingerprint
