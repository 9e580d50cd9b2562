"""Work that a cancelled caller must not leave half done."""

import asyncio
from collections.abc import Coroutine
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
