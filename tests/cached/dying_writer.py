"""Writers that die at a certain point: forks, one for each line of the input, ``<kind> <conversation> <title>``.

The kinds: ``update`` and ``unit`` die when the write is known and has not been told, ``undone`` before the commit. Each
prints the moment of its death, in nanoseconds of CLOCK_MONOTONIC, and the session whose transaction it leaves open.

Usage: python dying_writer.py MONGODB DATABASE REDIS TENANT
"""

import asyncio
import os
import signal
import sys
import time

from pydantic import SecretStr

from convostore import ConvoStore, MongoSettings, RedisSettings
from convostore.gateways.mongo_transaction import current_transaction
from convostore.repositories.conversation_cache import ConversationCache


class DyingCache(ConversationCache):
    """Dies instead of telling."""

    async def _tell(self, _):
        _die()


def _die(session="-"):
    os.write(1, f"{time.monotonic_ns()} {session}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


async def _write(line, mongodb, database, redis, tenant):
    kind, cid, title = line.split()
    settings = MongoSettings(mongodb_uri=SecretStr(mongodb), database_name=database)
    async with ConvoStore.open(settings, RedisSettings(redis_url=SecretStr(redis), cache_deadline=5)) as store:
        store.mongodb.cache_through(DyingCache(store.redis.cache, store.mongodb))
        conversations = store.tenant(tenant).conversations
        read = await conversations.get_by_id(cid, fresh=True)
        if kind == "update":
            await conversations.update(read.evolve(title=title))
        async with store.transaction():
            await conversations.update(read.evolve(title=title))
            if kind == "undone":
                _die(current_transaction(store.mongodb)._session.session_id["id"].hex())


def main():
    for line in sys.stdin:
        child = os.fork()
        if not child:
            asyncio.run(_write(line, *sys.argv[1:]))
            os._exit(1)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
