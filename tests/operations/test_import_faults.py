"""What an import says and leaves behind when the server or the way to it fails in the middle."""

import asyncio
import itertools
import json

import pytest
from bson import encode
from chat_lines import conversation, dump, message_count, write_file
from hypothesis import given, settings
from pydantic import SecretStr
from pymongo import AsyncMongoClient
from test_chat_format import AT, lines
from test_importing import counts, export_lines, import_file

from convostore import ConnectionError as Disconnected
from convostore import ConvoStore, DeadlineExceededError, RepositoryError
from convostore.operations import claiming, importing
from convostore.operations.chat_format import ChatLine
from convostore.operations.claiming import Claiming, Entrant
from convostore.operations.importing import OnError
from convostore.testing.mongo_proxy import MongoProxy
from convostore.testing.proxy import Fault

TENANT = "t" * 256


@pytest.fixture
async def client(convostore_settings):
    async with AsyncMongoClient(convostore_settings.mongodb_uri.get_secret_value()) as client:
        yield client


@pytest.fixture
async def proxy(client):
    await client.admin.command("ping")
    async with MongoProxy(*(await client.address)) as proxy:
        yield proxy


@pytest.fixture
async def away(store, proxy, convostore_settings):
    """The same tenant, reached through the proxy."""
    async with ConvoStore.open(convostore_settings.evolve(mongodb_uri=SecretStr(proxy.uri))) as proxied:
        yield proxied.tenant("acme")
        proxy.heal()


@pytest.fixture
def talks():
    return [conversation(number) for number in range(300)]


def nth(command, *numbers, fault):
    """Let a fault befall the commands of a name that have these numbers, from 1."""
    seen = itertools.count(1)
    return lambda name: fault if name == command and next(seen) in numbers else None


@pytest.fixture
def one_at_a_time(monkeypatch):
    monkeypatch.setattr(importing, "IN_FLIGHT", 1)
    monkeypatch.setattr(importing, "CHUNK_MESSAGES", 400)


LOST = [(command, numbers) for command in ("insert", "update") for numbers in ((1,), (2,), (2, 3))]
LOST.append(("insert", (1, 3, 4)))  # the claims, and then the messages twice


@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER])
@pytest.mark.parametrize(("command", "numbers"), LOST, ids=str)
@pytest.mark.usefixtures("one_at_a_time", "store")
async def test_all_is_counted_exactly_though_an_answer_is_lost(away, proxy, tmp_path, command, numbers, fault):
    talks = [conversation(number) for number in range(300)]
    proxy.rule = nth(command, *numbers, fault=fault)
    file = write_file(tmp_path / "talks.jsonl", talks)
    result = await import_file(away, file)
    assert proxy.struck == [(command, fault)] * len(numbers)
    assert (result.imported, result.unchanged, result.messages) == (300, 0, message_count(talks))
    assert await export_lines(away, tmp_path / "out") == file.read_bytes().splitlines()


async def test_a_chunk_that_fails_for_good_stops_the_others_and_the_next_run_finishes_them(
    store, acme, away, proxy, talks, tmp_path, monkeypatch
):
    monkeypatch.setattr(importing, "CHUNK_MESSAGES", 300)
    before = asyncio.all_tasks()
    seen = itertools.count(1)
    proxy.rule = lambda name: Fault.CUT_BEFORE if name == "insert" and next(seen) > 4 else None
    file = write_file(tmp_path / "talks.jsonl", talks)
    with pytest.raises(Disconnected) as caught:
        await import_file(away, file)
    assert "word" not in str(caught.value)
    assert not [task for task in asyncio.all_tasks() - before if "_store" in repr(task.get_coro())]
    # What can be seen is whole.
    visible = [json.loads(line) for line in await export_lines(acme, tmp_path / "half")]
    assert len(visible) < 300
    assert all(talk in talks for talk in visible)
    proxy.heal()
    rest = await import_file(away, file)
    assert rest.imported + rest.unchanged == 300
    assert await counts(store) == (300, message_count(talks))
    assert await export_lines(acme, tmp_path / "out") == file.read_bytes().splitlines()


async def test_a_chunk_that_hangs_is_given_up_when_another_fails(away, proxy, talks, tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "CHUNK_MESSAGES", 300)
    seen = itertools.count(1)
    proxy.rule = lambda name: (Fault.STALL if next(seen) == 2 else Fault.CUT_BEFORE) if name == "insert" else None
    async with asyncio.timeout(8):  # it would hang for ten seconds
        with pytest.raises(Disconnected):
            await import_file(away, write_file(tmp_path / "talks.jsonl", talks))
    assert Fault.STALL in [fault for _, fault in proxy.struck]


@pytest.fixture
async def failing(store, client, convostore_settings):
    """The same tenant in a store whose commands fail as they are told."""

    async def fail(commands, mode, **data):
        data = {"failCommands": commands, "appName": "failing-import", **data}
        await client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)

    async with ConvoStore.open(convostore_settings.evolve(app_name="failing-import")) as failing:
        tenant = failing.tenant("acme")
        yield tenant, fail
        await client.admin.command("configureFailPoint", "failCommand", mode="off")


NOT_CONFIRMED = {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}


@pytest.mark.parametrize("commands", [["insert"], ["update"]], ids=str)
@pytest.mark.parametrize("times", [1, 2])
async def test_what_the_majority_does_not_confirm_once_is_asked_again(store, failing, talks, tmp_path, commands, times):
    tenant, fail = failing
    await fail(commands, {"times": times}, **NOT_CONFIRMED)
    result = await import_file(tenant, write_file(tmp_path / "f", talks[:20]))
    assert (result.imported, result.unchanged, result.messages) == (20, 0, message_count(talks[:20]))
    assert await counts(store) == (20, message_count(talks[:20]))


@pytest.mark.parametrize("skipped", [0, 1], ids=["claims", "messages"])
async def test_what_the_majority_never_confirms_is_an_error_that_says_so(failing, talks, tmp_path, skipped):
    tenant, fail = failing
    await fail(["insert"], {"skip": skipped}, **NOT_CONFIRMED)
    with pytest.raises(DeadlineExceededError):
        await import_file(tenant, write_file(tmp_path / "f", talks[:20]))


async def test_a_message_that_the_server_refuses_is_an_error_without_its_text(store, acme, client, talks, tmp_path):
    database = client[store.mongodb.administration.database_name]
    await database.command({"collMod": "messages", "validator": {"content": {"$not": {"$regex": "^7/1"}}}})
    file = write_file(tmp_path / "f", talks[:20])
    with pytest.raises(RepositoryError) as caught:
        await import_file(acme, file)
    for error in (caught.value, caught.value.__cause__):
        assert "word" not in f"{error} {error!r} {getattr(error, 'details', '')}"
    await database.command({"collMod": "messages", "validator": {}})
    await import_file(acme, file)
    assert await export_lines(acme, tmp_path / "out") == file.read_bytes().splitlines()


@pytest.mark.slow
async def test_messages_that_do_not_fit_into_one_command_are_stored_in_several(store, acme, tmp_path):
    large = [{"role": "user", "content": letter * 13_000_000} for letter in "abcd"]
    many = [{"role": "user", "content": "x"}] * 100_000
    file = write_file(
        tmp_path / "f", [{"conversation_id": "large", "messages": large}, {"conversation_id": "many", "messages": many}]
    )
    result = await import_file(acme, file, OnError.SKIP)
    assert (result.imported, result.failed) == (2, 0)
    assert await counts(store) == (2, 100_004)


def room(content):
    """Return the bytes that the messages of a line take under the longest of names, and the bound on them."""
    text = dump(content)
    line = ChatLine.parse(text)
    entrant = Entrant(1, line, line.read(AT), len(text))
    stored = [{**slot, "_id": f"{TENANT}:" * 5, "tenant_id": TENANT} for slot in entrant.conversation.slots]
    return sum(len(encode(slot)) for slot in stored), claiming.most_bytes([entrant])


@settings(max_examples=100, deadline=None)
@given(lines)
def test_the_bound_on_the_size_of_messages_holds(content):
    taken, bound = room(content)
    assert taken <= bound


@pytest.mark.parametrize("filling", [0, [], {}, "", 1.5, 2**40, {"$": [0]}, [[[]]], {"%%": 1}], ids=str)
def test_the_bound_holds_for_what_grows_most(filling):
    entry = {"role": "user", "content": "", "p": [filling] * 50_000, "q": {str(n): filling for n in range(9)}}
    taken, bound = room({"messages": [entry]})
    assert taken <= bound


async def test_a_chunk_of_usual_size_goes_in_one_command(acme, proxy, away, talks, tmp_path):
    proxy.commands.clear()
    await import_file(away, write_file(tmp_path / "f", talks[:100]))
    commands = [name for name in proxy.commands if name in ("find", "insert", "update")]
    assert commands == ["find", "insert", "find", "insert", "update"], "the finds are the looks for erasures"


async def test_a_claim_that_lacks_what_it_stands_for_is_not_finished(acme, talks, tmp_path):
    line = ChatLine.parse(dump(talks[0]))
    entrant = Entrant(1, line, line.read(AT))
    bare = {name: entrant.claim[name] for name in ("importing", "at")}
    await Claiming(acme.database)._places.claim({entrant.key: bare})
    result = await import_file(acme, write_file(tmp_path / "f", talks[:1]), OnError.SKIP)
    assert (result.imported, result.failed) == (0, 1)
    assert await export_lines(acme, tmp_path / "out") == []
