"""TLS and passwords: both work, and what is wrong with them is told by a typed error without a secret in it."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr
from secrets_search import shown_by, shown_by_record
from secure_servers import QUOTED, Certificates, mongodb_uri, redis_url, secured_mongod, secured_redis
from typer.testing import CliRunner

from convostore import (
    ConnectionError,  # noqa: A004 - the name is the specification's
    ConversationDocument,
    ConvoStore,
    MessageDocument,
    MongoSettings,
    RedisSettings,
    RepositoryError,
    SessionRepository,
)
from convostore.cli.main import app
from convostore.database.redis_client import RedisClients
from convostore.testing.redis_servers import find_program

MARK = "pl4nted"
SESSION_KEY = SecretStr("pl4nted session key, of 32 bytes or more")
FORGOTTEN_SOCKETS = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
pytestmark = FORGOTTEN_SOCKETS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.made_in(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def mongod(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[int]:
    with secured_mongod(tmp_path_factory.mktemp("mongod"), certificates) as port:
        yield port


@pytest.fixture(scope="module")
def valkey(certificates: Certificates) -> Iterator[int]:
    with secured_redis(certificates) as port:
        yield port


@pytest.fixture(autouse=True)
def said(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever the library says, at the lowest level, it tells no secret."""
    caplog.set_level(logging.DEBUG, logger="convostore")
    yield
    records = [shown_by_record(record) for record in caplog.records if record.name.startswith("convostore")]
    assert [text for text in records if MARK in text] == []


def settings(mongodb: str, redis: str) -> tuple[MongoSettings, RedisSettings]:
    return (
        MongoSettings(
            mongodb_uri=SecretStr(mongodb), server_selection_timeout=1, connect_timeout=2, deadline=4, attempts=1
        ),
        RedisSettings(redis_url=SecretStr(redis), redis_deadline=5, cache_deadline=5, session_key=SESSION_KEY),
    )


@contextmanager
def no_secret() -> Iterator[list[RepositoryError]]:
    """Expect an error of ours in which nothing planted can be seen; yields where it is put."""
    caught: list[RepositoryError] = []
    with pytest.raises(RepositoryError) as failure:
        yield caught
    caught.append(failure.value)
    assert MARK not in shown_by(failure.value)


async def use(store: ConvoStore) -> None:
    acme = store.tenant("acme")
    conversation = await acme.conversations.create(ConversationDocument.start("u"))
    await acme.messages.append(conversation.conversation_id, MessageDocument.user("Hello"))
    async with store.transaction():
        await acme.messages.append(conversation.conversation_id, MessageDocument.user("again"))
    assert len((await acme.messages.history(conversation.conversation_id)).items) == 2
    session = await store.sessions.start_session("acme", "u")
    assert await store.sessions.get_session("acme", session.session_id) == session
    assert (await store.rate_limits.check_rate_limit("acme", "u", 5, 60)).current_count >= 1
    await store.sessions.revoke_user_sessions("acme", "u")


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_everything_works_with_tls_and_passwords(mongod: int, certificates: Certificates, kind: str) -> None:
    if find_program(kind) is None:
        pytest.skip(f"no {kind}-server on the PATH")
    with secured_redis(certificates, kind) as port:
        mongodb, redis = settings(mongodb_uri(mongod, certificates), redis_url(port, certificates))
        async with ConvoStore.open(mongodb, redis) as store:
            await use(store)
            changes = store.changes("acme")
            async with changes:
                await use(store)
                assert await changes.batch(5)
            held = [store, store.redis, store.mongodb, store.sessions, store.rate_limits, store.cache, mongodb, redis]
            held += [store.mongodb.database, store.redis.state, vars(store.redis), store.cache.statistics, changes]
            shown = "\n".join(f"{each!r} {each}" for each in held if each != vars(store.redis))
    assert MARK not in shown


async def test_the_events_of_sessions_are_heard_over_tls(valkey: int, certificates: Certificates) -> None:
    clients = RedisClients.open(settings("mongodb://127.0.0.1:1", redis_url(valkey, certificates))[1])
    sessions = SessionRepository(clients.state, clients.session_key)
    events = sessions.revocations("acme")
    try:
        async with asyncio.timeout(10):
            await anext(events)  # from here on everything is heard
            started = await sessions.start_session("acme", "u")
            await sessions.delete_session("acme", started.session_id)
            assert (await anext(events)).fingerprint == started.fingerprint
    finally:
        await events.aclose()
        await clients.aclose()


WRONG = {
    "wrong password": {"password": f"{QUOTED}-not"},
    "no password": {"password": ""},
    "wrong authority": {"authority": "stranger"},
    "no such file": {"authority": "missing"},
}


def changed(certificates: Certificates, what: str) -> dict[str, str]:
    given = dict(WRONG[what])
    if "authority" in given:
        given["authority"] = str(certificates.authority.with_name(f"{given['authority']}.pem"))
    return given


@pytest.mark.parametrize("what", WRONG)
async def test_a_mongod_that_cannot_be_entered_is_told(
    mongod: int, valkey: int, certificates: Certificates, what: str
) -> None:
    both = settings(mongodb_uri(mongod, certificates, **changed(certificates, what)), redis_url(valkey, certificates))
    with no_secret() as errors:
        async with ConvoStore.open(*both):
            pass
    assert errors[0].retryable is (what == "wrong authority")
    assert isinstance(errors[0], ConnectionError) is (what == "wrong authority")


@pytest.mark.parametrize("what", WRONG)
async def test_a_redis_that_cannot_be_entered_is_told(
    mongod: int, valkey: int, certificates: Certificates, what: str
) -> None:
    both = settings(mongodb_uri(mongod, certificates), redis_url(valkey, certificates, **changed(certificates, what)))
    with no_secret():
        async with ConvoStore.open(*both) as store:
            assert what in ("wrong authority", "no such file"), "what is denied is told when the store is opened"
            await store.sessions.start_session("acme", "u")


@pytest.mark.parametrize("encrypts", [True, False])
async def test_who_speaks_plainly_to_tls_or_tls_to_who_does_not_gets_an_error_in_time(
    mongod: int, valkey: int, certificates: Certificates, encrypts: bool
) -> None:
    plain = redis_url(valkey, certificates).replace("rediss", "redis").partition("?")[0]
    mongodb = mongodb_uri(mongod, certificates)
    if not encrypts:
        mongodb = mongodb.partition("&tls")[0]
    with no_secret() as errors:
        async with asyncio.timeout(15), ConvoStore.open(*settings(mongodb, plain)) as store:
            await store.sessions.start_session("acme", "u")
    assert isinstance(errors[0], ConnectionError)


async def test_a_certificate_of_another_host_is_refused(mongod: int, certificates: Certificates) -> None:
    with secured_redis(certificates, certificate=certificates.elsewhere) as port:
        both = settings(mongodb_uri(mongod, certificates), redis_url(port, certificates))
        async with ConvoStore.open(*both) as store:
            with no_secret() as errors:
                await store.sessions.start_session("acme", "u")
    assert isinstance(errors[0], ConnectionError)


@pytest.mark.parametrize("command", ["stats", "doctor"])
@pytest.mark.parametrize("what", ["wrong password", "wrong authority", "no such file"])
def test_a_command_tells_it_in_a_line_without_a_secret(
    mongod: int, valkey: int, certificates: Certificates, what: str, command: str
) -> None:
    wrong = changed(certificates, what)
    where = {
        "CONVOSTORE_MONGODB_URI": mongodb_uri(mongod, certificates, **wrong),
        "CONVOSTORE_REDIS_URL": redis_url(valkey, certificates, **wrong),
        "CONVOSTORE_SERVER_SELECTION_TIMEOUT": "0.5",
        "CONVOSTORE_SESSION_KEY": SESSION_KEY.get_secret_value(),
    }
    ended = CliRunner().invoke(app, [command], env=where)
    assert isinstance(ended.exception, SystemExit)
    assert MARK not in ended.output + shown_by(ended.exception)
    assert ended.exit_code == 1
    assert ended.stderr.startswith("error: ") or command == "doctor"  # which tells it among what else it has found
