"""P16: a call that consists of several ends by the deadline of one."""

import asyncio

import pytest
from fault_support import FORGOTTEN_SOCKETS
from public_writes import conversation, text, with_messages

from convostore import ConversationDocument, ConvoStore, DeadlineExceededError, Outcome, Pagination
from convostore.gateways.shared_deadline import one_deadline, time_left

pytestmark = FORGOTTEN_SOCKETS
STEP, DEADLINE = 1.2, 2.2  # seconds: one step fits, two do not


@pytest.fixture
async def slow(truth, convostore_settings):
    """A tenant of a store for which the server takes its time, once ``begin`` is called."""
    name = "one-deadline"
    data = {"failCommands": ["find", "aggregate", "insert", "update", "findAndModify", "count"], "appName": name}

    async def begin():
        await store.mongodb.activity.flush()
        data.update(blockConnection=True, blockTimeMS=int(1000 * STEP))
        await truth.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
        store.mongodb.deadline = DEADLINE

    async with ConvoStore.open(convostore_settings.evolve(app_name=name)) as store:
        store.begin = begin
        yield store
        await truth.admin.command("configureFailPoint", "failCommand", mode="off")
        store.mongodb.deadline = 10.0


async def _several(acme, *cids):
    for cid in cids:
        await acme.conversations.get_by_id(cid)


async def test_a_call_of_several_steps_ends_by_the_deadline_of_one(slow):
    acme = slow.tenant("acme")
    cids = [await with_messages(acme) for _ in range(3)]
    stale = await acme.conversations.get_by_id(await conversation(acme))
    await acme.conversations.update(stale.evolve(title="newer"))
    cold = (await acme.conversations.create(ConversationDocument.start("u"))).conversation_id
    await slow.begin()
    one = acme.conversations.get_by_id(cids[0])
    several = {
        "list": acme.conversations.list(pagination=Pagination(page_size=1)),
        "update_with": acme.conversations.update_with(cids[0], lambda found: found.evolve(title="new")),
        "update, stale": acme.conversations.update(stale.evolve(title="older")),
        "delete": acme.conversations.delete(cids[1]),
        "edit": acme.messages.edit(cids[2], 1, content="edited"),
        "append, cold, with a key": acme.messages.append(cold, text("late"), idempotency_key="k"),
        "in_transaction": slow.in_transaction(lambda _: _several(acme, *cids)),
    }
    found, *ended = await asyncio.gather(one, *several.values(), return_exceptions=True)
    assert found.conversation_id == cids[0], "one step fits"
    assert {name: type(end) for name, end in zip(several, ended, strict=True)} == dict.fromkeys(
        several, DeadlineExceededError
    )
    outcomes = {name: end.outcome for name, end in zip(several, ended, strict=True)}
    assert outcomes["delete"] is Outcome.UNKNOWN, "its conversation is gone"
    assert outcomes["in_transaction"] is Outcome.NOT_APPLIED


async def test_what_a_call_has_started_and_left_behind_has_time_of_its_own():
    async def later():
        while time_left(10) < 10:
            assert time_left(10) <= 5
            await asyncio.sleep(0)
        return True

    with one_deadline(5):
        left_behind = asyncio.create_task(later())
        await asyncio.sleep(0)
        with one_deadline(1):
            assert time_left(10) <= 1
        with one_deadline(8):
            assert time_left(10) <= 5
    assert await left_behind
    assert time_left(10) == 10
