"""The newest messages of a conversation through the cache: what is read is what the database holds."""

import asyncio
import json

import pytest
from cached_support import TENANT, conversation, eventually, text
from newest_support import fill, message_id, messages, read, statistics, told, warm
from pydantic import SecretStr

from convostore import ConvoStore, DeliveryStatus, EntityNotFoundError, MessageDocument, ValidationError
from convostore.gateways.bulk_collection import BulkCollection
from convostore.operations.importing import Importer
from convostore.operations.line_source import LineSource
from convostore.operations.repair import Repair
from convostore.repositories.log_reader import LogReader
from convostore.repositories.message_log import MessageLog
from convostore.repositories.newest_cache import NewestCache
from convostore.repositories.newest_slots import KEPT, KEPT_BYTES, NewestSlots
from convostore.repositories.slots import Slot, documents_of


class UndoneError(Exception):
    """Ends a unit of work."""


@pytest.fixture
async def one(opened):
    return await opened(cache_messages=True)


@pytest.fixture
async def other(opened):
    return await opened(cache_messages=True)


@pytest.fixture
async def cid(one):
    return await conversation(one)


async def not_loaded():
    raise AssertionError("it was not in the cache")


async def test_what_is_cached_is_not_read_from_the_database(one, cid):
    await fill(one, cid)
    await warm(one, cid)
    before = statistics(one).loads
    for limit in (1, 2, 50):
        assert len(await told(one, cid, limit=limit)) == min(limit, 3)
        assert len(await messages(one).window(cid, max_messages=limit)) == min(limit, 3)
    assert statistics(one).loads == before


async def test_it_is_off_unless_asked_for(store, opened):
    assert store.mongodb.newest is None
    only = await opened(cache_conversations=False, cache_messages=True)
    assert only.mongodb.cached is None
    cid = await conversation(only)
    await fill(only, cid)
    await warm(only, cid)


async def test_it_needs_a_redis(convostore_settings):
    with pytest.raises(ValidationError, match="redis_url"):
        async with ConvoStore.open(convostore_settings, cache_messages=True):
            pass


async def test_appends_extend_the_cell_and_nothing_is_loaded(one, other, cid):
    await warm(other, cid)
    before = statistics(other).loads, statistics(one).loads
    for number in range(1, 8):
        await messages(one if number % 2 else other).append(cid, text(f"{number}"))
        assert await told(other, cid) == [f"{n}" for n in range(1, number + 1)]
    await messages(one).append_many(cid, [text("8"), text("9", payload={"$big": 2**62, "deep": [{"x": None}]})])
    assert (await told(other, cid))[-2:] == ["8", "9"]
    assert (statistics(other).loads, statistics(one).loads) == before


async def test_a_read_is_one_command_and_an_append_another(opened, proxy):
    store = await opened(redis_url=SecretStr(proxy.url), cache_messages=True, cache_conversations=False)
    cid = await conversation(store)
    await warm(store, cid)
    await messages(store).append(cid, text())
    proxy.commands.clear()
    await messages(store).append(cid, text())
    await messages(store).history(cid)
    await messages(store).window(cid, max_tokens=100)
    await messages(store).edit(cid, 1, content="x")
    assert proxy.commands == ["EVALSHA", "GET", "GET", "DEL"]


CHANGES = {
    "edit": lambda it, cid: it.edit(cid, 2, content="new"),
    "update": lambda it, cid: it.update_with(message_id(cid, 2), lambda found: found.evolve(content="new")),
    "delivery": lambda it, cid: it.update_delivery_status(cid, 2, DeliveryStatus.SENT),
    "deletion": lambda it, cid: it.delete(message_id(cid, 2)),
    "deletion of the last": lambda it, cid: it.delete(message_id(cid, 3)),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_another_process_reads_what_was_changed(one, other, cid, name):
    await fill(one, cid)
    before = await warm(other, cid)
    await CHANGES[name](messages(one), cid)
    assert await messages(other).history(cid) != before
    await told(other, cid)
    await told(other, cid, include_deleted=True)
    await messages(one).append(cid, text("behind"))
    assert (await told(other, cid))[-1] == "behind"


@pytest.mark.parametrize("name", CHANGES)
async def test_a_unit_of_work_tells_what_it_has_changed_after_its_commit(one, other, cid, name):
    await fill(one, cid)
    before = await warm(other, cid)
    async with one.transaction():
        await CHANGES[name](messages(one), cid)
        assert await read(other, cid) == before
        assert await messages(one).history(cid) != before
    await told(other, cid)


async def undo(store, cid):
    async with store.transaction():
        await messages(store).append(cid, text("undone"))
        await messages(store).edit(cid, 1, content="undone")
        raise UndoneError


async def test_a_unit_of_work_that_is_undone_leaves_the_cell_as_it_was(one, other, cid):
    await fill(one, cid)
    await warm(other, cid)
    before = statistics(other).loads
    with pytest.raises(UndoneError):
        await undo(one, cid)
    assert await told(other, cid) == ["1", "2", "3"]
    assert statistics(other).loads == before


async def test_what_a_unit_of_work_has_appended_is_read_after_it(one, other, cid):
    await fill(one, cid)
    await warm(other, cid)
    async with one.transaction():
        await messages(one).append(cid, text("4"))
    assert await told(other, cid) == ["1", "2", "3", "4"]
    await messages(one).append(cid, text("5"))
    assert await told(other, cid) == ["1", "2", "3", "4", "5"]


async def test_of_a_deleted_conversation_nothing_is_read(one, other, cid):
    await fill(one, cid)
    await warm(other, cid)
    await one.tenant(TENANT).conversations.delete(cid)
    assert await told(other, cid) == []
    with pytest.raises(EntityNotFoundError):
        await messages(one).append(cid, text())
    assert await told(other, cid) == []


async def test_a_replayed_append_tells_what_somebody_may_have_left_untold(one, other, store, cid):
    await warm(other, cid)
    # The other store stands for processes that died between their writes and the telling.
    await messages(store).append(cid, text("x"), idempotency_key="k")
    await messages(store).delete(message_id(cid, 1))
    await messages(store).append(cid, text("y"), idempotency_key="l")
    assert (await read(other, cid)).items == [], "it is a cache"
    assert (await messages(one).append(cid, text("x"), idempotency_key="k")).replayed
    assert await told(other, cid) == ["y"]


async def test_an_append_behind_what_nobody_has_told_leaves_no_gap(one, other, store, cid):
    await fill(one, cid, 3)
    await warm(other, cid)
    await messages(store).append(cid, text("untold"))
    await messages(one).append(cid, text("told"))
    assert await told(other, cid, limit=3) == ["3", "untold", "told"]


async def test_an_append_that_is_told_late_brings_nothing_back(one, other, store, cid):
    """The appender is slow to tell: meanwhile others have read, edited and deleted what he has appended."""
    for change in (CHANGES["deletion of the last"], lambda it, cid: it.edit(cid, 3, content="edited")):
        cid = await conversation(one)
        await fill(one, cid, 2)
        (late,) = await messages(store).append_many(cid, [text("late")])
        await warm(other, cid)
        await change(messages(one), cid)
        await warm(other, cid)
        await one.mongodb.newest._tell_appended(one.tenant(TENANT).database.identity(cid), [late])
        assert "late" not in await told(other, cid)


@pytest.mark.parametrize("name", [*CHANGES, "append"])
async def test_what_is_being_loaded_when_something_is_written_is_not_kept(one, other, cid, name):
    async def load():
        found = await LogReader(other.tenant(TENANT).database).newest_slots(cid)
        loaded.set()
        await release.wait()
        return found

    loaded, release = asyncio.Event(), asyncio.Event()
    await fill(one, cid)
    await warm(other, await conversation(other))
    reading = asyncio.create_task(other.mongodb.newest.get(TENANT, cid, load))
    await loaded.wait()
    await {**CHANGES, "append": lambda it, cid: it.append(cid, text("4"))}[name](messages(one), cid)
    release.set()
    await reading
    await told(one, cid)
    await told(other, cid)


async def test_a_cancelled_append_is_told_all_the_same(one, other, cid):
    for number in range(30):
        await warm(other, cid)
        appending = asyncio.create_task(messages(one).append(cid, text(f"{number}")))
        for _ in range(number):
            await asyncio.sleep(0)
        appending.cancel()
        await asyncio.wait([appending])
        await asyncio.gather(*one.mongodb.newest._writes, return_exceptions=True)
        await told(other, cid)


async def test_the_cell_is_bounded_in_messages(one, other, cid):
    await fill(one, cid, KEPT + 50)
    await warm(other, cid)
    for number in range(3):
        await messages(one).append(cid, text(f"behind {number}"))
    before = statistics(other).hits
    for limit in (1, 50, KEPT - 1):
        assert len(await told(other, cid, limit=limit)) == limit
    assert statistics(other).hits == before + 3
    for limit in (KEPT, KEPT + 1, 1000):
        assert len(await told(other, cid, limit=limit)) == min(limit, KEPT + 53)
    found = await other.mongodb.newest.get(TENANT, cid, not_loaded)
    assert (len(found.entries), found.sequence) == (KEPT, KEPT + 53)


async def test_the_cell_is_bounded_in_bytes(one, other, cid):
    large = "x" * (KEPT_BYTES // 10)
    for _ in range(15):
        await messages(one).append(cid, text(large))
        await warm(other, cid)
    found = await other.mongodb.newest.get(TENANT, cid, not_loaded)
    assert (len(found.entries), found.sequence) == (9, 15)
    assert len(found.contents) <= KEPT_BYTES
    assert len(await told(other, cid, limit=8)) == 8
    assert len(await told(other, cid)) == 15
    assert len(await messages(other).window(cid, max_tokens=10**9)) == 15
    await messages(one).append(cid, text("x" * 2 * KEPT_BYTES))
    assert len(await told(other, cid, limit=1)) == 1
    await messages(one).append(cid, text("small"))
    assert (await told(other, cid, limit=1)) == ["small"]


async def test_a_window_by_tokens_goes_on_from_the_cell_into_the_log(one, other, cid):
    await fill(one, cid, 3 * KEPT)
    await warm(other, cid)
    before = statistics(other).hits
    for budget in ({"max_tokens": 5}, {"max_tokens": 150}, {"max_messages": 250}, {"max_tokens": 10**6}):
        found = await messages(other).window(cid, **budget)
        assert found == await messages(other).window(cid, **budget, fresh=True)
    assert statistics(other).hits == before + 4


async def test_fresh_reads_past_the_cache(one, store, cid):
    await fill(one, cid)
    await warm(one, cid)
    await messages(store).edit(cid, 3, content="elsewhere")
    assert (await read(one, cid)).items[-1].content == "3", "it is a cache"
    assert (await messages(one).history(cid, fresh=True)).items[-1].content == "elsewhere"
    assert (await messages(one).window(cid, max_messages=1, fresh=True))[-1].content == "elsewhere"
    assert (await messages(one).history(cid, before=4)).items[-1].content == "elsewhere"


async def test_who_is_given_a_message_may_change_what_is_in_its_payload(one, cid):
    await messages(one).append(cid, text(payload={"list": [1]}))
    await warm(one, cid)
    several = await asyncio.gather(*(messages(one).history(cid) for _ in range(8)))
    several[0].items[0].payload["list"].append(2)
    assert all(page.items[0].payload == {"list": [1]} for page in several[1:])
    assert (await messages(one).history(cid)).items[0].payload == {"list": [1]}


async def test_activity_is_not_behind_the_messages_of_its_own_process(one, cid):
    await warm(one, cid)
    for number in range(1, 4):
        await messages(one).append(cid, text())
        newest = (await messages(one).history(cid)).items[-1].sequence
        assert newest == (await one.tenant(TENANT).conversations.get_by_id(cid)).message_count == number


async def test_the_synchronizer_tells_what_other_programs_write(one, store, cid):
    await fill(one, cid)
    await one.synchronizer().run_once()
    raw = one.mongodb.database.messages
    identity = one.tenant(TENANT).database.identity(cid, "0000000002")
    for change in (
        lambda: raw.update_one({"_id": identity}, {"$set": {"content": "by hand"}}),
        lambda: raw.update_one({"_id": identity}, {"$set": {"delivery_status": "read"}}),
        lambda: messages(store).append(cid, text("elsewhere")),
        lambda: messages(store).delete(message_id(cid, 1)),
        lambda: raw.delete_one({"_id": identity}),
    ):
        before = await warm(one, cid)
        await change()
        assert await read(one, cid) == before, "it is a cache"
        await one.synchronizer().run_once()
        assert await messages(one).history(cid) != before
        await told(one, cid)


async def test_an_import_that_was_read_in_the_middle_is_read_whole_afterwards(one, other, tmp_path, monkeypatch):
    line = {"id": "imported", "user_id": "u", "messages": [{"role": "user", "content": f"{n}"} for n in range(3)]}
    path = tmp_path / "lines.jsonl"
    path.write_text(json.dumps(line) + "\n")
    finish = BulkCollection.finish

    async def look_before(places, digests):
        for key in digests:
            identity = one.tenant(TENANT).database.identity(*key, "0000000003")
            last = await raw.find_one_and_delete({"_id": identity})  # as if it were not stored yet
            seen.append((key[0], await told(other, key[0])))
            await raw.insert_one(last)
        return await finish(places, digests)

    seen, raw = [], one.mongodb.database.messages
    await warm(other, await conversation(other))
    monkeypatch.setattr(BulkCollection, "finish", look_before)
    with LineSource(path) as source:
        result = await Importer(one.tenant(TENANT).database).run(source)
    assert result.imported == 1, result.problems
    ((cid, before),) = seen
    assert len(before) == 2
    assert len(await told(other, cid)) == 3


async def test_what_is_repaired_is_read_at_once(one, other, cid):
    await fill(one, cid)
    await warm(other, cid)
    identity = one.tenant(TENANT).database.identity(cid)
    await one.mongodb.activity.flush()
    await one.mongodb.database.conversations.delete_one({"_id": identity})
    assert (await Repair(one.mongodb).run()).count == 1
    assert await told(other, cid) == []


async def test_remains_of_a_batch_are_told_as_the_log_tells_them(one, other, cid):
    await fill(one, cid, 4)
    database = one.tenant(TENANT).database
    slots = database.collection("messages", "Message")
    for index, sequence in enumerate((5, 6)):
        (document,) = documents_of(cid, [text("cut short")], None)
        batch = {"id": "b", "size": 3, "index": index}
        await slots.insert((cid, f"{sequence:010d}"), {**document, "sequence": sequence, "batch": batch})
    one.mongodb.lanes.forget(database.identity(cid))
    await warm(other, cid)
    for behind in range(3):
        for limit in (1, 2, 3, 4, 5, 6, 50):
            await told(other, cid, limit=limit)
            await told(other, cid, limit=limit, include_deleted=True)
        await messages(one).append(cid, text(f"behind {behind}"))
    await MessageLog(database).settled_batch(_slot(await slots.get((cid, "0000000005"))))
    await told(other, cid)


def _slot(stored):
    return Slot(stored)


async def test_a_log_with_a_gap_is_not_kept(one, cid):
    await fill(one, cid)
    await one.mongodb.database.messages.delete_one({"_id": one.tenant(TENANT).database.identity(cid, "0000000002")})
    await warm(one, await conversation(one))
    before = statistics(one).loads
    for number in range(3):
        assert await told(one, cid) == ["1", "3", *map(str, range(number))]
        await messages(one).append(cid, text(f"{number}"))
    assert statistics(one).loads == before + 3, "whenever it has changed"


async def test_a_cell_that_nobody_can_read_is_passed_over(one, cid):
    await fill(one, cid)
    await warm(one, cid)
    strange = (NewestSlots(3, (5,), b"\xc1\xc1\xc1\xc1\xc1"), NewestSlots(3, (1,), b"\x01"))
    for found in strange:
        await messages(one).edit(cid, 1, content="1")

        async def load(found=found):
            return found

        await one.mongodb.newest.get(TENANT, cid, load)
        assert await told(one, cid, limit=1) == ["3"]
        assert await told(one, cid) == ["1", "2", "3"]
    for bad in (b"", b"\0" * 11, NewestSlots(3, (5,), b"1234").pack(), NewestSlots(1, (), b"").pack() + b"x"):
        with pytest.raises(Exception, match=r"lengths|buffer"):
            NewestSlots.parse(bad)


async def test_a_lost_extension_is_no_stale_read(opened, other, proxy, cid):
    behind = await opened(redis_url=SecretStr(proxy.url), breaker_pause=0.05, cache_messages=True)
    await fill(other, cid)
    for change in (
        lambda: messages(behind).append(cid, text("new")),
        lambda: messages(behind).delete(message_id(cid, 1)),
    ):
        await warm(other, cid)
        await eventually(lambda: behind.mongodb.newest.epoch.usable() is not None)
        raised = behind.mongodb.newest.epoch.raised
        proxy.cut_before(1, times=1000)
        await change()
        await told(other, cid)
        await told(behind, cid)
        assert behind.mongodb.newest.epoch.raised > raised
        proxy.heal()
        await eventually(lambda: other.mongodb.newest.epoch.usable() is not None)
        await told(other, cid)


async def test_both_caches_go_by_one_epoch(one):
    assert isinstance(one.mongodb.newest, NewestCache)
    assert one.mongodb.newest.epoch is one.mongodb.cached.epoch


async def test_what_cannot_be_right_is_refused_before_anything_is_asked(one):
    for call in (
        lambda: messages(one).history(""),
        lambda: messages(one).window("", max_messages=1),
        lambda: messages(one).append("", text()),
        lambda: messages(one).append_many("c", []),
        lambda: messages(one).append("c", "no message"),
        lambda: messages(one).update("no message"),
    ):
        with pytest.raises(ValidationError):
            await call()
    assert not one.mongodb.newest._writes
    assert isinstance(text(), MessageDocument)
