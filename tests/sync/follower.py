"""A follower that is killed: forks that follow, each for a random short time, from where the last one left off.

Each writes what it was told to a file, a line an event, with the cursor at its end: effect and place in one piece.

Usage: python follower.py URI DATABASE FILE DEATHS SEED
"""

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path

from convostore import ConvoStore

LONGEST = 2000  # bytes of a line


async def _follow(uri, database, file, number):
    path = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    cursor = _last_cursor(file)
    async with (
        ConvoStore.open(mongodb_uri=uri, database_name=database) as store,
        store.changes("acme", cursor) as changes,
    ):
        if cursor is None:
            os.write(path, f"{number} begin 0 {changes.cursor}\n".encode())
        async for event in changes:
            if event.conversation_id == "end":
                return
            where = getattr(event, "sequence", 0)
            line = f"{number} {type(event).__name__}/{event.conversation_id} {where} {event.cursor}\n"
            os.write(path, line.encode())


def _last_cursor(file):
    if not Path(file).exists():
        return None
    with Path(file).open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - LONGEST))
        lines = stream.read().split(b"\n")
    return lines[-2].split()[-1].decode() if len(lines) > 1 else None


def _wait(file, rng, *, first):
    """Let it live until it has been told something, and a little longer; now and then not even that."""
    told, ends = _last_cursor(file), time.monotonic() + (0.3 if rng.random() < 0.2 and not first else 20)
    while _last_cursor(file) == told and time.monotonic() < ends:
        time.sleep(0.005)
    time.sleep(rng.random() * 0.1)


def main():
    uri, database, file, deaths, seed = sys.argv[1:]
    rng = random.Random(int(seed))
    for number in range(int(deaths) + 1):
        child = os.fork()
        if not child:
            asyncio.run(_follow(uri, database, file, number))
            os._exit(0)
        if number == int(deaths):
            print("the last one", flush=True)
        else:
            _wait(file, rng, first=not number)
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
