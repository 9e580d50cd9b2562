"""Work that a cancelled caller must not leave half done."""

import asyncio
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run work to its end in a task of its own, however often the caller is cancelled meanwhile.

    An AnyIO cancel scope cancels its task again and again until it leaves; a task of its own is out of its reach.
    Once the work has ended, a cancellation that came meanwhile is raised.

    Raises:
        CancelledError: the caller was cancelled; the work has ended nevertheless.
    """
    task = asyncio.create_task(work, context=Context())
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # seen, so that the loop does not complain of it
        raise cancelled
    return task.result()


async def cancel_once(work: Awaitable[T]) -> T:
    """Await work so that it is cancelled at most once, and has ended when a cancellation of the caller is raised.

    Cancelled again while it puts its connection back, as an AnyIO cancel scope does, the driver's pool would lose the
    connection's place, or a lock, for good.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        raise
