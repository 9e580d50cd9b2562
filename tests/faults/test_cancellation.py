"""P12, P5: a call cancelled at any of its waits, in any style, leaves nothing half done and nothing behind."""

import asyncio
import itertools

import pytest
from cancelling import by_scope, by_scope_above, by_sibling, by_timeout, plain, struck
from fault_support import FORGOTTEN_SOCKETS, eventually
from public_writes import BATCH, conversation, text, with_messages

from convostore import ConversationDocument, ConversationStatus, ConvoStore, MessageDocument, RepositoryError
from convostore.gateways import mongo_gateway, mongo_transaction
from convostore.repositories import unit_of_work

pytestmark = FORGOTTEN_SOCKETS
WAYS = [
    *((plain, False), (plain, True), (by_timeout, False), (by_sibling, True)),
    *((by_scope, True), (by_scope_above, False)),
]
GRACES = [0.0, mongo_gateway.CANCEL_GRACE]  # cut off at once, and as it is delivered
LONG = 450  # messages, so that iterating takes several commands


@pytest.fixture(autouse=True, params=GRACES, ids=["cut at once", "with grace"])
def _grace(request, monkeypatch):
    monkeypatch.setattr(mongo_gateway, "CANCEL_GRACE", request.param)


class Call:
    """A call under cancellation: acts on a conversation of its own, and knows what may be there afterwards."""

    def __init__(self, name, act, prepare=with_messages, adds=0):
        self.name, self.act, self.prepare, self.adds = name, act, prepare, adds

    def __str__(self):
        return self.name


async def _append(store, acme, cid, hooks):
    return await acme.messages.append(cid, text("the one"))


async def _append_many(store, acme, cid, hooks):
    return await acme.messages.append_many(cid, BATCH)


async def _create(store, acme, cid, hooks):
    return await acme.conversations.create(ConversationDocument.start(user_id="u"))


async def _update(store, acme, cid, hooks):
    return await acme.conversations.update_with(cid, lambda found: found.evolve(title="new"))


async def _delete_message(store, acme, cid, hooks):
    return await acme.messages.delete(MessageDocument.identify(cid, 1))


async def _history(store, acme, cid, hooks):
    return await acme.messages.history(cid, 3)


async def _own_append(store, acme, cid, hooks):
    await acme.messages.append(cid, text("the one"))
    return await acme.conversations.get_by_id(cid)


async def _commit(store, acme, cid, hooks):
    async with store.transaction() as unit:
        unit.after_commit(lambda: hooks.append("done"))
        await acme.conversations.update_conversation_status(cid, ConversationStatus.WAITING)
        await acme.messages.append(cid, text("the one"))


async def _abort(store, acme, cid, hooks):
    try:
        async with store.transaction() as unit:
            unit.after_commit(lambda: hooks.append("done"))
            await acme.messages.append(cid, text("the one"))
            raise LookupError  # noqa: TRY301 - the body of a unit of work fails
    except LookupError:
        return


async def _delete(store, acme, cid, hooks):
    return await acme.conversations.delete(cid)


CALLS = [
    Call("append", _append, adds=1),
    Call("append, first", _append, conversation, adds=1),
    Call("append_many", _append_many, adds=len(BATCH)),
    Call("create", _create),
    Call("update", _update),
    Call("delete message", _delete_message, adds=-1),
    Call("history", _history),
    Call("append and read", _own_append, adds=1),
    Call("commit", _commit, adds=1),
    Call("abort", _abort),
    Call("delete", _delete),
]


class Bystander:
    """Looks after each cancellation whether anybody else is harmed."""

    def __init__(self, store, acme, truth):
        self.store, self.acme, self.truth = store, acme, truth
        self.ids = []

    async def start(self):
        for _ in range(3):
            self.ids.append(await conversation(self.acme))
        await self.truth.database.messages.find_one()
        await self.store.mongodb.activity.flush()
        await eventually(lambda: self.store.mongodb.activity._task is None or self.store.mongodb.activity._task.done())
        self.tasks = len(self._others())
        self.cursors = await self.truth.open_cursors()

    def _others(self):
        # The driver's own tasks come and go with its connections to the server.
        return [task for task in asyncio.all_tasks() if "pymongo" not in repr(task) and not task.done()]

    async def check(self):
        found = await asyncio.gather(*(self.acme.conversations.get_by_id(cid) for cid in self.ids))
        assert [each.conversation_id for each in found] == self.ids, "a reply went to another caller"
        assert await self.truth.open_transactions() == 0, "a transaction was left open"
        if await self.truth.open_cursors() != self.cursors:
            assert await self.truth.open_cursors() == self.cursors, "a cursor was left open"

    async def check_tasks(self):
        await self.store.mongodb.activity.flush()
        await eventually(lambda: len(self._others()) <= self.tasks, 2, f"as many tasks as before: {self._others()}")


@pytest.fixture
async def bystander(store, acme, truth):
    bystander = Bystander(store, acme, truth)
    await bystander.start()
    return bystander


async def _wholly_or_not(call, truth, cid, before, hooks, ending):
    """Say whether it happened, having made sure that it did so wholly or not at all."""
    contents = await truth.contents(cid)
    added = len(contents) - before
    assert added in (0, call.adds), f"{added} messages added"
    if call.act is _commit:
        status = (await truth.conversation(cid))["status"]
        assert (status == "waiting") == (added == 1), "half a unit of work"
        assert hooks == ["done"] * added, f"hooks {hooks} after {added}"
    assert call.act is not _abort or hooks == []
    assert added == call.adds or ending.cancelled, "a call that ended well has not happened"


async def _one_point(call, bystander, at, style, late):
    store, acme, truth = bystander.store, bystander.acme, bystander.truth
    cid, hooks = await call.prepare(acme), []
    before = len(await truth.contents(cid))
    await store.mongodb.activity.flush()  # else a transaction may run into it
    ending = await struck(call.act(store, acme, cid, hooks), at, style, late=late)
    assert ending.error is None or isinstance(ending.error, RepositoryError), repr(ending.error)
    await bystander.check()
    if call.act is not _delete:
        await _wholly_or_not(call, truth, cid, before, hooks, ending)
        async with asyncio.timeout(2):  # nobody is blocked
            await acme.conversations.update_conversation_status(cid, ConversationStatus.ARCHIVED)
            await acme.messages.append(cid, text("next"))
    else:
        await acme.conversations.delete(cid)
        assert (await truth.log(cid))[-1]["kind"] == "seal"
    await truth.log(cid)
    return ending


@pytest.mark.parametrize("call", CALLS, ids=str)
async def test_a_call_cancelled_at_any_wait_leaves_nothing_behind(call, bystander, capsys):
    points = 0
    for style, late in WAYS:
        for at in itertools.count(1):
            ending = await _one_point(call, bystander, at, style, late)
            if ending.steps < at:
                break
            points += 1
    await bystander.check_tasks()
    with capsys.disabled():
        print(f"\n{call}: {points} points")


async def _plain_await(work):
    return await work


async def test_the_steps_see_a_commit_without_a_shield(bystander, monkeypatch, truth):
    """The mutant commits in the task of the caller, where an AnyIO scope cancels the end of the session as well."""
    for module in (unit_of_work, mongo_transaction):
        monkeypatch.setattr(module, "finish", _plain_await)
    commit = next(call for call in CALLS if call.act is _commit)

    async def sweep():
        for at in range(1, 60):
            await _one_point(commit, bystander, at, by_scope, late=False)

    with pytest.raises((AssertionError, TimeoutError)):
        await sweep()
    await truth.admin.command("killAllSessions", [])


async def _crowded(ids, crowd, at, style, late):
    others = [asyncio.ensure_future(crowd.conversations.get_by_id(cid)) for cid in ids[1:]]
    await asyncio.sleep(0)
    ending = await struck(crowd.messages.append(ids[0], text("mine")), at, style, late=late)
    assert ending.error is None
    assert [found.conversation_id for found in await asyncio.gather(*others)] == ids[1:]
    return ending


async def test_a_call_cancelled_in_a_crowd_takes_nobodys_answer(store, acme, truth, convostore_settings, capsys):
    """Fewer connections than callers, and new ones to be opened after each cancellation."""
    ids = [await conversation(acme) for _ in range(8)]
    points = 0
    async with ConvoStore.open(convostore_settings.evolve(max_pool_size=2, wait_queue_timeout=10)) as small:
        crowd = small.tenant("acme")
        for style, late in WAYS:
            for at in itertools.count(1):
                ending = await _crowded(ids, crowd, at, style, late)
                if ending.steps < at:
                    break
                points += 1
        await truth.log(ids[0])
    with capsys.disabled():
        print(f"\nin a crowd: {points} points")


async def test_one_cancelled_in_the_queue_of_a_conversation_does_not_hold_up_the_others(acme, truth):
    cid = await conversation(acme)
    for at in range(1, 8):
        ahead = [asyncio.ensure_future(acme.messages.append(cid, text(f"ahead {at} {n}"))) for n in range(2)]
        await asyncio.sleep(0)
        behind = []

        async def append_with_one_behind(at=at, behind=behind):
            behind.append(asyncio.ensure_future(acme.messages.append(cid, text(f"behind {at}"))))
            await acme.messages.append(cid, text(f"cancelled {at}"))

        await struck(append_with_one_behind(), at, plain)
        async with asyncio.timeout(3):
            await asyncio.gather(*ahead, *behind)
    contents = await truth.contents(cid)
    assert [contents.count(f"behind {at}") for at in range(1, 8)] == [1] * 7
    assert max(contents.count(f"cancelled {at}") for at in range(1, 8)) <= 1


async def _iterate(acme, cid):
    return [message async for message in acme.messages.iterate(cid)]


async def _long_history(acme, cid):
    return (await acme.messages.history(cid, 1000)).items


async def _replay(acme, cid):
    messages = [text(f"m {n}") for n in range(LONG)]
    return await acme.messages.append_many(cid, messages, idempotency_key="key")


async def _page(acme, cid):
    return [each async for each in acme.conversations.iterate_all()]


@pytest.mark.parametrize("read", [_iterate, _long_history, _replay, _page])
async def test_a_cancelled_read_leaves_no_cursor_on_the_server(read, store, acme, truth, bystander, capsys):
    cid = await conversation(acme)
    await _replay(acme, cid)
    await store.mongodb.activity.flush()
    base, points = await truth.open_cursors(), 0
    for style, late in itertools.product((plain, by_scope), (False, True)):
        for at in itertools.count(1):
            ending = await struck(read(acme, cid), at, style, late=late)
            assert ending.error is None
            assert await truth.open_cursors() == base, f"a cursor was left open, cancelled at {at}, {late}"
            if ending.steps < at:
                break
            points += 1
    with capsys.disabled():
        print(f"\n{read.__name__}: {points} points")
