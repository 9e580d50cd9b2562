"""A process that dies between write and telling is repaired by the synchronizer; before its commit it needs no repair.

With ``-s`` it is printed how long the repair takes.
"""

import asyncio
import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median

import pytest
from bson import Binary
from cached_support import TENANT, conversation, eventually, loads, usable, warm

SCALE = int(os.environ.get("CONVOSTORE_TEST_SCALE", "1"))
DEATHS = 4 if SCALE == 1 else 4 * SCALE  # of each kind
DYING = Path(__file__).with_name("dying_writer.py")


@pytest.fixture
async def dying(store, convostore_settings, convostore_redis_settings):
    """Lets a writer die, and returns what it printed."""
    where = [convostore_settings.mongodb_uri.get_secret_value(), convostore_settings.database_name]
    where += [convostore_redis_settings.redis_url.get_secret_value(), TENANT]
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(DYING), *where, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    async def die(kind, cid, title="new"):
        process.stdin.write(f"{kind} {cid} {title}\n".encode())
        moment, session = (await asyncio.wait_for(process.stdout.readline(), 60)).split()
        return int(moment), session.decode()

    yield die
    process.stdin.close()
    await process.wait()


@asynccontextmanager
async def synchronizing(store):
    statuses = []
    running = asyncio.create_task(store.synchronizer(progress=statuses.append).run())
    await eventually(lambda: statuses)
    yield
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def title(store, cid):
    """Return the title that the cache tells."""
    await usable(store)
    return (await store.tenant(TENANT).conversations.get_by_id(cid)).title


async def read_at(store, cid, expected):
    """Return the moment when a title was read, in nanoseconds."""
    end = time.monotonic() + 30
    while await title(store, cid) != expected:
        assert time.monotonic() < end, "it is not repaired"
        await asyncio.sleep(0.001)
    return time.monotonic_ns()


@pytest.mark.timeout(120 * SCALE)
@pytest.mark.parametrize("kind", ["update", "unit"])
async def test_what_was_written_and_not_told_is_repaired(one, other, dying, kind):
    cid = await conversation(one)
    await usable(other)
    took = []
    async with synchronizing(one):
        for number in range(DEATHS):
            await warm(other, cid)
            reading = read_at(other, cid, f"t-{number}")
            read, (died, _) = await asyncio.gather(reading, dying(kind, cid, f"t-{number}"))
            took.append((read - died) / 1e6)
    print(f"\n{kind}: {len(took)} deaths, repaired after {median(took):.0f} ms, at most {max(took):.0f} ms")


async def test_without_a_synchronizer_it_would_stay_as_it_was(one, other, dying):
    cid = await conversation(one)
    synchronizer = one.synchronizer()
    await synchronizer.run_once()
    await warm(other, cid)
    await dying("unit", cid)
    await asyncio.sleep(0.2)
    assert await title(other, cid) is None
    await synchronizer.run_once()
    assert await title(other, cid) == "new"


async def test_a_unit_of_work_whose_process_dies_before_the_commit_leaves_the_cache_as_it_was(one, other, dying):
    cid = await conversation(one)
    async with synchronizing(one):
        await warm(other, cid)
        before = loads(other)
        _, session = await dying("undone", cid)
        # Else the server would keep the transaction, and the database, for ten seconds.
        await one.mongodb.database.client.admin.command("killSessions", [{"id": Binary(bytes.fromhex(session), 4)}])
        assert await title(other, cid) is None
        assert loads(other) == before, "it is still there"
    assert (await other.tenant(TENANT).conversations.get_by_id(cid, fresh=True)).title is None
