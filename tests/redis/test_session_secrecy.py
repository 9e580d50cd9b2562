"""Tenants see nothing of each other, bad input is refused before anything is sent, and no id is told to anybody."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from convostore.database.redis_client import RedisClients
from convostore.gateways.redis_gateway import RedisGateway
from convostore.models.redis.session_cache import SessionData
from convostore.models.redis.session_identity import new_session_id
from convostore.repositories.exceptions import (
    ConnectionError,  # noqa: A004 - the name is the specification's
    EntityNotFoundError,
    RepositoryError,
    ValidationError,
)
from convostore.repositories.session_policy import SessionPolicy
from convostore.repositories.session_repository import SessionRepository
from convostore.testing.redis_servers import RedisServer

USER = "u-1"
KEY = b"k" * 32

Call = Callable[[SessionRepository, str, str], Awaitable[Any]]
ON_ONE: dict[str, Call] = {
    "get": lambda sessions, tenant, session_id: sessions.get_session(tenant, session_id),
    "touch": lambda sessions, tenant, session_id: sessions.touch_session(tenant, session_id),
    "extend": lambda sessions, tenant, session_id: sessions.extend_session(tenant, session_id),
    "delete": lambda sessions, tenant, session_id: sessions.delete_session(tenant, session_id),
    "rotate": lambda sessions, tenant, session_id: sessions.rotate_session(tenant, session_id),
    "fields": lambda sessions, tenant, session_id: sessions.update_fields(tenant, session_id, {"a": 1}),
    "update": lambda sessions, tenant, session_id: sessions.update_session(
        SessionData(session_id=session_id, tenant_id=tenant, user_id=USER)
    ),
}
ON_USER: dict[str, Call] = {
    "create": lambda sessions, tenant, _: sessions.create_session(
        SessionData(session_id=sessions.new_session_id(tenant, USER), tenant_id=tenant, user_id=USER)
    ),
    "start": lambda sessions, tenant, _: sessions.start_session(tenant, USER),
    "list": lambda sessions, tenant, _: sessions.get_user_sessions(tenant, USER),
    "revoke one": lambda sessions, tenant, _: sessions.revoke_session(tenant, USER, "f" * 43),
    "revoke all": lambda sessions, tenant, _: sessions.revoke_user_sessions(tenant, USER),
}


@pytest.fixture
def sessions(clients: RedisClients) -> SessionRepository:
    return SessionRepository(clients.state, clients.session_key)


async def _answer(call: Awaitable[Any]) -> Any:
    """Return what a call answers, or the class of its error; no unknown id is told in an error."""
    try:
        return await call
    except EntityNotFoundError as error:
        return type(error)


@pytest.mark.parametrize("name", ON_ONE)
async def test_an_id_of_another_tenant_or_of_nobody_is_answered_in_one_way(
    sessions: SessionRepository, tenant: str, name: str
) -> None:
    call = ON_ONE[name]
    real = await sessions.start_session(tenant, USER, data={"kept": True})
    tag, _, _ = real.session_id.partition(".")
    unknown = new_session_id(KEY, tenant, USER)
    expected = await _answer(call(sessions, tenant, unknown))
    assert expected in (None, False, EntityNotFoundError)
    others = [
        "no-id",
        "a:b{c}*?[x]",
        "x" * 256,
        f"{tag}.{'A' * 32}",
        f"{tag}.",
        f"{real.session_id} ",
        real.fingerprint,
    ]
    for session_id in others:
        assert await _answer(call(sessions, tenant, session_id)) == expected
    for other in (f"{tenant}x", "other", tenant.removesuffix("%")):
        assert await _answer(call(sessions, other, real.session_id)) == expected
    assert await sessions.get_session(tenant, real.session_id) == real


@pytest.mark.parametrize("session_id", ["\ud800", "a\0b", "x" * 100_000])
async def test_what_can_be_no_id_is_unknown_and_does_no_harm(
    sessions: SessionRepository, tenant: str, session_id: str
) -> None:
    assert await sessions.get_session(tenant, session_id) is None
    assert await sessions.touch_session(tenant, session_id) is None
    assert await sessions.delete_session(tenant, session_id) is False


async def test_a_tenant_neither_lists_nor_revokes_sessions_of_another(sessions: SessionRepository, tenant: str) -> None:
    real = await sessions.start_session(tenant, USER)
    for other in (f"{tenant}x", "other"):
        assert await sessions.get_user_sessions(other, USER) == []
        assert await sessions.revoke_user_sessions(other, USER) == 0
        assert not await sessions.revoke_session(other, USER, real.fingerprint)
        assert await sessions.revoke_user_sessions(other, USER, except_id=real.session_id) == 0
    assert await sessions.get_session(tenant, real.session_id) == real


@pytest.fixture
def unreachable() -> SessionRepository:
    """A repository that would fail if it sent anything."""
    return SessionRepository(RedisGateway.connect("redis://127.0.0.1:1/0"), KEY)


@pytest.mark.parametrize("value", [None, 1, b"id", "", ["id"], True])
@pytest.mark.parametrize("name", [name for name in ON_ONE if name != "update"])
async def test_an_id_that_is_no_text_is_refused(unreachable: SessionRepository, name: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refusal:
        await ON_ONE[name](unreachable, "acme", value)
    assert refusal.value.field == "session_id"


@pytest.mark.parametrize("value", [None, 1, b"acme", "", "a\0", "\ud800", "x" * 257])
@pytest.mark.parametrize("name", [*ON_ONE, *ON_USER])
async def test_a_tenant_that_can_be_none_is_refused(unreachable: SessionRepository, name: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refusal:
        await {**ON_ONE, **ON_USER}[name](unreachable, value, "an-id")
    assert refusal.value.field == "tenant_id"


BAD_CALLS: list[tuple[str, Callable[[SessionRepository], Awaitable[Any]]]] = [
    ("user_id", lambda sessions: sessions.start_session("acme", "")),
    ("user_id", lambda sessions: sessions.get_user_sessions("acme", 7)),  # type: ignore[arg-type]
    ("user_id", lambda sessions: sessions.revoke_user_sessions("acme", "a\n")),
    ("except_id", lambda sessions: sessions.revoke_user_sessions("acme", USER, except_id="")),
    ("except_id", lambda sessions: sessions.revoke_user_sessions("acme", USER, except_id=1)),  # type: ignore[arg-type]
    ("fingerprint", lambda sessions: sessions.revoke_session("acme", USER, "*")),
    ("fingerprint", lambda sessions: sessions.revoke_session("acme", USER, None)),  # type: ignore[arg-type]
    ("idle_seconds", lambda sessions: sessions.start_session("acme", USER, idle_seconds=0)),
    ("idle_seconds", lambda sessions: sessions.start_session("acme", USER, idle_seconds=float("nan"))),
    ("lifetime_seconds", lambda sessions: sessions.start_session("acme", USER, lifetime_seconds=-1)),
    ("lifetime_seconds", lambda sessions: sessions.start_session("acme", USER, lifetime_seconds=True)),
    ("data", lambda sessions: sessions.start_session("acme", USER, data=[1])),  # type: ignore[arg-type]
    ("data", lambda sessions: sessions.start_session("acme", USER, data={"a": object()})),
    ("data", lambda sessions: sessions.start_session("acme", USER, data={"a": "x" * 70_000})),
    ("hours", lambda sessions: sessions.extend_session("acme", "id", 0)),
    ("hours", lambda sessions: sessions.extend_session("acme", "id", "1")),  # type: ignore[arg-type]
    ("fields", lambda sessions: sessions.update_fields("acme", "id", ["a"])),  # type: ignore[arg-type]
    ("fields.a", lambda sessions: sessions.update_fields("acme", "id", {"a": float("inf")})),
    ("fields", lambda sessions: sessions.update_fields("acme", "id", {"a": "x" * 70_000})),
    ("remove", lambda sessions: sessions.update_fields("acme", "id", remove="name")),
    ("remove", lambda sessions: sessions.update_fields("acme", "id", remove=[1])),  # type: ignore[list-item]
    ("expected_version", lambda sessions: sessions.update_fields("acme", "id", {}, expected_version=0)),
    ("expected_version", lambda sessions: sessions.update_fields("acme", "id", {}, expected_version="1")),  # type: ignore[arg-type]
    ("session_data", lambda sessions: sessions.create_session({"session_id": "id"})),  # type: ignore[arg-type]
    ("session_data", lambda sessions: sessions.update_session(None)),  # type: ignore[arg-type]
    ("session_id", lambda sessions: sessions.update_session(SessionData(tenant_id="acme", user_id=USER))),
    ("version", lambda sessions: sessions.create_session(
        SessionData(session_id=sessions.new_session_id("a", "u"), tenant_id="a", user_id="u", version=2))),
]  # fmt: skip


@pytest.mark.parametrize(("field", "call"), BAD_CALLS)
async def test_a_bad_argument_is_refused_and_named_before_anything_is_sent(
    unreachable: SessionRepository, field: str, call: Callable[[SessionRepository], Awaitable[Any]]
) -> None:
    with pytest.raises(ValidationError) as refusal:
        await call(unreachable)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    "fields", [{"max_sessions": 0}, {"when_full": "drop"}, {"idle_seconds": 0}, {"lifetime_seconds": -1}, {"most": 1}]
)
def test_a_policy_that_is_not_valid_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refusal:
        SessionPolicy(**fields)
    assert refusal.value.field == next(iter(fields))


@pytest.mark.parametrize("key", ["text of thirty-two characters, no", b"short", 1])
def test_a_session_key_that_keeps_no_secret_is_refused(key: Any) -> None:
    with pytest.raises(ValidationError) as refusal:
        SessionRepository(RedisGateway.connect("redis://127.0.0.1:1/0"), key)
    assert refusal.value.field == "session_key"
    assert str(key) not in str(refusal.value)


@pytest.mark.parametrize("name", ON_USER)
async def test_without_a_session_key_no_session_is_made_and_no_user_found(name: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        await ON_USER[name](SessionRepository(RedisGateway.connect("redis://127.0.0.1:1/0")), "acme", "")
    assert refusal.value.field == "session_key"


async def test_without_a_session_key_sessions_are_read_changed_and_ended(clients: RedisClients, tenant: str) -> None:
    started = await SessionRepository(clients.state, clients.session_key).start_session(tenant, USER)
    keyless = SessionRepository(clients.state)
    assert await keyless.get_session(tenant, started.session_id) == started
    rotated = await keyless.rotate_session(tenant, started.session_id)
    assert await keyless.update_session(rotated.evolve(data={"a": 1}))
    assert await keyless.extend_session(tenant, rotated.session_id)
    assert await keyless.delete_session(tenant, rotated.session_id)


def _everything(server: RedisServer) -> str:
    """Return all keys of a server and all that is in them."""
    texts = []
    for key in server.ask_list("KEYS", "*"):
        texts.append(key)
        kind = server.ask("TYPE", key).removeprefix("+")
        texts += server.ask_list("HGETALL", key) if kind == "hash" else server.ask_list("ZRANGE", key, 0, -1)
    return "\n".join(texts)


@pytest.mark.one_server
async def test_the_server_its_channels_and_the_log_never_see_an_id(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    own_server.ask("CONFIG", "SET", "slowlog-log-slower-than", 0)
    gateway = RedisGateway.connect(own_server.url, deadline=5)
    sessions = SessionRepository(gateway, KEY, SessionPolicy(max_sessions=3))
    events = sessions.revocations("acme")
    heard = [repr(await anext(events))]  # from here on everything is heard
    ids: list[str] = []
    try:
        for _ in range(5):
            started = await sessions.start_session("acme", USER, data={"token": "planted"})
            rotated = await sessions.rotate_session("acme", started.session_id)
            ids += [started.session_id, rotated.session_id]
            await sessions.update_fields("acme", rotated.session_id, {"a": 1})
            await sessions.touch_session("acme", rotated.session_id)
        await sessions.delete_session("acme", ids[-1])
        await sessions.revoke_user_sessions("acme", USER, except_id=ids[-3])
        heard += [repr(await anext(events)) for _ in range(9)]
    finally:
        await events.aclose()
        await gateway.aclose()
    logged = str([vars(record) for record in caplog.records])
    seen = _everything(own_server) + "\n".join(own_server.ask_list("EVAL", _SLOWLOG, 0)) + str(heard) + logged
    assert started.fingerprint in seen
    assert "session_write" in logged
    secrets = [session_id.partition(".")[2] for session_id in ids]
    assert [secret for secret in secrets if secret in seen] == []
    assert "planted" not in logged


_SLOWLOG = """
local texts = {}
for _, entry in ipairs(redis.call('SLOWLOG', 'GET', '1000')) do
  texts[#texts + 1] = table.concat(entry[4], ' ')
end
return texts
"""


@pytest.mark.parametrize("name", [*ON_ONE, *ON_USER, "clean up"])
async def test_while_redis_is_away_every_call_fails_within_its_deadline(name: str) -> None:
    calls: dict[str, Call] = {**ON_ONE, **ON_USER, "clean up": lambda each, *_: each.cleanup_expired_sessions()}
    gateway = RedisGateway.connect("redis://127.0.0.1:1/0", deadline=0.2)
    session_id = new_session_id(KEY, "acme", USER)
    async with asyncio.timeout(5):
        for _ in range(8):  # the breaker opens on the way
            with pytest.raises(ConnectionError) as failure:
                await calls[name](SessionRepository(gateway, KEY), "acme", session_id)
            assert session_id.partition(".")[2] not in repr(failure.value)
    await gateway.aclose()


@pytest.mark.one_server
async def test_a_frozen_server_lets_nobody_in_and_is_used_again_when_it_answers(own_server: RedisServer) -> None:
    gateway = RedisGateway.connect(own_server.url, deadline=0.2)
    sessions = SessionRepository(gateway, KEY)
    started = await sessions.start_session("acme", USER)
    own_server.pause()
    async with asyncio.timeout(20):
        for call in (*ON_ONE.values(), *ON_USER.values()):
            with pytest.raises(RepositoryError) as failure:
                await call(sessions, "acme", started.session_id)
            assert isinstance(failure.value, ConnectionError)
    own_server.resume()
    async with asyncio.timeout(20):
        while await _state(sessions, started) == "away":  # noqa: ASYNC110 - by the server
            await asyncio.sleep(0.05)
    await gateway.aclose()


async def _state(sessions: SessionRepository, session: SessionData) -> str:
    try:
        await sessions.get_session(session.tenant_id, session.session_id)
    except ConnectionError:
        return "away"
    return "back"
