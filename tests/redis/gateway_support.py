"""What the tests of the gateway share: operations, scripts of their own, styles of cancelling."""

import asyncio
import contextlib
import inspect
import time

import anyio

from convostore.gateways.operation import Operation
from convostore.gateways.redis_gateway import RedisGateway
from convostore.gateways.scripts import Script
from convostore.models.keys import redis_key
from convostore.repositories.exceptions import RepositoryError

READ = Operation("read", "test", "Thing", repeatable=True)
WRITE = Operation("write", "test", "Thing", writes=True)
REPEATABLE_WRITE = Operation("put", "test", "Thing", writes=True, repeatable=True)


def inline(text, **policies):
    """A script whose source is given and not read from a file."""
    script = Script("inline", **policies)
    script.__dict__["text"] = text
    return script


ECHO = inline("return ARGV[1]", writes=False, repeatable=True)
ADD = inline("return redis.call('INCRBY', KEYS[1], ARGV[1])")


def keys_of(tenant, count):
    """Keys with different tags, so that on a cluster they lie on different servers."""
    return [redis_key("test", (tenant, str(number))) for number in range(count)]


@contextlib.asynccontextmanager
async def opened(url, **options):
    """A gateway of the test's own."""
    gateway = RedisGateway.connect(url, **{"deadline": 5, **options})
    try:
        yield gateway
    finally:
        await gateway.aclose()


async def ended(call):
    """Return how a call ended, by result or error of ours, and the seconds it took."""
    started = time.monotonic()
    try:
        result = await call
    except RepositoryError as error:
        result = error
    return result, time.monotonic() - started


async def eventually(condition, seconds=10.0):
    """Poll until a condition, a function or a coroutine function, holds; fail loudly if it never does."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        result = await result if inspect.isawaitable(result) else result
        if result:
            return result
        assert time.monotonic() < end, "the condition did not come to hold"
        await asyncio.sleep(0.01)


async def works(gateway):
    """Whether a call succeeds."""
    return (await ended(gateway.command(READ, "ECHO", "there")))[0] == b"there"


async def by_cancel(call, delay):
    task = asyncio.ensure_future(call)
    asyncio.get_running_loop().call_later(delay, task.cancel)
    return await task


async def by_timeout(call, delay):
    async with asyncio.timeout(delay):
        return await call


async def by_sibling(call, delay):
    async def fail():
        await asyncio.sleep(delay)
        raise SiblingError

    async with asyncio.TaskGroup() as group:
        task = group.create_task(_run(call))
        group.create_task(fail())
    return task.result()


async def by_scope(call, delay):
    with anyio.move_on_after(delay):
        return await call
    raise asyncio.CancelledError


async def by_scope_above(call, delay):
    result = []

    async def work():
        result.append(await call)

    with anyio.move_on_after(delay):
        async with anyio.create_task_group() as group:
            group.start_soon(work)
    if not result:
        raise asyncio.CancelledError
    return result[0]


class SiblingError(Exception):
    pass


async def _run(call):
    return await call


STYLES = (by_cancel, by_timeout, by_sibling, by_scope, by_scope_above)


async def cut_short(call, delay, style):
    """Return the result of a call that is cancelled after so many seconds, None if it was cut short."""
    try:
        return await style(call, delay)
    except (asyncio.CancelledError, TimeoutError):
        return None
    except BaseExceptionGroup as group:
        if group.split(SiblingError)[1] is not None:
            raise
        return None
    finally:
        call.close()
