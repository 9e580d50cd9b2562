"""A process whose clock is wrong by so many seconds; writes, takes units of a limit, and tells which sessions live."""

import asyncio
import datetime as dt
import json
import sys
import time

OFFSET = float(sys.argv[1])
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + OFFSET
time.time_ns = lambda: _time_ns() + int(OFFSET * 1e9)

from convostore import ConvoStore, MessageDocument, MongoSettings, RedisSettings  # noqa: E402
from convostore.models import types  # noqa: E402


class SkewedClock:
    """Stands in the place of the class that tells the present moment."""

    @staticmethod
    def now(zone: dt.tzinfo) -> dt.datetime:
        """Return a wrong moment."""
        return dt.datetime.now(zone) + dt.timedelta(seconds=OFFSET)


types.datetime = SkewedClock  # type: ignore[misc, assignment]


async def main() -> None:
    """Do what each process does, one step after the other, as the test says."""
    uri, database, redis, tenant = sys.argv[2:]
    key = "a session key of tests, 32 or longer"
    redis_settings = RedisSettings.from_environment(
        {}, redis_url=redis, redis_deadline=10, cache_deadline=10, session_key=key
    )
    async with ConvoStore.open(
        MongoSettings.from_environment({}, mongodb_uri=uri, database_name=database, deadline=60), redis_settings
    ) as store:
        said(abs((types.utc_now() - dt.datetime.now(dt.UTC)).total_seconds() - OFFSET) < 1)
        for line in sys.stdin:
            said(await step(store, tenant, *json.loads(line)))


def said(value: object) -> None:
    """Answer the test."""
    print(json.dumps(value), flush=True)


async def step(store: ConvoStore, tenant: str, what: str, *given: object) -> object:
    """Do one thing and return what came of it."""
    if what == "append":
        messages = store.tenant(tenant).messages
        return [(await messages.append("c", MessageDocument.user("x"))).sequence for _ in range(int(str(given[0])))]
    if what == "limit":
        asked = [await store.rate_limits.check_rate_limit(tenant, "u", 40, 60) for _ in range(int(str(given[0])))]
        return [result.allowed for result in asked].count(True)
    if what == "begin":
        session = await store.sessions.start_session(tenant, "u", idle_seconds=float(str(given[0])))
        return session.session_id
    found = [await store.sessions.get_session(tenant, str(session_id)) for session_id in given]
    return [session is not None for session in found]


asyncio.run(main())
