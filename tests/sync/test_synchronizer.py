"""What other programs change in MongoDB is forgotten by the cache, and it is kept how far that has come."""

import asyncio
import json
import signal
import subprocess
import sys
import uuid
from contextlib import asynccontextmanager, suppress

import pytest
from pydantic import SecretStr
from sync_support import conversation, eventually, text
from typer.testing import CliRunner

from convostore import ConversationDocument, ConvoStore, RedisSettings, ValidationError
from convostore.cli.main import app
from convostore.gateways.checkpoints import Checkpoints
from convostore.gateways.epoch_counter import EpochCounter
from convostore.operations.doctor import Level
from convostore.operations.sync_doctor import SyncDoctor
from convostore.repositories.cache_forgetting import CacheForgetting, Place
from convostore.repositories.entity_spaces import CONVERSATION, NEWEST
from convostore.repositories.exceptions import ConnectionError as StoreConnectionError
from convostore.repositories.newest_slots import NewestSlots
from convostore.sync import synchronizer as synchronizing
from convostore.testing.redis_servers import RedisServer

PROGRAM = "import convostore.cli.main as program; program.main()"


@pytest.fixture
def acme(store):
    """A tenant of the test's own, for the Redis is shared."""
    return store.tenant(f"acme-{uuid.uuid4().hex[:8]}")


@asynccontextmanager
async def running(store, **options):
    """Let a synchronizer run, and return it once it follows."""
    statuses = []
    synchronizer = store.synchronizer(progress=statuses.append, **options)
    task = asyncio.create_task(synchronizer.run())
    synchronizer.statuses, synchronizer.task = statuses, task
    await eventually(lambda: statuses or task.done())
    try:
        yield synchronizer
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def cached(store, tenant, cid):
    """Read a conversation through the cache."""
    return await store.cache.get_or_load(
        tenant.tenant_id, CONVERSATION, cid, lambda: tenant.conversations.get_by_id(cid)
    )


async def held(store, tenant, cid, space=CONVERSATION):
    return await store.cache.get(tenant.tenant_id, space, cid)


async def newest(store, tenant, cid, sequence):
    """Put newest messages into the cache."""

    async def load():
        return NewestSlots(sequence, (), b"")

    await store.cache.get_or_load(tenant.tenant_id, NEWEST, cid, load)


async def raw_update(raw, tenant, cid, change):
    await raw.conversations.update_one({"_id": f"{tenant.tenant_id}:{cid}"}, change)


WRITES = [
    {"$set": {"title": "x"}, "$inc": {"version": 1}},
    {"$set": {"title": "x"}},
    {"$set": {"version": 1}, "$unset": {"tenant_id": ""}},
    [{"$replaceWith": {"_id": "$_id", "version": 2, "deleted_at": "$$NOW"}}],
]


async def test_a_write_by_another_program_is_forgotten(store, acme, raw):
    cids, other = [await conversation(acme) for _ in WRITES], await conversation(acme)
    async with running(store):
        for cid in (*cids, other):
            await cached(store, acme, cid)
        for cid, change in zip(cids, WRITES, strict=True):
            await raw_update(raw, acme, cid, change)
            await eventually_forgotten(store, acme, cid)
        assert (await held(store, acme, other)).version == 1


async def eventually_forgotten(store, tenant, cid, space=CONVERSATION):
    async def forgotten():
        return await held(store, tenant, cid, space) is None

    await eventually(forgotten, what="it is forgotten")


async def test_that_there_is_nothing_is_forgotten_when_there_is_something(store, acme):
    async with running(store):
        assert await cached(store, acme, "later") is None
        assert (await held(store, acme, "later")).is_negative
        await conversation(acme, "later")
        await eventually_forgotten(store, acme, "later")
        assert (await cached(store, acme, "later")).version == 1


async def test_messages_outdate_the_newest_ones_of_their_conversation(store, acme):
    cid = await conversation(acme)
    await acme.messages.append(cid, text())
    async with running(store):
        for change in (
            lambda: acme.messages.append(cid, text()),
            lambda: acme.messages.edit(cid, 1, content="x"),
            lambda: acme.messages.update_delivery_status(cid, 1, "sent"),
            lambda: acme.conversations.delete(cid),
        ):
            await newest(store, acme, cid, await acme.messages.count({"conversation_id": cid}))
            assert await held(store, acme, cid, NEWEST) is not None
            await change()
            await eventually_forgotten(store, acme, cid, NEWEST)


async def test_what_is_newer_than_the_event_stays(store, acme):
    """Events come late; what was read since is at their version."""
    cid = await conversation(acme)
    await store.synchronizer().run_once()
    found = await acme.conversations.get_by_id(cid)
    await acme.conversations.update(found.evolve(title="x"))
    await acme.messages.append(cid, text())
    await cached(store, acme, cid)
    await newest(store, acme, cid, 1)
    status = await store.synchronizer().run_once()
    assert (status.events, status.forgotten, status.losses) == (2, 0, 0)
    assert (await held(store, acme, cid)).version == 2
    assert (await held(store, acme, cid, NEWEST)).version == 1


async def test_once_ends_with_an_error_where_the_cache_is_away_and_leaves_it_to_the_next(
    store, acme, convostore_settings, convostore_redis_settings
):
    cid = await conversation(acme)
    await store.synchronizer().run_once()
    await acme.conversations.update_conversation_status(cid, "waiting")
    away = convostore_redis_settings.evolve(redis_url=SecretStr("redis://127.0.0.1:1/0"))
    async with ConvoStore.open(convostore_settings, away) as blind:
        with pytest.raises(StoreConnectionError):
            await blind.synchronizer().run_once()
    assert (await store.synchronizer().run_once()).events == 1


async def test_many_events_of_one_entity_are_one_invalidation_and_many_are_one_round_trip(store, acme, monkeypatch):
    cids = [await conversation(acme) for _ in range(20)]
    await store.synchronizer().run_once()
    for _ in range(10):
        await asyncio.gather(*(acme.messages.append(cid, text()) for cid in cids))
        await asyncio.gather(*(acme.conversations.update_conversation_status(cid, "waiting") for cid in cids))
    trips = []
    wire = store.redis.cache._wire
    execute = wire.execute

    async def counting(commands, *rest):
        trips.append(len(commands))
        return await execute(commands, *rest)

    monkeypatch.setattr(wire, "execute", counting)
    status = await store.synchronizer().run_once()
    assert status.events == 400
    assert 40 <= status.invalidations <= 160
    assert len(trips) <= 6, "one more where the script was not known yet"


async def test_it_goes_on_from_where_it_was(store, acme, raw):
    cid = await conversation(acme)
    first = await store.synchronizer().run_once()
    assert first.losses == 1, "of what was before nobody knows"
    await cached(store, acme, cid)
    await raw_update(raw, acme, cid, {"$set": {"title": "x"}})
    again = await store.synchronizer().run_once()
    assert (again.events, again.invalidations, again.forgotten, again.losses) == (1, 1, 1, 0)
    assert (await store.synchronizer().run_once()).events == 0
    assert (await store.synchronizer("another cache").run_once()).losses == 1


async def test_it_is_kept_only_after_the_effect(convostore_settings, acme, store, raw):
    """With the Redis away nothing is kept; it is done when it is back."""
    cid = await conversation(acme)
    with RedisServer() as server:
        settings = RedisSettings(redis_url=SecretStr(server.url), cache_deadline=0.3, redis_deadline=0.3)
        async with ConvoStore.open(convostore_settings, settings) as other:
            await other.synchronizer().run_once()
            await cached(other, acme, cid)
            before = await Checkpoints(store.mongodb).read("cache")
            async with running(other) as synchronizer:
                server.pause()
                await raw_update(raw, acme, cid, {"$set": {"title": "x"}})
                await asyncio.sleep(0.5)
                assert (await Checkpoints(store.mongodb).read("cache"))["events"] == before["events"] == 0
                server.resume()
                await eventually(lambda: synchronizer.statuses[-1].events == 1, what="it is done")
            assert await held(other, acme, cid) is None
            assert (await Checkpoints(store.mongodb).read("cache"))["cursor"] > before["cursor"]


async def test_it_is_kept_while_nothing_happens(store, acme, monkeypatch):
    monkeypatch.setattr(synchronizing, "IDLE_SECONDS", 0.1)
    async with running(store):
        before = (await Checkpoints(store.mongodb).read("cache"))["cursor"]
        await store.mongodb.database["elsewhere"].insert_one({})

        async def moved():
            return (await Checkpoints(store.mongodb).read("cache"))["cursor"] > before

        await eventually(moved)


async def test_several_at_once_are_harmless_and_the_furthest_is_kept(store, acme, convostore_settings, raw):
    cid = await conversation(acme)
    async with running(store), running(store), running(store):
        for n in range(20):
            await cached(store, acme, cid)
            await raw_update(raw, acme, cid, {"$set": {"title": f"t {n}"}})
        await eventually_forgotten(store, acme, cid)
        assert (await cached(store, acme, cid)).title == "t 19"
    checkpoints = Checkpoints(store.mongodb)
    furthest = (await checkpoints.read("cache"))["cursor"]
    await checkpoints.save("cache", furthest[:10] + "0" * len(furthest[10:]), {})
    assert (await checkpoints.read("cache"))["cursor"] == furthest
    await checkpoints.save("cache", "82", {}, anew=True)
    assert (await checkpoints.read("cache"))["cursor"] == "82"


async def test_a_checkpoint_that_leads_nowhere_is_given_up(store, acme, raw):
    cid = await conversation(acme)
    await store.synchronizer().run_once()
    for cursor in ("82", "nonsense", None, 7, "82" + "FFFFFFF0" + "00000001" + "2B0229296E04"):
        await raw.sync.update_one({}, {"$set": {"cursor": cursor}})
        await cached(store, acme, cid)
        assert (await store.synchronizer().run_once()).losses == 1, cursor
        assert await held(store, acme, cid) is None, cursor
    assert (await store.synchronizer().run_once()).losses == 0


async def test_it_ends_with_the_store(convostore_settings, convostore_redis_settings, store):
    async with ConvoStore.open(convostore_settings, convostore_redis_settings) as other:
        task = asyncio.create_task(other.synchronizer().run())
        await eventually(lambda: other.feed._shared)
    await asyncio.wait_for(task, 5)


async def test_everything_is_forgotten_while_loads_are_under_way(store, acme):
    """A load that began before is not put in behind its back."""
    began, go_on = asyncio.Event(), asyncio.Event()

    async def load():
        began.set()
        await go_on.wait()
        return ConversationDocument.start(user_id="old").stamped(acme.tenant_id)

    reading = asyncio.create_task(store.cache.get_or_load(acme.tenant_id, CONVERSATION, "c", load))
    await began.wait()
    assert await CacheForgetting(store.cache, EpochCounter(store.mongodb)).forget_everything() >= 1
    go_on.set()
    assert (await reading).user_id == "old"
    assert await held(store, acme, "c") is None


async def test_more_than_fits_one_round_trip_is_forgotten_as_well(store, acme):
    forgetting = CacheForgetting(store.cache, EpochCounter(store.mongodb))
    for n in range(450):
        await newest(store, acme, f"c-{n}", 5)
    places = [Place(acme.tenant_id, NEWEST.name, f"c-{n}") for n in range(450)]
    assert await forgetting.invalidate({place: 4 + n % 3 for n, place in enumerate(places)}) == 150
    assert await forgetting.forget(places) == 450
    assert await forgetting.forget(places) == 0


async def test_without_a_redis_there_is_nothing_to_synchronize(convostore_settings, store):
    async with ConvoStore.open(convostore_settings) as other:
        with pytest.raises(ValidationError, match="redis_url"):
            other.synchronizer()
    with pytest.raises(ValidationError, match="name"):
        store.synchronizer("")


async def test_the_doctor_knows_how_far_it_has_come(store, acme, raw):
    async def findings():
        found = [finding async for finding in SyncDoctor(store.mongodb).examine()]
        assert (found[-1].check, found[-1].text) == ("outbox", "0 waiting")
        return found[:-1]

    (never,) = await findings()
    assert (never.check, never.level) == ("sync", Level.OK)
    await store.synchronizer().run_once()
    (fine,) = await findings()
    assert (fine.check, fine.level) == ("sync cache", Level.OK)
    assert fine.text.startswith("lag ")
    await raw.sync.update_one({}, [{"$set": {"saved_at": {"$subtract": ["$$NOW", 90_000]}}}])
    (silent,) = await findings()
    assert (silent.level, silent.text[:21]) == (Level.WARNING, "not heard of for 90 s")
    cursor = (await raw.sync.find_one())["cursor"]
    behind = f"82{int(cursor[2:10], 16) - 100:08X}{cursor[10:]}"
    await raw.sync.update_one({}, [{"$set": {"saved_at": "$$NOW", "cursor": behind}}])
    (late,) = await findings()
    assert (late.level, late.text[:12]) == (Level.WARNING, "runs behind:")
    await raw.sync.update_one({}, {"$set": {"cursor": None}})
    (lost,) = await findings()
    assert (lost.level, lost.text[:13]) == (Level.WARNING, "leads nowhere")


def test_the_command_synchronizes_once(convostore_settings, convostore_redis_settings):
    where = ["--mongodb-uri", convostore_settings.mongodb_uri.get_secret_value()]
    where += ["--database", convostore_settings.database_name]
    where += ["--redis-url", convostore_redis_settings.redis_url.get_secret_value()]
    first = json.loads(CliRunner().invoke(app, ["sync", "--once", "--json", *where]).stdout)
    assert (first["events"], first["losses"]) == (0, 1)
    again = CliRunner().invoke(app, ["sync", "--once", *where])
    assert (again.exit_code, again.stdout[:30]) == (0, "0 events, 0 invalidated, 0 val")
    assert "sync cache" in CliRunner().invoke(app, ["doctor", "--json", *where]).stdout
    away = CliRunner().invoke(app, ["sync", "--once", *where[:4]], env={"CONVOSTORE_REDIS_URL": None})
    assert (away.exit_code, away.stderr[:16]) == (1, "error: redis_url")
    asyncio.run(_drop(convostore_settings))


async def test_the_command_goes_on_until_it_is_interrupted(store, acme, convostore_settings, convostore_redis_settings):
    where = ["--mongodb-uri", convostore_settings.mongodb_uri.get_secret_value()]
    where += ["--database", convostore_settings.database_name]
    where += ["--redis-url", convostore_redis_settings.redis_url.get_secret_value()]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, "sync", *where, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert await process.stderr.readline() == b"Following all changes until Ctrl-C.\n"

    async def kept():
        return (await Checkpoints(store.mongodb).read("cache") or {}).get("events")

    await eventually(lambda: kept_is(kept, 0))
    await conversation(acme)
    await eventually(lambda: kept_is(kept, 1))
    process.send_signal(signal.SIGTERM)
    out, err = await asyncio.wait_for(process.communicate(), 10)
    assert (process.returncode, err) == (0, b"")
    assert out.startswith(b"1 events, 1 invalidated, 0 values forgotten, up to ")


async def kept_is(kept, expected):
    return await kept() == expected


async def _drop(settings):
    async with ConvoStore.open(settings) as store:
        await store.mongodb.administration.drop_database()
