"""What the driver does wrong on Python 3.11, done right.

It waits for a server, and for a connection, with ``asyncio.wait_for`` around the ``wait`` of a condition. Before Python
3.12 that runs in a task of its own: a caller who is cancelled while it ends, as each does every half a second, goes on
without it. The lock that it then takes nobody gives back, and the client never answers again, nor can it be closed.
"""

import asyncio
import sys
from typing import Any

from pymongo.asynchronous import pool, topology

__all__ = ["mend_driver"]


def mend_driver() -> None:
    """Let the driver wait in the task of its caller, as it does from Python 3.12 on; a second call changes nothing."""
    if sys.version_info < (3, 12):
        for module in (pool, topology):
            vars(module)["_async_cond_wait"] = _wait


async def _wait(condition: Any, timeout: float | None) -> bool:  # noqa: ASYNC109 - the driver's signature
    try:
        async with asyncio.timeout(timeout):
            await condition.wait()
    except TimeoutError:
        return False
    return True
