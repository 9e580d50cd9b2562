"""Import, erasure and synchronizer are killed at random points; the next run completes the work, exactly.

Three deaths each, twenty with ``CONVOSTORE_TEST_SCALE=10``; ``FAULT_SEED`` repeats the moments.
"""

import asyncio
import json
import os
import random
import uuid
from datetime import UTC, datetime
from functools import partial

import pytest

from convostore import ConversationDocument, ErasureCounts
from convostore.operations.importing import Importer
from convostore.operations.line_source import LineSource
from convostore.repositories.entity_spaces import CONVERSATION
from convostore.sync.outbox import Effect, Outbox

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

DEATHS = 20 if float(os.environ.get("CONVOSTORE_TEST_SCALE", "1")) >= 10 else 3
CONVERSATIONS = 1000
ERASED = 100
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
def rng(capsys):
    seed = int(os.environ.get("FAULT_SEED", random.randrange(10**6)))
    with capsys.disabled():
        print(f"\n{DEATHS} deaths with FAULT_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def start(program, convostore_servers, convostore_redis_settings):
    """Start a command on both servers as a process of its own."""
    environment = {
        **program.environment,
        "CONVOSTORE_REDIS_URL": convostore_servers.redis_url,
        "CONVOSTORE_SESSION_KEY": convostore_redis_settings.session_key.get_secret_value(),
    }

    return lambda *arguments: program.start(*arguments, env=environment)


async def killed(process, done, enough):
    """Kill a process as soon as so much is done, if it does not end before: the clock knows no middle."""
    while process.poll() is None:
        if await done() >= enough:
            break
        await asyncio.sleep(0.001)
    process.kill()
    await asyncio.to_thread(process.communicate)


async def below(store, tenant, name, /, **condition):
    """Count what stands below a tenant's name in a collection."""
    bounds = {"_id": {"$gte": f"{tenant}:", "$lt": f"{tenant};"}}
    return await store.mongodb.database[name].count_documents({**bounds, **condition})


async def test_an_import(store, start, lines, rng, tmp_path, capsys):
    file = lines(tmp_path / "in.jsonl", CONVERSATIONS)
    messages, halves = file.read_text().count('"role"'), 0
    for death in range(DEATHS):
        tenant_id = f"t-{death}"

        claimed = partial(below, store, tenant_id, "conversations")
        await killed(start("import", file, "-t", tenant_id), claimed, rng.randint(1, CONVERSATIONS // 2))
        done = await below(store, tenant_id, "conversations", tenant_id=tenant_id)
        halves += done < CONVERSATIONS
        rest = await import_file(store, tenant_id, file)
        assert (rest.imported + rest.unchanged, rest.failed) == (CONVERSATIONS, 0)
        assert await below(store, tenant_id, "conversations", tenant_id=tenant_id) == CONVERSATIONS
        assert await below(store, tenant_id, "conversations") == CONVERSATIONS
        assert await below(store, tenant_id, "messages") == messages
    with capsys.disabled():
        print(f"{halves} of {DEATHS} imports were killed in the middle")
    assert halves > DEATHS / 3


async def import_file(store, tenant_id, file):
    with LineSource(file) as source:
        return await Importer(store.tenant(tenant_id).database).run(source)


async def filled(store, tenant_id, file):
    """Leave a tenant with two users who have equally much; return a session of each."""
    told = [
        {**json.loads(line), "user_id": ("u", "other")[number % 2]}
        for number, line in enumerate(file.read_text().splitlines())
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in told))
    await import_file(store, tenant_id, file)
    for user in ("u", "other"):
        await store.rate_limits.check_rate_limit(tenant_id, user, 10, 600)
    sessions = {user: await store.sessions.start_session(tenant_id, user) for user in ("u", "other")}
    return sessions, {user: sum(len(line["messages"]) for line in told if line["user_id"] == user) for user in sessions}


async def test_an_erasure(store, start, lines, rng, tmp_path, capsys):
    halves = 0
    for death in range(DEATHS):
        tenant_id = f"t-{uuid.uuid4().hex[:12]}"
        sessions, messages = await filled(store, tenant_id, lines(tmp_path / tenant_id, 2 * ERASED, tenant_id))
        whom = ("--user", "u") if death % 2 else ()
        gone = ("u",) if whom else ("u", "other")
        begun = {"deleted_at": {"$exists": True}}

        marked = partial(below, store, tenant_id, "conversations", **begun)
        process = start("erase", "--tenant", tenant_id, *whom, "--yes")
        await killed(process, marked, rng.randint(1, ERASED * len(gone) // 2))
        halves += await below(store, tenant_id, "messages", content={"$exists": True}) > _kept(messages, gone)
        assert (await store.erasure(tenant_id, *whom[1:]).run()).after == ErasureCounts()
        kept = _kept(messages, gone)
        assert await below(store, tenant_id, "messages", content={"$exists": True}) == kept
        assert await below(store, tenant_id, "conversations", tenant_id=tenant_id) == (ERASED if kept else 0)
        assert await below(store, tenant_id, "conversations", **begun) == ERASED * len(gone)
        assert await below(store, tenant_id, "messages", kind="seal") == ERASED * len(gone)
        assert await below(store, tenant_id, "outbox") == 0
        for user, session in sessions.items():
            assert (await store.sessions.get_session(tenant_id, session.session_id) is None) == (user in gone)
    with capsys.disabled():
        print(f"{halves} of {DEATHS} erasures were killed in the middle")
    assert halves > DEATHS / 3


def _kept(messages, gone):
    return sum(count for user, count in messages.items() if user not in gone)


class Others:
    """Programs that change conversations past the library, and put something into the outbox."""

    def __init__(self, store, rng):
        self.store, self.rng, self.cids, self.sessions = store, rng, [], []
        self.tenant = store.tenant(f"t-{uuid.uuid4().hex[:12]}")
        self.collection = store.mongodb.database["conversations"]

    async def begin(self):
        for _ in range(100):
            created = await self.tenant.conversations.create(ConversationDocument.start("u"))
            self.cids.append(created.conversation_id)

    async def cache_all(self):
        for cid in self.cids:
            load = partial(self.tenant.conversations.get_by_id, cid)
            await self.store.cache.get_or_load(self.tenant.tenant_id, CONVERSATION, cid, load)

    async def change(self, cids):
        identities = [self.tenant.database.identity(cid) for cid in cids]
        await self.collection.update_many({"_id": {"$in": identities}}, {"$inc": {"version": 1}})

    async def write_on(self):
        while True:
            await self.change(self.rng.sample(self.cids, 10))
            user = f"u-{len(self.sessions)}"
            self.sessions.append(await self.store.sessions.start_session(self.tenant.tenant_id, user))
            await Outbox(self.store.mongodb).add(self.tenant.tenant_id, [Effect.REVOKE_SESSIONS], user_id=user)
            await self.cache_all()
            await asyncio.sleep(0.02)

    async def lives(self, session):
        return await self.store.sessions.get_session(self.tenant.tenant_id, session.session_id) is not None

    async def ended_since(self, number):
        """How many of the sessions that began after so many are ended, in their order."""
        ended = 0
        while number + ended < len(self.sessions) and not await self.lives(self.sessions[number + ended]):
            ended += 1
        return ended

    async def expect_exact(self):
        """Nothing that the cache holds is old, and everything that was told has had its effect."""
        for stored in await self.collection.find({"user_id": "u"}).to_list():
            held = await self.store.cache.get(self.tenant.tenant_id, CONVERSATION, stored["conversation_id"])
            assert held is None or held.version == stored["version"]
        assert await below(self.store, self.tenant.tenant_id, "outbox") == 0
        assert not any([await self.lives(session) for session in self.sessions])


async def test_a_synchronizer(store, start, rng, capsys):
    others, killed_ones = Others(store, rng), 0
    name = f"sync-{others.tenant.tenant_id}"
    await others.begin()
    await store.synchronizer(name).run_once()
    for _ in range(DEATHS):
        spared = await store.sessions.start_session(others.tenant.tenant_id, "spared")
        await others.cache_all()
        process, number = start("sync", "--name", name), len(others.sessions)
        writing = asyncio.create_task(others.write_on())
        await killed(process, partial(others.ended_since, number), rng.randint(1, 10))
        writing.cancel()
        await asyncio.wait([writing])
        killed_ones += process.returncode == -9
        await others.change(others.cids[:50])
        # What the dead one had taken comes back in a minute; here at once.
        await store.mongodb.database["outbox"].update_many({}, {"$set": {"due_at": _LONG_AGO}})
        await store.synchronizer(name).run_once()
        await others.expect_exact()
        assert await others.lives(spared)
    with capsys.disabled():
        print(f"{killed_ones} of {DEATHS} synchronizers were killed; {len(others.sessions)} effects, none left")
    assert killed_ones == DEATHS
