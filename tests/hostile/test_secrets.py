"""P13: no content, session id or password is in a log line, an error, a repr or a statistic, whatever happens."""

import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from hostile_support import answer
from pydantic import SecretStr
from pymongo import AsyncMongoClient
from secrets_search import shown_by, shown_by_record
from surface import Call, Names, all_methods, object_of, parameters_of, plain_call, planted

from convostore import ConvoStore, MongoSettings, RedisSettings, RepositoryError
from convostore.gateways import translation
from convostore.testing.mongo_proxy import Fault, MongoProxy
from convostore.testing.redis_proxy import RedisProxy
from convostore.testing.redis_servers import RedisServer

PASSWORD = "pl4nted-password"  # noqa: S105 - looked for wherever it must not be
SESSION_KEY = SecretStr("pl4nted session key, of 32 bytes or more")
ANSWERS: list[dict[str, Any]] = [
    {"errorCode": 11000},
    {"errorCode": 121},
    {"writeConcernError": {"code": 100, "errmsg": "unsatisfiable pl4nted"}},
    {"closeConnection": True},
]
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Search:
    """Keeps all that a run of calls shows, and looks for what must not be seen."""

    def __init__(self, store: ConvoStore, caplog: pytest.LogCaptureFixture) -> None:
        self.store = store
        self.tenant_id = f"tenant-{uuid.uuid4().hex[:8]}"
        self.calls = 0
        self.errors: list[BaseException] = []
        self._caplog = caplog
        self._secrets = ["pl4nted", f"word of {self.tenant_id}", f"word%20of%20{self.tenant_id}"]

    async def names(self) -> Names:
        """Plant something of every kind, whose contents are looked for from then on."""
        names = await planted(self.store, self.tenant_id)
        self._secrets.append(names.session_id.partition(".")[2])
        return names

    async def make(self, call: Call) -> None:
        """Make a call, and keep its error."""
        self.calls += 1
        try:
            await answer(call, object_of(self.store, call.owner, self.tenant_id))
        except Exception as error:  # noqa: BLE001 - all of them are looked at
            self.errors.append(error)

    async def make_all(self, names: Names) -> None:
        """Call every public method."""
        for owner, method in all_methods():
            if owner != "tenant":  # it waits for events as long as there are none
                await self.make(plain_call(owner, method, names))

    def check(self) -> None:
        """Make sure that nothing was to be seen."""
        for error in self.errors:
            assert isinstance(error, RepositoryError), repr(error)
            self._check(shown_by(error))
        records = [record for record in self._caplog.records if record.name.startswith("convostore")]
        assert records
        for record in records:
            self._check(shown_by_record(record))
        for held in (self.store, *vars(self.store).values(), self.store.redis, self.store.cache.statistics):
            self._check(f"{held!r} {held}")
            self._check(repr(getattr(held, "statistics", None)))

    def _check(self, text: str) -> None:
        for secret in self._secrets:
            assert secret not in text, text


@pytest.fixture(scope="module")
def valkey() -> Iterator[RedisServer]:
    with RedisServer(requirepass=PASSWORD) as server:
        yield server


@pytest.fixture(autouse=True)
def _at_the_lowest_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="convostore")


@pytest.fixture
def redis_settings(valkey: RedisServer) -> RedisSettings:
    url = SecretStr(valkey.url)
    return RedisSettings(redis_url=url, redis_deadline=2, cache_deadline=2, session_key=SESSION_KEY)


@pytest_asyncio.fixture
async def search(
    store: ConvoStore,
    convostore_settings: MongoSettings,
    redis_settings: RedisSettings,
    caplog: pytest.LogCaptureFixture,
) -> AsyncIterator[Search]:
    del store  # it drops the database afterwards
    async with ConvoStore.open(convostore_settings.evolve(app_name="secrets"), redis_settings) as own:
        own.mongodb.deadline = 2.0
        yield Search(own, caplog)


async def test_what_goes_well_and_what_is_there_already_tell_no_secret(
    search: Search, capfd: pytest.CaptureFixture[str]
) -> None:
    names = await search.names()
    for _ in range(2):
        await search.make_all(names)
    assert {type(error).__name__ for error in search.errors} >= {"DuplicateEntityError", "EntityNotFoundError"}
    search.check()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("answered", ANSWERS, ids=str)
async def test_refusals_of_mongodb_tell_no_secret(
    search: Search, convostore_settings: MongoSettings, answered: dict[str, Any]
) -> None:
    names = await search.names()
    commands = ["insert", "update", "find", "aggregate", "commitTransaction", "findAndModify"]
    data = {"failCommands": commands, "appName": "secrets", **answered}
    search.store.mongodb.deadline = 0.3
    assert convostore_settings.mongodb_uri is not None
    async with AsyncMongoClient(convostore_settings.mongodb_uri.get_secret_value()) as client:
        await client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
        try:
            await search.make_all(names)
        finally:
            await client.admin.command("configureFailPoint", "failCommand", mode="off")
    assert search.errors
    search.check()


@pytest.mark.parametrize("fault", [Fault.CUT_AFTER, Fault.STALL])
async def test_lost_servers_tell_no_secret(
    search: Search,
    convostore_settings: MongoSettings,
    redis_settings: RedisSettings,
    valkey: RedisServer,
    fault: Fault,
) -> None:
    names = await search.names()
    assert convostore_settings.mongodb_uri is not None
    host, port = convostore_settings.mongodb_uri.get_secret_value().split("/")[2].split(":")
    async with MongoProxy(host, int(port)) as mongodb, RedisProxy("127.0.0.1", valkey.port) as redis:
        for_mongodb = convostore_settings.evolve(mongodb_uri=mongodb.uri)
        for_redis = redis_settings.evolve(redis_url=redis.url.replace("redis://", f"redis://:{PASSWORD}@"))
        async with ConvoStore.open(for_mongodb, for_redis) as search.store:
            search.store.mongodb.deadline = 0.1
            search.store.redis.state.deadline = search.store.redis.cache.deadline = 0.05
            mongodb.rule = redis.rule = lambda _: fault
            await search.make_all(names)
            mongodb.heal()
            redis.heal()
            await search.store.mongodb.database.client.admin.command("killAllSessions", [])  # units that were cut off
            search.store.mongodb.deadline = 2.0
            assert len(search.errors) > 30
            search.check()


BAD: list[Any] = [
    *({"$ne": "pl4nted"}, ["pl4nted"], {"pl4nted"}, b"pl4nted", "pl4nted\0", "pl4nted\ud800", "pl4nted" * 9999),
    *(("pl4nted",) * 9, [("pl4nted", "pl4nted", "pl4nted")], {"note": "pl4nted\ud800"}, {"note": {"pl4nted"}}),
    ValueError("pl4nted"),
]


async def test_refused_arguments_are_not_quoted(search: Search) -> None:
    names = await search.names()
    for owner, method in all_methods():
        plain = plain_call(owner, method, names)
        for name in parameters_of(owner, method).keys() - {"after", "changes", "load", "change", "count_tokens"}:
            for value in BAD:
                if name != "tags" or isinstance(value, tuple | list):
                    await search.make(plain.having(name, value))
    search.errors = [error for error in search.errors if isinstance(error, RepositoryError)]  # the fuzz sees to others
    assert len(search.errors) > 1000
    search.check()


async def test_the_search_sees_what_is_not_stripped(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    names = await search.names()
    monkeypatch.setattr(translation, "strip", lambda _: None)
    await search.store.mongodb.database.command(
        "collMod", "messages", validator={"content": {"$ne": f"word of {search.tenant_id}"}}
    )
    await search.make_all(names)
    with pytest.raises(AssertionError, match=f"word of {search.tenant_id}"):
        search.check()


@pytest.mark.logs_secrets
async def test_the_search_sees_what_is_logged(search: Search) -> None:
    names = await search.names()
    logging.getLogger("convostore.test").debug("started", extra={"session": names.session_id})
    with pytest.raises(AssertionError, match=names.session_id):
        search.check()
