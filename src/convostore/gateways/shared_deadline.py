"""One deadline for a call that consists of several: the whole ends when one of them alone would have had to."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Coroutine[Any, Any, Any]])


class _Deadline:
    """When a call ends at the latest, and whether it has: a task that it started and left behind is not bound by it."""

    __slots__ = ("_token", "end", "is_over")

    def __init__(self, end: float) -> None:
        self.end = end
        self.is_over = False

    def __enter__(self) -> None:
        self._token = _current.set(self)

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        _current.reset(self._token)


_current: ContextVar[_Deadline | None] = ContextVar("convostore_deadline", default=None)


def time_left(seconds: float) -> float:
    """Return how long a step may take that by itself may take so many seconds; 0 or less if time is over."""
    current = _current.get()
    if current is None or current.is_over:
        return seconds
    return min(seconds, current.end - asyncio.get_running_loop().time())


def one_deadline(seconds: float) -> AbstractContextManager[None]:
    """Let all calls made within end after so many seconds, or with the call that this one is part of."""
    if time_left(seconds) < seconds:
        return nullcontext()
    return _Deadline(asyncio.get_running_loop().time() + seconds)


def by_one_deadline(method: Method) -> Method:
    """Let a method of something that has a tenant's ``_database`` end by its deadline, however many calls it makes."""

    @wraps(method)
    async def bounded(self: Any, *arguments: Any, **options: Any) -> Any:
        with one_deadline(self._database.deadline):
            return await method(self, *arguments, **options)

    return cast("Method", bounded)
