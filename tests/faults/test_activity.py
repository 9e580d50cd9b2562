"""P1, P6: what the background writes about a conversation survives faults, and nobody reads it too old."""

import asyncio
from contextvars import ContextVar

import pytest
from fault_support import FORGOTTEN_SOCKETS, eventually
from public_writes import conversation, text, with_messages

from convostore import RepositoryError
from convostore.testing.mongo_proxy import Fault

pytestmark = FORGOTTEN_SOCKETS
request = ContextVar("request")


@pytest.fixture
async def cid(acme, store):
    cid = await with_messages(acme)
    await store.mongodb.activity.flush()
    return cid


async def test_every_reader_waits_for_what_another_one_is_writing(proxied, proxy, cid):
    acme = proxied.tenant("acme")
    await acme.messages.append(cid, text("four"))
    proxy.cut_before(1)  # half a second, in which the second reader comes
    first = asyncio.ensure_future(acme.conversations.get_by_id(cid))
    await eventually(lambda: proxy.struck)
    found = await acme.conversations.get_by_id(cid)
    listed = (await acme.conversations.list()).items
    assert [each.message_count for each in (found, await first, *listed)] == [4, 4, 4]


async def test_activity_of_a_reader_who_was_cancelled_is_written_all_the_same(proxied, proxy, cid, truth):
    acme = proxied.tenant("acme")
    await acme.messages.append(cid, text("four"))
    proxy.stall(1)
    reader = asyncio.ensure_future(acme.conversations.get_by_id(cid))
    await eventually(lambda: proxy.struck)
    await eventually(proxied.mongodb.activity._task.done)  # it found nothing left to do
    reader.cancel()
    await asyncio.wait([reader])

    async def written():
        return (await truth.conversation(cid))["message_count"] == 4

    await eventually(written, 2)


async def test_activity_is_written_once_the_server_is_back(proxied, proxy, cid, truth):
    acme = proxied.tenant("acme")
    await acme.messages.append(cid, text("four"))
    proxy.rule = lambda name: Fault.CUT_BEFORE if name == "update" else None
    with pytest.raises(RepositoryError):
        await acme.conversations.get_by_id(cid)
    proxy.heal()

    async def written():
        return (await truth.conversation(cid))["message_count"] == 4

    await eventually(written, 5)


async def test_a_unit_does_not_run_into_the_activity_of_its_own_process(store, acme):
    cid = await conversation(acme)
    for number in range(10):
        await acme.messages.append(cid, text(f"{number}"))
        async with store.transaction():
            await acme.messages.append(cid, text(f"unit {number}"))
            await asyncio.sleep(0.05)  # the activity of the append before would be written now
            await acme.conversations.update_with(cid, lambda found, title=str(number): found.evolve(title=title))


async def test_hooks_run_in_the_context_of_their_unit(store, acme):
    cid = await conversation(acme)
    request.set("r-1")
    seen = []
    async with store.transaction() as unit:
        unit.after_commit(lambda: seen.append(request.get(None)))
        await acme.messages.append(cid, text("x"))
    assert seen == ["r-1"]


async def test_hooks_may_use_the_store(store, acme, truth):
    cid, other = await conversation(acme), await conversation(acme)
    async with store.transaction() as unit:
        unit.after_commit(lambda: acme.messages.append(other, text("from a hook")))
        await acme.messages.append(cid, text("x"))
    assert unit.failed_hooks == 0
    assert await truth.contents(other) == ["from a hook"]


@pytest.mark.parametrize(
    "how",
    [
        {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}},
        {"errorCode": 10107},
        {"errorCode": 91},
        {"closeConnection": True},
    ],
)
async def test_activity_that_the_server_does_not_confirm_is_written_again(proxied, proxy, cid, truth, how):
    acme = proxied.tenant("acme")
    await acme.messages.append(cid, text("four"))
    fail = {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": {"failCommands": ["update"], **how}}
    await proxied.mongodb.administration.command(fail, admin=True)
    proxy.commands.clear()
    assert (await acme.conversations.get_by_id(cid)).message_count == 4
    assert (await truth.conversation(cid))["message_count"] == 4
    assert list(proxy.commands).count("update") >= 2
