"""P17, P2: a client that dies in the middle of anything blocks nobody, and half a batch is never shown."""

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fault_support import visible
from public_writes import conversation, text

from convostore import ConversationDocument, MessageDocument, Pagination
from convostore.repositories.appending import batch_digest

VICTIM = Path(__file__).with_name("victim.py")
DEATHS = 30
SIZE = 7
ONE_PAGE = Pagination(page_size=100)


async def _watch(acme, cid, done):
    """Read all the time, and never see half a batch."""
    looks = 0
    while not done.is_set():
        page = await acme.messages.history(cid, 1000)
        contents = [message.content for message in page.items if message.content.startswith("batch")]
        for name in set(contents):
            assert contents.count(name) == SIZE, f"half a batch is shown: {contents}"
        looks += 1
        await asyncio.sleep(0)
    return looks


async def test_clients_killed_at_random_lose_nothing_and_block_nobody(acme, truth, convostore_settings, capsys):
    seed = int(os.environ.get("FAULT_SEED", random.randrange(10**6)))
    with capsys.disabled():
        print(f"\ndeaths with FAULT_SEED={seed}")
    cid, done = await conversation(acme), asyncio.Event()
    watching = asyncio.create_task(_watch(acme, cid, done))
    uri, name = convostore_settings.mongodb_uri.get_secret_value(), convostore_settings.database_name
    victims = await asyncio.create_subprocess_exec(
        sys.executable, str(VICTIM), uri, name, cid, str(DEATHS), str(seed), stdout=subprocess.PIPE
    )
    acknowledged, slowest, deaths = set(), 0.0, 0
    async for line in victims.stdout:
        word, _, rest = line.decode().strip().partition(" ")
        if word == "acknowledged":
            acknowledged.add(rest)
        else:
            started = time.monotonic()
            await acme.messages.append(cid, text("next"))
            slowest, deaths = max(slowest, time.monotonic() - started), deaths + 1
    assert await victims.wait() == 0
    done.set()
    looks = await watching
    contents = {slot.get("content") for slot in visible(await truth.log(cid))}
    assert deaths == DEATHS
    assert acknowledged
    assert acknowledged <= contents, f"lost: {acknowledged - contents}"
    assert slowest < 1
    with capsys.disabled():
        print(f"{deaths} deaths, {len(acknowledged)} acknowledged, {looks} looks, slowest next append {slowest:.3f} s")


async def _raw_batch(truth, cid, first, size, stored, key=None, batch_id=None):
    """Store the first slots of a batch as a client that died has left them."""
    batch_id = batch_id or f"cut-{first}-{size}"
    slots = []
    for index in range(stored):
        message = MessageDocument.user(f"cut {index}")
        slots.append({
            "_id": f"acme:{cid}:{first + index:010d}",
            **message.to_dict(),
            "tenant_id": "acme",
            "conversation_id": cid,
            "sequence": first + index,
            "batch": {"id": batch_id, "size": size, "index": index},
        })  # fmt: skip
    if key is not None:
        batch = [MessageDocument.user(f"cut {index}") for index in range(size)]
        slots[0] |= {"idempotency_key": key, "idempotency_digest": batch_digest(batch)}
    await truth.database.messages.insert_many(slots)


async def _shown(acme, cid):
    contents = [message.content for message in (await acme.messages.history(cid, 1000)).items]
    assert contents == [message.content async for message in acme.messages.iterate(cid)]
    assert contents == [m.content for m in (await acme.messages.list({"conversation_id": cid}, ONE_PAGE)).items][::-1]
    assert contents == [message.content for message in await acme.messages.window(cid, max_messages=500)]
    assert [m.content for m in (await acme.messages.search("cut", cid)).items] == []
    return contents


@pytest.mark.parametrize(("size", "stored"), [(2, 1), (5, 1), (5, 4), (50, 30)])
async def test_a_batch_cut_short_is_never_shown_and_blocks_nobody(acme, truth, size, stored):
    cid = await conversation(acme)
    await acme.messages.append(cid, text("before"))
    await _raw_batch(truth, cid, 2, size, stored)
    assert await _shown(acme, cid) == ["before"]
    assert await acme.messages.get(cid, 2) is None
    started = time.monotonic()
    behind = await acme.messages.append(cid, text("behind"))
    assert time.monotonic() - started < 1
    assert behind.sequence == 2 + stored
    assert await _shown(acme, cid) == ["before", "behind"]
    await acme.messages.append_many(cid, [text(f"whole {n}") for n in range(size)])
    assert await _shown(acme, cid) == ["before", "behind", *(f"whole {n}" for n in range(size))]
    await truth.log(cid)


async def test_several_batches_cut_short_one_behind_the_other_are_not_shown(acme, truth):
    """Where the end of the first would be stands a member of the second, which is not complete either."""
    cid = await conversation(acme)
    await _raw_batch(truth, cid, 1, 5, 2, batch_id="a")
    await _raw_batch(truth, cid, 3, 9, 4, batch_id="b")
    await _raw_batch(truth, cid, 7, 3, 2, batch_id="c")
    assert await _shown(acme, cid) == []
    await acme.messages.append(cid, text("behind"))
    assert await _shown(acme, cid) == ["behind"]


@pytest.mark.parametrize("moved_on", [False, True])
async def test_the_key_of_a_batch_cut_short_can_be_used_again(acme, truth, moved_on):
    cid = await conversation(acme)
    batch = [text(f"cut {n}") for n in range(4)]
    await _raw_batch(truth, cid, 1, 4, 2, key="key")
    if moved_on:
        await acme.messages.append(cid, text("behind"))
    started = time.monotonic()
    again = await acme.messages.append_many(cid, batch, idempotency_key="key")
    assert time.monotonic() - started < 1
    assert not again[0].replayed
    assert await truth.contents(cid) == ["behind"] * moved_on + [message.content for message in batch]
    replayed = await acme.messages.append_many(cid, batch, idempotency_key="key")
    assert [m.sequence for m in replayed] == [m.sequence for m in again]
    assert replayed[0].replayed


async def test_a_conversation_with_a_batch_cut_short_can_be_deleted(acme, truth):
    cid = (await acme.conversations.create(ConversationDocument.start(user_id="u"))).conversation_id
    await _raw_batch(truth, cid, 1, 5, 3)
    started = time.monotonic()
    assert await acme.conversations.delete(cid)
    assert time.monotonic() - started < 1
    assert [slot.get("kind") for slot in await truth.log(cid)] == ["blank"] * 3 + ["seal"]
