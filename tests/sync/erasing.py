"""A program that carries out what is in the outbox, to be killed in the middle of it."""

import asyncio
import sys

from pydantic import SecretStr

from convostore import ConvoStore, MongoSettings, RedisSettings
from convostore.database.settings import LOCAL_SESSION_KEY
from convostore.sync.dispatcher import Dispatcher, Targets


async def main(mongodb_uri: str, database: str, redis_url: str) -> None:
    settings = MongoSettings(mongodb_uri=SecretStr(mongodb_uri), database_name=database)
    redis = RedisSettings(
        redis_url=SecretStr(redis_url), session_key=SecretStr(LOCAL_SESSION_KEY), redis_deadline=5, cache_deadline=5
    )
    async with ConvoStore.open(settings, redis) as store:
        await Dispatcher(Targets(store.mongodb, store.sessions, store.cache), lease=1).run_once()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
