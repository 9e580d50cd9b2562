"""Work that a cancelled caller must not leave half done."""

import asyncio
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
_PATIENCE = 0.2  # seconds in which whatever was cancelled has long cleaned up


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run work to its end in a task of its own, however often the caller is cancelled meanwhile.

    An AnyIO cancel scope cancels its task again and again until it leaves; a task of its own is out of its reach.
    Once the work has ended, a cancellation that came meanwhile is raised.

    Raises:
        CancelledError: the caller was cancelled; the work has ended nevertheless.
    """
    task = asyncio.create_task(work)
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


async def cancel_once(work: Awaitable[T], grace: float = 0.0) -> T:
    """Await work so that it is cancelled just once, and has ended when a cancellation of the caller is raised.

    Cancelled again while it puts its connection back, as an AnyIO cancel scope does, the driver's pool would lose the
    connection's place, or a lock, for good.

    Args:
        work: what to await.
        grace: seconds that it is given to end by itself before it is cancelled.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        ending = asyncio.create_task(_end(task, grace))
        while not ending.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([ending])
        raise


async def _end(task: asyncio.Future[T], grace: float) -> None:
    if grace:
        await asyncio.wait([task], timeout=grace)
    while not task.done():
        task.cancel()  # asyncio's own wait_for swallows one now and then before Python 3.12
        await asyncio.wait([task], timeout=_PATIENCE)
