"""What can be broken in the workers of a chaos run, to see that the checkers notice."""

import asyncio
import random
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from convostore import ConvoStore
from convostore.database.settings import MongoSettings
from convostore.gateways import redis_gateway
from convostore.gateways.operation import Operation
from convostore.repositories.conversation_cache import SPACE, ConversationCache
from convostore.repositories.rate_limit_server import LimitScripts
from convostore.repositories.told_cache import keys_of

READ = Operation("get", "cache", "Cell", repeatable=True)
WRITE = Operation("set", "cache", "Cell", writes=True)
W1, NO_UNIQUE_KEY, DRIVER_RETRIES, PLAIN_DEL = "write concern 1", "no unique key", "driver retries", "plain DEL"


class PlainDelCache(ConversationCache):
    """What is usually done: read, else load and store; delete after a write."""

    async def get(self, tenant_id, conversation_id, load):
        (key,) = keys_of(f"{tenant_id}:{conversation_id}", [0], SPACE)
        found = await self._cells.redis.command(READ, "GET", key)
        if found is not None:
            return SPACE.codec.decode(found)
        value = await load()
        await asyncio.sleep(random.uniform(0, 0.02))  # as where a load takes its time
        await self._cells.redis.command(WRITE, "SET", key, SPACE.codec.encode(value), "EX", 60)
        return value

    async def write(self, identity, write, tell=None):  # noqa: ARG002 - the signature of what it stands for
        result = await write()
        await self._cells.redis.command(WRITE, "DEL", *keys_of(identity, [0], SPACE))
        return result


def apply(mutant):
    """Break something in this process."""
    if mutant == W1:
        options = MongoSettings.client_options
        MongoSettings.client_options = lambda self: {**options(self), "w": 1}
    if mutant == NO_UNIQUE_KEY:
        ConvoStore.prepare = _nothing
    if mutant == DRIVER_RETRIES:
        redis_gateway._attempts = _again_and_again
        of = LimitScripts.of
        LimitScripts.of = lambda **how: replace(of(**how), check=replace(of(**how).check, repeatable=True))


async def _nothing(self):
    """Miss no index."""


async def _again_and_again(operation, attempt):
    for _ in range(10):
        with suppress(Exception):
            return await attempt()
    return await attempt()


@asynccontextmanager
async def opened(mutant, mongo_settings, redis_settings):
    """Open a store, broken where the mutant is."""
    async with ConvoStore.open(mongo_settings, redis_settings) as store:
        if mutant == PLAIN_DEL:
            store.mongodb.cache_through(PlainDelCache(store.redis.cache, store.mongodb))
        yield store
