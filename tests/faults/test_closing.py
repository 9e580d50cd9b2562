"""P18: closing, however it comes about, leaves no task, socket, session, cursor or child process."""

import asyncio
import gc

import anyio
import psutil
import pytest
from cancelling import by_scope, plain, struck
from fault_support import address_of, eventually
from public_writes import conversation, text
from pymongo import MongoClient

from convostore import ConvoStore
from convostore.database.local_servers import LocalServers
from convostore.gateways import mongo_gateway


@pytest.fixture
def sockets(convostore_servers):
    port = address_of(convostore_servers.mongodb_uri)[1]
    process = psutil.Process()

    def of_this_process():
        connections = process.net_connections("tcp")
        return {c.laddr.port for c in connections if c.raddr and c.raddr.port == port and c.status != "TIME_WAIT"}

    return of_this_process


@pytest.fixture
def server(convostore_servers, convostore_settings):
    """The server as it is seen by a client that has nothing to do with the event loop."""
    # Polling needs no further connection, which might be opened in the middle of a test.
    with MongoClient(convostore_servers.mongodb_uri, serverMonitoringMode="poll") as client:
        client.admin.command("ping")
        yield client
        client.drop_database(convostore_settings.database_name)


def _connections(server, app_name):
    pipeline = [{"$currentOp": {"allUsers": True, "idleSessions": True, "idleConnections": True}}]
    return list(server.admin.aggregate([*pipeline, {"$match": {"appName": app_name}}]))


def _figures(server):
    status = server.admin.command("serverStatus")
    return status["metrics"]["cursor"]["open"]["total"], status["transactions"]["currentOpen"]


async def _live(settings, leave):
    """Open a store, do something with everything, and leave it in a way."""
    async with ConvoStore.open(settings) as store:
        acme = store.tenant("acme")
        cid = await conversation(acme)
        await asyncio.gather(*(acme.messages.append(cid, text(f"m {n}")) for n in range(5)))
        iterator = acme.messages.iterate(cid)
        await anext(iterator)
        async with store.transaction():
            await acme.messages.append(cid, text("unit"))
        await acme.messages.append(cid, text("its activity is pending"))
        await leave()
    return cid


async def _normally():
    return


async def _by_an_error():
    raise LookupError


async def _by_waiting_for_cancellation():
    await asyncio.sleep(60)


async def _cancelled(work):
    task = asyncio.ensure_future(work)
    await eventually(lambda: "_by_waiting" in repr(_innermost(task)))
    task.cancel()
    await asyncio.wait([task])


async def _cancelled_by_scope(work):
    task = asyncio.current_task()
    with anyio.CancelScope() as scope:
        watching = asyncio.create_task(_cancel_once_it_waits(scope, task))
        await work
    await watching


async def _cancel_once_it_waits(scope, task):
    await eventually(lambda: "_by_waiting" in repr(_innermost(task)), 30)
    scope.cancel()


async def _to_its_end(work):
    try:
        await work
    except LookupError:
        return


def _innermost(task):
    coroutine, names = task.get_coro(), []
    while getattr(coroutine, "cr_await", None) is not None:
        coroutine = coroutine.cr_await
        names.append(getattr(coroutine, "__qualname__", ""))
    return names


WAYS = [
    (_normally, _to_its_end),
    (_by_an_error, _to_its_end),
    (_by_waiting_for_cancellation, _cancelled),
    (_by_waiting_for_cancellation, _cancelled_by_scope),
]


@pytest.mark.parametrize(("leave", "end"), WAYS)
async def test_nothing_is_left_of_a_closed_store(convostore_settings, server, sockets, leave, end):
    name = f"closing-{leave.__name__}-{end.__name__}"
    tasks, open_sockets, figures = asyncio.all_tasks(), sockets(), _figures(server)
    await end(_live(convostore_settings.evolve(app_name=name), leave))
    gc.collect()
    assert asyncio.all_tasks() == tasks
    await eventually(lambda: sockets() <= open_sockets, 3, "all sockets closed")
    await eventually(lambda: not _connections(server, name), 3, "all connections gone")
    assert _figures(server) == figures
    found = list(server[convostore_settings.database_name].conversations.find({"message_count": 7}))
    assert len(found) == 1, "pending activity is written"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_store_whose_opening_is_cancelled_leaves_nothing(convostore_settings, server):
    tasks = asyncio.all_tasks()

    async def opened():
        async with ConvoStore.open(convostore_settings.evolve(app_name="opening")):
            return

    for style in (plain, by_scope):
        for at in range(1, 80):
            ending = await struck(opened(), at, style)
            assert ending.error is None
            if ending.steps < at:
                break
    await eventually(lambda: asyncio.all_tasks() == tasks, 3, "no task left")
    # Not counted is a socket that the driver forgets when it is cancelled between connecting and its first word.
    await eventually(lambda: not _connections(server, "opening"), 3, "all connections gone")


async def test_stores_opened_at_once_on_a_new_database_all_open(convostore_settings, server):
    async def opened():
        async with ConvoStore.open(convostore_settings) as store:
            await conversation(store.tenant("acme"))

    await asyncio.gather(*(opened() for _ in range(6)))


async def test_the_look_at_what_is_left_sees_a_store_that_is_closed_in_reach_of_a_scope(
    convostore_settings, monkeypatch, sockets, server
):
    """The mutant closes in the task of the caller, where an AnyIO scope cancels the closing as well."""

    async def plain_await(work):
        return await work

    before = sockets()
    monkeypatch.setattr(mongo_gateway, "finish", plain_await)
    gateways = []
    close = mongo_gateway.MongoGateway._close

    async def remembering(self):
        gateways.append(self)
        await close(self)

    monkeypatch.setattr(mongo_gateway.MongoGateway, "_close", remembering)
    await _cancelled_by_scope(_live(convostore_settings, _by_waiting_for_cancellation))
    assert not sockets() <= before
    await gateways[0]._client.close()


async def test_throw_away_servers_end_with_their_last_user():
    before = {child.pid for child in psutil.process_iter() if child.name() in ("mongod", "valkey-server")}
    servers = await LocalServers.acquire()
    started = {p.pid for p in psutil.process_iter() if p.name() in ("mongod", "valkey-server")} - before
    assert started
    async with ConvoStore.open(mongodb_uri=servers.addresses.mongodb_uri) as store:
        await conversation(store.tenant("acme"))
    await servers.release()
    assert not [pid for pid in started if str(servers.directory) in _command_line(pid)]
    assert not servers.directory.exists()


def _command_line(pid):
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""
