"""What the tests of cached newest messages share."""

import asyncio

from cached_support import TENANT, eventually, text

from convostore import MessageDocument


def messages(store):
    return store.tenant(TENANT).messages


def statistics(store):
    return store.mongodb.newest.statistics


async def fill(store, cid, count=3):
    return await messages(store).append_many(cid, [text(f"{number}") for number in range(1, count + 1)])


async def warm(store, cid):
    """Read the newest messages until they come from the cache, and return them."""
    while True:
        hits = statistics(store).hits
        found = await messages(store).history(cid)
        if statistics(store).hits > hits:
            return found
        await asyncio.sleep(0.01)


async def read(store, cid, **options):
    """Read the newest messages, through the cache however long it was not asked."""
    await eventually(lambda: store.mongodb.newest.epoch.usable() is not None)
    return await messages(store).history(cid, **options)


async def told(store, cid, **options):
    """Return the texts that a store tells, which must be what the database tells."""
    found = await read(store, cid, **options)
    assert found == await messages(store).history(cid, **options, fresh=True)
    return [message.content for message in found.items]


def message_id(cid, sequence):
    return MessageDocument.identify(cid, sequence)
