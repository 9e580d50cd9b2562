"""P13: no driver error escapes, and no content or credential is in an error, a traceback or a log line."""

import logging
import traceback

import bson.errors
import pymongo.errors
import pytest
from fault_support import FORGOTTEN_SOCKETS
from public_writes import conversation, text
from pydantic import SecretStr

from convostore import (
    ConversationDocument,
    ConversationStatus,
    ConvoStore,
    MessageDocument,
    MongoSettings,
    RepositoryError,
)
from convostore.gateways import translation
from convostore.testing.mongo_proxy import Fault

pytestmark = FORGOTTEN_SOCKETS
MARK = "s3cr3t-marker"


@pytest.fixture
def spoken(caplog):
    """Everything that the library's own loggers have said, with tracebacks, at the lowest level."""
    caplog.set_level(logging.DEBUG, logger="convostore")
    caplog.handler.setFormatter(logging.Formatter("%(message)s %(exc_info)s"))

    def text_of_records():
        records = [record for record in caplog.records if record.name.startswith("convostore")]
        return "\n".join(
            f"{vars(each)} {each.exc_info and traceback.format_exception(*each.exc_info)}" for each in records
        )

    return text_of_records


def _chain(error):
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    return seen


def _check_error(error):
    assert isinstance(error, RepositoryError), repr(error)
    driver = (pymongo.errors.PyMongoError, bson.errors.BSONError)
    assert not isinstance(error, driver)
    shown = "".join(traceback.format_exception(error))
    for link in _chain(error):
        shown += f"{link} {link!r} {vars(link)}"
    assert MARK not in shown, shown
    return shown


def _message(**fields):
    return MessageDocument.user(MARK, payload={MARK: MARK}, **fields)


def _conversation(cid):
    fields = {"title": MARK, "metadata": {MARK: [MARK]}, "tags": [MARK]}
    return ConversationDocument.start(user_id="u", conversation_id=cid, **fields)


def _calls(acme, cid):
    """Yield calls that carry the marker wherever a document may hold it."""
    yield acme.conversations.create(_conversation(cid))
    yield acme.conversations.create(_conversation(f"{cid}-new"))
    yield acme.messages.append(cid, _message())
    yield acme.messages.append(cid, _message(), idempotency_key="key")
    yield acme.messages.append_many(cid, [_message()] * 3)
    yield acme.messages.append_many(cid, [_message()] * 3, idempotency_key="key")
    yield acme.messages.edit(cid, 1, content=MARK)
    yield acme.conversations.update_with(cid, lambda found: found.evolve(title=MARK))
    yield acme.conversations.list({"search": MARK})
    yield acme.messages.search(MARK, cid)
    yield acme.messages.history(cid)


async def _provoke(store, cid):
    acme, errors = store.tenant("acme"), []
    for call in _calls(acme, cid):
        try:
            await call
        except Exception as error:  # noqa: BLE001 - the test looks at all of them
            errors.append(error)
    return errors


@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.STALL])
async def test_lost_connections_tell_no_secret(proxied, proxy, acme, fault, spoken):
    cid = await conversation(acme)
    await acme.messages.append(cid, text("first"))
    proxied.mongodb.deadline = 0.25
    proxy.rule = lambda _: fault
    errors = await _provoke(proxied, cid)
    proxy.heal()
    proxied.mongodb.deadline = 10.0
    assert len(errors) == 11
    for error in errors:
        _check_error(error)
    assert spoken()
    assert MARK not in spoken()


@pytest.mark.parametrize(
    "answer",
    [
        {"errorCode": 121},
        {"errorCode": 11000},
        {"errorCode": 112},
        {"errorCode": 13},
        {"errorCode": 50},
        {"errorCode": 10107},
        {"writeConcernError": {"code": 64, "errmsg": f"late {MARK}"}},
        {"writeConcernError": {"code": 100, "errmsg": f"unsatisfiable {MARK}"}},
    ],
    ids=str,
)
async def test_refusals_of_the_server_tell_no_secret(convostore_settings, acme, truth, answer, spoken):
    cid = await conversation(acme)
    await acme.messages.append(cid, text("first"))
    data = {"failCommands": ["insert", "update", "find"], "appName": "leaks", **answer}
    async with ConvoStore.open(convostore_settings.evolve(app_name="leaks", deadline=0.5)) as store:
        await truth.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
        errors = await _provoke(store, cid)
        await truth.admin.command("configureFailPoint", "failCommand", mode="off")
        for error in errors:
            _check_error(error)
        assert errors
    assert MARK not in spoken()


async def test_real_conflicts_tell_no_secret(store, acme, truth, spoken):
    cid = await conversation(acme)
    await truth.database.command("collMod", "messages", validator={"content": {"$ne": MARK}})
    await truth.database.command("collMod", "conversations", validator={"title": {"$ne": MARK}})
    errors = await _provoke(store, cid)
    assert len(errors) >= 6
    for error in errors:
        _check_error(error)
    corrupt = {"_id": f"acme:{cid}:0000000001", "tenant_id": "acme", "content": 1, MARK: 1}
    await truth.database.messages.insert_one(corrupt)
    with pytest.raises(RepositoryError) as caught:
        await acme.messages.history(cid)
    _check_error(caught.value)
    assert MARK not in spoken()


async def test_units_of_work_tell_no_secret(store, acme, spoken):
    cid = await conversation(acme)

    async def hook():
        raise ValueError(MARK)

    async def unit_of_work():
        async with store.transaction():
            await acme.messages.append(cid, _message())
            await acme.conversations.create(_conversation(cid))

    with pytest.raises(RepositoryError) as caught:
        await unit_of_work()
    _check_error(caught.value)
    async with store.transaction() as unit:
        unit.after_commit(hook)
        await acme.messages.append(cid, _message())
    assert unit.failed_hooks == 1
    assert "hook failed" in spoken()
    assert MARK not in spoken()


@pytest.mark.parametrize(
    "uri",
    [
        f"mongodb://user:{MARK}@127.0.0.1:1/?directConnection=true",
        f"mongodb://user:{MARK}@127.0.0.1:notaport",
        f"mongodb://user:{MARK}:twice@127.0.0.1",
        f"http://user:{MARK}@127.0.0.1",
        f"mongodb+srv://user:{MARK}@127.0.0.1",
        f"mongodb://user:{MARK}/@[::1",
    ],
)
async def test_credentials_are_in_no_error(uri, spoken):
    settings = MongoSettings(mongodb_uri=SecretStr(uri), server_selection_timeout=0.3, deadline=1.0, attempts=1)
    assert MARK not in f"{settings} {settings!r}"
    with pytest.raises(RepositoryError) as caught:
        async with ConvoStore.open(settings):
            pass
    shown = "".join(traceback.format_exception(caught.value)) + f"{caught.value!r} {vars(caught.value)}"
    assert MARK not in shown
    assert MARK not in spoken()


async def test_a_wrong_password_is_in_no_error(convostore_servers, spoken):
    host = convostore_servers.mongodb_uri.partition("//")[2].partition("/")[0]
    uri = SecretStr(f"mongodb://user:{MARK}@{host}/?directConnection=true")
    settings = MongoSettings(mongodb_uri=uri, deadline=2.0)
    with pytest.raises(RepositoryError) as caught:
        async with ConvoStore.open(settings) as store:
            await store.tenant("acme").conversations.update_conversation_status("c", ConversationStatus.ACTIVE)
    _check_error(caught.value)
    assert MARK not in spoken()


async def test_the_search_for_leaks_sees_an_error_that_is_not_stripped(store, acme, truth, monkeypatch):
    monkeypatch.setattr(translation, "strip", lambda _: None)
    await truth.database.command("collMod", "messages", validator={"content": {"$ne": MARK}})
    errors = await _provoke(store, await conversation(acme))

    def check_all():
        for error in errors:
            _check_error(error)

    with pytest.raises(AssertionError, match=MARK):
        check_all()
