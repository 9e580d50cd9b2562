"""A follower that is killed and started again at random misses nothing, and is told nothing out of order."""

import asyncio
import os
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from sync_support import conversation, eventually, text
from writer import CONVERSATIONS as OTHERS
from writer import TOGETHER

FOLLOWER = Path(__file__).with_name("follower.py")
WRITER = Path(__file__).with_name("writer.py")
DEATHS = 8  # times the scale; with a scale of 7 there are 56, and 100,000 events
RATE = 2000  # of another program that writes meanwhile
CONVERSATIONS = 12


async def _write(acme, cid, done):
    """Append, edit and rename without end; return how many messages there are, and the last version."""
    count, version = 0, 1
    while not done.is_set():
        for size in (1, 3):
            await acme.messages.append_many(cid, [text()] * size)
            count += size
        found = await acme.conversations.get_by_id(cid)
        version = (await acme.conversations.update(found.evolve(title=f"t {count}"))).version
    return cid, count, version


def _checked(lines):
    """Return what was told of each conversation, having made sure of the order."""
    told = defaultdict(list)
    runs = defaultdict(int)
    for run, what, where, cursor in (line.split() for line in lines):
        assert cursor > told["cursors"][-1] if told["cursors"] else True, "told again or out of order"
        told["cursors"].append(cursor)
        runs[run] += 1
        told[what].append(int(where))
    return told, runs


async def test_a_follower_killed_at_random_misses_nothing(store, acme, convostore_settings, tmp_path, scale, capsys):
    seed = int(os.environ.get("FAULT_SEED", random.randrange(10**6)))
    deaths, file, done = DEATHS * scale, tmp_path / "told", asyncio.Event()
    uri, name = convostore_settings.mongodb_uri.get_secret_value(), convostore_settings.database_name
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(FOLLOWER), uri, name, str(file), str(deaths), str(seed), stdout=subprocess.PIPE
    )
    await eventually(lambda: file.exists() and file.stat().st_size, 30, "the first one follows")
    seconds = deaths if scale > 1 else 1
    other = await asyncio.create_subprocess_exec(
        sys.executable, str(WRITER), uri, name, str(RATE), str(seconds), stdout=subprocess.DEVNULL
    )
    cids = [await conversation(acme, f"k-{n}") for n in range(CONVERSATIONS)]
    writing = asyncio.gather(*(_write(acme, cid, done) for cid in cids))
    assert await process.stdout.readline() == b"the last one\n"
    done.set()
    expected = await writing
    assert await other.wait() == 0
    await conversation(acme, "end")
    assert await process.wait() == 0
    told, runs = _checked(file.read_text().splitlines())
    for cid, count, version in expected:
        assert len(told[f"ConversationCreated/{cid}"]) == 1
        assert told[f"MessageAppended/{cid}"] == [n for n in range(1, count + 1) if n % 4 in (1, 0)]
        assert len(told[f"ConversationChanged/{cid}"]) == version - 1
    written = RATE * seconds // TOGETHER * TOGETHER
    for number in range(OTHERS):
        expected = list(range(1, len(range(number, written, OTHERS)) + 1))
        assert told[f"MessageAppended/c-{number}"] == expected
    with capsys.disabled():
        events = sum(runs.values())
        print(f"\n{deaths} deaths with FAULT_SEED={seed}: {events} events told in {len(runs)} runs")
    assert len(runs) > deaths / 2, "most of them were told something before they died"
