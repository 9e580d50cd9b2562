"""The kit does what it says: an injector that is wrong would find errors that are its own, or none."""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient
from pymongo.errors import AutoReconnect

from convostore import ConversationDocument, ConvoStore, MessageDocument
from convostore.testing import ReplicaSet

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


async def eventually(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, f"it did not hold within {seconds} s"
        await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_set():
    async with ReplicaSet() as replica_set:
        yield replica_set


@pytest_asyncio.fixture(loop_scope="module")
async def replica_set(shared_set):
    """The set of all tests of this module, whole."""
    await shared_set.settled()
    yield shared_set
    for member in shared_set.members:
        member.proxy.heal()


@pytest_asyncio.fixture(loop_scope="module")
async def client(replica_set):
    options = {"heartbeatFrequencyMS": 500, "connectTimeoutMS": 1000, "serverSelectionTimeoutMS": 20000}
    async with AsyncMongoClient(replica_set.uri, w="majority", **options) as client:
        yield client


async def _through(member, command, **arguments):
    """Send a command to one member through its proxy."""
    async with AsyncMongoClient(member.proxy.uri, serverSelectionTimeoutMS=3000, timeoutMS=3000) as client:
        return await client.admin.command(command, **arguments)


async def test_clients_learn_of_the_proxies_only(replica_set, client):
    await client.admin.command("ping")
    await eventually(lambda: _all_known(client))
    proxies = {member.proxy.address for member in replica_set.members}
    assert {f"{host}:{port}" for host, port in client.nodes} == proxies
    hello = await client.admin.command("hello")
    assert {*hello["hosts"], hello["me"], hello["primary"]} == proxies


async def _all_known(client):
    return len(client.nodes) == 3


async def test_a_killed_member_comes_back_with_its_data(replica_set, client):
    await client.kit.things.insert_one({"_id": "before"})
    async with replica_set.killed(await replica_set.primary()) as member:
        assert member.pid == 0
        await client.kit.things.insert_one({"_id": "meanwhile"})
        assert await replica_set.primary() is not member
    assert member.pid
    await replica_set.settled()
    async with AsyncMongoClient(member.address.split(":")[0], member.port, directConnection=True) as direct:
        await eventually(lambda: _has_both(direct))


async def _has_both(direct):
    found = await direct.kit.get_collection("things").find({}).to_list() if await _is_readable(direct) else []
    return {each["_id"] for each in found} >= {"before", "meanwhile"}


async def _is_readable(direct):
    hello = await direct.admin.command("hello")
    return hello["isWritablePrimary"] or hello["secondary"]


async def test_a_frozen_member_answers_nothing_and_goes_on_afterwards(replica_set):
    async with replica_set.frozen((await replica_set.secondaries())[0]) as member:
        await eventually(lambda: _is_stopped(member.pid))
    await _through(member, "ping")


async def test_a_primary_isolated_from_the_others_is_reached_by_clients_and_replaced(replica_set):
    primary = await replica_set.primary()
    with replica_set.isolated(primary):
        assert (await _through(primary, "hello"))["isWritablePrimary"]
        await eventually(lambda: _other_is_primary(replica_set, primary))
        await eventually(lambda: _is_no_primary(primary))
        assert (await _through(primary, "hello"))["secondary"]
    await replica_set.settled()


async def _other_is_primary(replica_set, former):
    return any([await member.is_primary() for member in replica_set.members if member is not former])


async def _is_no_primary(member):
    return not await member.is_primary()


async def test_a_pair_that_is_parted_is_joined_by_the_third(replica_set):
    one, other = await replica_set.secondaries()
    with replica_set.parted([(one, other)]):
        for member, lost in ((one, other), (other, one)):
            await eventually(lambda member=member, lost=lost: _misses_only(member, lost))
        assert (await replica_set.primary()) not in (one, other)


async def _misses_only(member, lost):
    members = (await _through(member, "replSetGetStatus"))["members"]
    return members[lost.number]["health"] == 0 and sum(each["health"] for each in members) == 2


async def test_a_primary_steps_down_for_another(replica_set):
    former = await replica_set.step_down(10)
    assert await replica_set.primary() is not former


async def test_a_blocked_proxy_lets_nothing_pass_until_it_is_healed(replica_set):
    member = await replica_set.primary()
    async with AsyncMongoClient(member.proxy.uri) as client:
        await client.admin.command("ping")
        member.proxy.block()
        asking = asyncio.create_task(client.kit.things.insert_one({"_id": "held up"}))
        _, waiting = await asyncio.wait([asking], timeout=0.5)
        assert waiting
        member.proxy.heal()
        await asking


async def test_a_slow_proxy_is_slow_each_way(replica_set):
    member = await replica_set.primary()
    async with AsyncMongoClient(member.proxy.uri) as client:
        await client.admin.command("ping")
        member.proxy.latency = 0.1
        started = time.monotonic()
        await client.admin.command("ping")
        assert time.monotonic() - started >= 0.2


async def test_commands_fail_at_a_fail_point_until_it_is_off(replica_set):
    member = await replica_set.primary()
    async with AsyncMongoClient(member.proxy.uri, retryReads=False, appname="kit") as client:
        await member.fail("alwaysOn", failCommands=["find"], closeConnection=True, appName="kit")
        with pytest.raises(AutoReconnect):
            await client.kit.things.find_one()
        await member.fail("off")
        await client.kit.things.find_one()


async def test_a_store_goes_on_when_the_primary_is_killed(replica_set):
    settings = {"heartbeat": 0.5, "connect_timeout": 1, "deadline": 20, "server_selection_timeout": 20}
    async with ConvoStore.open(mongodb_uri=replica_set.uri, database_name="kit_store", **settings) as store:
        acme = store.tenant("acme")
        cid = (await acme.conversations.create(ConversationDocument.start(user_id="u"))).conversation_id
        await acme.messages.append(cid, MessageDocument.user("before"))
        async with replica_set.killed(await replica_set.primary()):
            await acme.messages.append(cid, MessageDocument.user("meanwhile"))
        contents = [message.content for message in (await acme.messages.history(cid)).items]
        assert contents == ["before", "meanwhile"]


PARENT = """
import asyncio, json
from convostore.testing import RedisPair, ReplicaSet

async def main():
    async with ReplicaSet() as replica_set, RedisPair() as pair:
        pids = [member.pid for member in replica_set.members] + [pair.primary.pid, pair.replica.pid]
        print(json.dumps(pids), flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


async def test_all_servers_die_with_their_parent():
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE)
    try:
        pids = json.loads(await parent.stdout.readline())
        assert len(pids) == 5
        assert all(_runs(pid) for pid in pids)
    finally:
        parent.send_signal(signal.SIGKILL)
        await parent.wait()

    async def gone():
        return not any(_runs(pid) for pid in pids)

    await eventually(gone)


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return _state(pid) != "Z"


async def _is_stopped(pid):
    return _state(pid) == "T"


def _state(pid):
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
