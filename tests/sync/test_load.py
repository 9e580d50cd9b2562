"""Much happens: it is told completely, and the lag is printed."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

from sync_support import eventually
from writer import CONVERSATIONS, TOGETHER

WRITER = Path(__file__).with_name("writer.py")
RATE, SECONDS = 3000, 2  # times the scale


def _at(values, part):
    return sorted(values)[int(part * (len(values) - 1))]


async def test_three_thousand_changes_a_second_are_told_and_forgotten(store, convostore_settings, scale, capsys):
    total, statuses = RATE * SECONDS * scale, []
    synchronizing = asyncio.create_task(store.synchronizer(progress=statuses.append).run())
    uri, name = convostore_settings.mongodb_uri.get_secret_value(), convostore_settings.database_name
    arrived, seen = [0.0] * total, [0] * CONVERSATIONS
    async with store.changes("acme") as changes:
        await eventually(lambda: statuses)
        arguments = (uri, name, str(RATE), str(SECONDS * scale))
        process = await asyncio.create_subprocess_exec(sys.executable, str(WRITER), *arguments, stdout=subprocess.PIPE)
        cpu = 0.0
        count = 0
        while count < total:
            events = await changes.batch(20)
            assert events
            cpu = cpu or time.process_time()
            count += len(events)
            for event in events:
                conversation = int(event.conversation_id[2:])
                assert event.sequence == seen[conversation] + 1
                seen[conversation] = event.sequence
                arrived[(event.sequence - 1) * CONVERSATIONS + conversation] = time.time()
        cpu, finished = time.process_time() - cpu, time.time()
        written = json.loads((await process.communicate())[0])
    await eventually(lambda: statuses[-1].events == total, 30, "the cache has forgotten all")
    synchronized = time.time() - finished
    synchronizing.cancel()
    await asyncio.wait([synchronizing])
    lags = [1000 * (moment - written["sent"][n // TOGETHER]) for n, moment in enumerate(arrived)]
    with capsys.disabled():
        rate = total / written["seconds"]
        print(
            f"\n{total} changes at {rate:.0f}/s: lag p50 {_at(lags, 0.5):.0f} ms, p99 {_at(lags, 0.99):.0f} ms, "
            f"{cpu / total * 1e6:.0f} µs of CPU each, synchronizer {synchronized:.1f} s behind, "
            f"{statuses[-1].invalidations} invalidations"
        )
    assert not any(follower.is_closed for follower in store.feed._behind)
