"""What the tests of hostile input look at: everything stored for a tenant, and everything a caller learns."""

import asyncio
import inspect
import re
from contextlib import suppress
from typing import Any

from surface import Call

from convostore import Changes, ConvoStore, RepositoryError
from convostore.gateways.operation import Operation

_DUMP = Operation("dump", "test", "Thing", repeatable=True)
# What differs from call to call: moments, random ids, hashes, and the times that limits tell.
_FLEETING = re.compile(
    r"datetime\.datetime\([^)]*\)|[A-Za-z0-9_-]{20}\.[A-Za-z0-9_-]{32}|\b[A-Za-z0-9_-]{43}\b|\b[0-9a-f]{32}\b|"
    r"'82[0-9A-F]{20,}'|(?<=ID ')[A-Za-z0-9_-]{12}(?=')|'entity_id': '[A-Za-z0-9_-]{12}'|\b\d+\.\d+\b|"
    r"\b\d{10}\b|0x[0-9a-f]+"
)


async def stored_for(store: ConvoStore, tenant_id: str) -> dict[str, Any]:
    """Return everything that is stored for a tenant in both databases, times to live left out."""
    await store.mongodb.activity.flush()
    database, found = store.mongodb.database, {}
    for name in await database.list_collection_names():
        query = {"_id": {"$gte": f"{tenant_id}:", "$lt": f"{tenant_id};"}}
        found[name] = await database[name].find(query).sort("_id").to_list()
    gateway = store.redis.state
    async for keys in gateway.scan(_DUMP, f"cs:*{{{tenant_id}[:}}]*"):
        for key in keys:
            found[key.decode()] = await gateway.command(_DUMP, "DUMP", key)
    return found


async def answer(call: Call, target: Any) -> Any:
    """Return what a call answers; of what has no end, what comes at once."""
    result = call.on(target)
    if isinstance(result, Changes):
        async with result:
            return await result.batch(2.0)
    if inspect.isasyncgen(result):
        return await _first_items(result)
    return await result if inspect.isawaitable(result) else result


async def _first_items(items: Any) -> list[Any]:
    if items.__name__ != "revocations_of":
        return [item async for item in items]
    try:
        with suppress(TimeoutError):  # while the server is away it waits for it
            async with asyncio.timeout(0.5):
                return [await anext(items)]
    finally:
        await items.aclose()
    return []


async def learned(call: Call, target: Any, *names: str) -> str:
    """Return everything a caller can learn from a call, some names and all that is fleeting taken out."""
    try:
        told = repr(await answer(call, target))
    except RepositoryError as error:
        held = {name: str(value) for name, value in vars(error).items()}
        told = repr((type(error).__name__, str(error), held, repr(error.__cause__)))
    for number, name in enumerate(names):
        told = told.replace(name, f"NAME-{number}")
    return _FLEETING.sub("…", told)
