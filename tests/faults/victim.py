"""Clients that are killed: forks that write without end, each for a random short time.

Usage: python victim.py URI DATABASE CONVERSATION DEATHS SEED
"""

import asyncio
import os
import random
import signal
import sys
import time

from convostore import ConversationDocument, ConvoStore, MessageDocument

SIZE = 7


async def _write(uri, database, cid, number, ready):
    async with ConvoStore.open(mongodb_uri=uri, database_name=database) as store:
        acme = store.tenant("acme")
        os.write(ready, b".")
        for count in range(10**6):
            name = f"{number}-{count}"
            await acme.messages.append(cid, MessageDocument.user(f"single {name}"))
            _say(f"acknowledged single {name}")
            await acme.messages.append_many(cid, [MessageDocument.user(f"batch {name}")] * SIZE)
            _say(f"acknowledged batch {name}")
            other = (await acme.conversations.create(ConversationDocument.start(user_id="u"))).conversation_id
            await acme.messages.append(other, MessageDocument.user("gone soon"))
            await acme.conversations.delete(other)


def _say(line):
    os.write(1, f"{line}\n".encode())  # in one piece, and before the next write begins


def main():
    uri, database, cid, deaths, seed = sys.argv[1:]
    rng = random.Random(int(seed))
    for number in range(int(deaths)):
        readable, ready = os.pipe()
        child = os.fork()
        if not child:
            asyncio.run(_write(uri, database, cid, number, ready))
            os._exit(1)
        os.read(readable, 1)  # however long a busy machine takes to connect
        time.sleep(rng.random() * 0.12)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(readable)
        os.close(ready)
        _say("died")


if __name__ == "__main__":
    main()
