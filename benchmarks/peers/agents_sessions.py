"""The sessions of openai-agents, kept in MongoDB, Redis or a file of SQLite; one object a conversation."""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from agents import SQLiteSession
from agents.extensions.memory import MongoDBSession, RedisSession
from agents.memory import Session
from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks.peers import CONVERSATION_IDS, Calls, conversation_calls
from benchmarks.raw_driver import driver_client
from benchmarks.repositories import MESSAGES, READ, TEXT
from convostore import MongoSettings


@asynccontextmanager
async def agents_mongodb(settings: MongoSettings) -> AsyncIterator[Calls]:
    """Open sessions on one client of the driver."""
    async with driver_client(settings, zone=False) as client:
        yield await _calls(partial(MongoDBSession, client=client, database=f"{settings.database_name}_a"))


@asynccontextmanager
async def agents_redis(url: str) -> AsyncIterator[Calls]:
    """Open sessions on one client of the driver, whose pool lets callers wait."""
    async with Redis.from_pool(BlockingConnectionPool.from_url(url, max_connections=64)) as client:
        yield await _calls(partial(RedisSession, redis_client=client))


@asynccontextmanager
async def agents_sqlite() -> AsyncIterator[Calls]:
    """Open sessions on one file."""
    opened: list[SQLiteSession] = []

    def session(conversation_id: str) -> SQLiteSession:
        opened.append(SQLiteSession(conversation_id, path))
        return opened[-1]

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "sessions.sqlite"
        try:
            yield await _calls(session)
        finally:
            for one in opened:
                one.close()


async def _calls(make: Callable[[str], Session]) -> Calls:
    sessions = {one: make(one) for one in CONVERSATION_IDS}
    item: Any = {"role": "user", "content": TEXT}
    for _ in range(MESSAGES):
        await sessions[READ].add_items([item])
    return conversation_calls(
        lambda conversation_id: sessions[conversation_id].add_items([item]),
        lambda: sessions[READ].get_items(limit=50),
    )
