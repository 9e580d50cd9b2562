"""The injector itself: it loses exactly what it is told to lose, and nothing of its own."""

import asyncio
import struct

import pytest
from fault_support import address_of, eventually
from pymongo import AsyncMongoClient
from pymongo.errors import AutoReconnect

from convostore.testing.mongo_proxy import Fault, MongoProxy, command_name


@pytest.fixture
async def things(proxy, truth):
    """A collection through the proxy, of a client that does not retry."""
    async with AsyncMongoClient(proxy.uri, retryWrites=False, retryReads=False) as client:
        yield client[truth.database.name].things


def _message(body, flags=0, operation=2013):
    return struct.pack("<iiii", 20 + len(body), 1, 0, operation) + struct.pack("<i", flags) + body


def _document(name):
    value = b"\x10" + name.encode() + b"\0" + struct.pack("<i", 1) + b"\0"
    return struct.pack("<i", 4 + len(value)) + value


def test_the_name_of_a_command_is_found_behind_any_section():
    sequence = b"\1" + struct.pack("<i", 4 + 5 + 5) + b"docs\0" + struct.pack("<i", 5) + b"\0"
    assert command_name(_message(b"\0" + _document("insert"))) == "insert"
    assert command_name(_message(sequence + b"\0" + _document("update"))) == "update"
    assert command_name(_message(b"\0" + _document("find") + b"\0\0\0\0", flags=1)) == "find"
    assert command_name(_message(b"\0" + _document("isMaster"), operation=2004)) is None


async def test_everything_passes_undisturbed_and_monitoring_is_not_counted(proxy, things, truth):
    await things.insert_many([{"_id": n, "text": "x" * 1000} for n in range(2000)])
    assert len(await things.find().to_list()) == 2000
    await asyncio.gather(*(things.find_one({"_id": n}) for n in range(50)))
    assert proxy.commands == ["insert", "find", "getMore"] + ["find"] * 50 or proxy.commands.count("find") == 51
    assert not {"hello", "isMaster", "ping"} & set(proxy.commands)
    assert await truth.database.things.count_documents({}) == 2000


async def test_a_command_cut_before_never_reaches_the_server(proxy, things, truth):
    proxy.cut_before(2)
    await things.insert_one({"_id": 1})
    with pytest.raises(AutoReconnect):
        await things.insert_one({"_id": 2})
    await things.insert_one({"_id": 3})
    assert [d["_id"] for d in await truth.database.things.find().to_list()] == [1, 3]
    assert proxy.struck == [("insert", Fault.CUT_BEFORE)]


async def test_a_command_cut_after_is_applied_and_its_answer_is_lost(proxy, things, truth):
    proxy.cut_after(1)
    with pytest.raises(AutoReconnect):
        await things.insert_one({"_id": 1})
    assert await truth.database.things.count_documents({}) == 1  # at once: the answer was there before the cut
    await things.insert_one({"_id": 2})


async def test_faults_repeat_as_often_as_asked(proxy, things, truth):
    proxy.cut_after(1, times=3)
    for number in range(3):
        with pytest.raises(AutoReconnect):
            await things.insert_one({"_id": number})
    await things.insert_one({"_id": 3})
    assert await truth.database.things.count_documents({}) == 4


@pytest.mark.parametrize("applied", [False, True])
async def test_a_stalled_command_is_never_answered(proxy, things, truth, applied):
    proxy.stall(1, applied=applied)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await things.insert_one({"_id": 1})
    assert await truth.database.things.count_documents({}) == applied
    await things.insert_one({"_id": 2})


async def test_a_rule_of_ones_own_sees_the_names_and_healing_ends_it(proxy, things, truth):
    proxy.rule = lambda name: Fault.CUT_BEFORE if name == "find" else None
    await things.insert_one({"_id": 1})
    for _ in range(2):
        with pytest.raises(AutoReconnect):
            await things.find_one()
    proxy.heal()
    assert await things.find_one() == {"_id": 1}


async def test_leaving_the_proxy_leaves_no_task(convostore_servers):
    before = asyncio.all_tasks()
    proxy = MongoProxy(*address_of(convostore_servers.mongodb_uri))
    async with proxy, AsyncMongoClient(f"mongodb://{proxy.address}/?directConnection=true") as client:
        await client.admin.command("serverStatus")
        serving = [task for task in asyncio.all_tasks() - before if "Proxy._serve" in repr(task.get_coro())]
        assert serving
    assert all(task.done() for task in serving)
    await eventually(lambda: asyncio.all_tasks() == before)
