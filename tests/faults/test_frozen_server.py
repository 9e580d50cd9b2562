"""P16: a server that freezes holds nobody up beyond the deadline, and what thaws works again."""

import asyncio
import os
import signal
import time

import pytest
import pytest_asyncio
from fault_support import FORGOTTEN_SOCKETS
from public_writes import WRITES, conversation, text, with_messages
from pymongo import MongoClient

from convostore import ConnectionError as OurConnectionError
from convostore import ConvoStore, RepositoryError, TransactionConflictError
from convostore.database.local_servers import LocalServers

pytestmark = FORGOTTEN_SOCKETS
DEADLINE = 1.5
SLACK = 1.5
UNITS = ("transaction", "in_transaction")
# The steps of a caller himself, for each of which the deadline holds; others end with the first that fails.
STEPS = {"transaction": 3}


@pytest.fixture(scope="module")
def own_servers():
    """Servers of their own, for nobody else may freeze with them."""
    servers = LocalServers.acquire_sync()
    yield servers.addresses.mongodb_uri
    servers.release_sync()


@pytest.fixture(scope="module")
def mongod(own_servers):
    with MongoClient(own_servers) as client:
        return int(client.admin.command("serverStatus")["pid"])


@pytest_asyncio.fixture
async def freezing(own_servers, mongod):
    async with ConvoStore.open(mongodb_uri=own_servers, database_name="frozen", deadline=DEADLINE) as store:
        try:
            yield store
        finally:
            os.kill(mongod, signal.SIGCONT)
            store.mongodb.deadline = 10.0


async def _timed(call):
    started = time.monotonic()
    try:
        await call
    except RepositoryError as error:
        return error, time.monotonic() - started
    return None, time.monotonic() - started


async def test_every_call_ends_by_its_deadline_and_works_after_the_thaw(freezing, mongod, capsys):
    acme = freezing.tenant("acme")
    subjects = [(write, await write.prepare(acme)) for write in WRITES]
    cid = await with_messages(acme)
    await freezing.mongodb.activity.flush()
    names = [write.name for write in WRITES] + ["history", "get", "list", "count", "exists", "window", "iterate"]
    os.kill(mongod, signal.SIGSTOP)
    ended = await asyncio.gather(
        *(_timed(write.act(freezing, acme, subject)) for write, subject in subjects),
        _timed(acme.messages.history(cid)),
        _timed(acme.messages.get(cid, 1)),
        _timed(acme.conversations.list()),
        _timed(acme.conversations.count()),
        _timed(acme.conversations.exists(cid)),
        _timed(acme.messages.window(cid, max_messages=2)),
        _timed(anext(acme.messages.iterate(cid))),
    )
    os.kill(mongod, signal.SIGCONT)
    for name, (error, seconds) in zip(names, ended, strict=True):
        expected = (OurConnectionError, TransactionConflictError) if name in UNITS else OurConnectionError
        assert isinstance(error, expected), f"{name}: {error!r}"
        allowed = STEPS.get(name, 1) * DEADLINE + SLACK
        assert seconds < allowed, f"{name} took {seconds:.1f} s"
    freezing.mongodb.deadline = 10.0
    async with asyncio.timeout(10):
        assert (await acme.messages.append(cid, text("thawed"))).content == "thawed"
    with capsys.disabled():
        slowest = max(zip((seconds for _, seconds in ended), names, strict=True))
        print(f"\nfrozen: {len(ended)} calls, slowest {slowest}")


async def test_a_store_closes_although_the_server_is_frozen(own_servers, mongod):
    async with ConvoStore.open(mongodb_uri=own_servers, database_name="frozen", deadline=DEADLINE) as store:
        acme = store.tenant("acme")
        cid = await conversation(acme)
        await acme.messages.append(cid, text("pending activity"))
        os.kill(mongod, signal.SIGSTOP)
        started = time.monotonic()
    seconds = time.monotonic() - started
    os.kill(mongod, signal.SIGCONT)
    assert seconds < 2 * DEADLINE + SLACK
