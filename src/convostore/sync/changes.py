"""Changes: what a follower of the change feed holds in his hand."""

import asyncio
import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from convostore.gateways.change_stream import ChangeStream
from convostore.models.identity import check_identifier
from convostore.repositories.exceptions import RepositoryError, ValidationError
from convostore.sync.events import ChangeEvent

_CURSOR = re.compile(r"82(?:[0-9A-F]{2}){10,2000}")


class Changes:
    """What happens, in the order of each conversation, at least once; iterate over it, best under ``async with``.

        async with store.tenant("acme").changes(after=cursor) as changes:
            async for event in changes:
                ...  # do what follows from it, then keep event.cursor

    It goes on while the database is away, and ends when the store is closed. Entering it fixes where it begins; without
    ``async with`` that is the first event asked for. It belongs to one task.

    Attributes:
        tenant_id: to whom it happens; None for all tenants.
        reached: the place up to which everything that concerns him has been told.
        is_closed: whether he wants nothing more.
    """

    def __init__(
        self,
        attach: Callable[["Changes"], "asyncio.Task[None]"],
        tenant_id: str | None,
        after: str | None = None,
        buffer: int = 1000,
    ) -> None:
        self.tenant_id = None if tenant_id is None else check_identifier(tenant_id, "tenant_id")
        self.reached = _checked_cursor(after)
        self.is_closed = False
        self._attach = attach
        self._buffer = buffer
        self._taken = self.reached
        self._entered_at = ""
        self._is_level = False
        self._waiting: deque[ChangeEvent] = deque()
        self._stream: ChangeStream | None = None
        self._leave: Callable[[Changes], None] = _nobody
        self._attaching: asyncio.Task[None] | None = None
        self._error: RepositoryError | None = None
        self._news, self._room = asyncio.Event(), asyncio.Event()

    @property
    def cursor(self) -> str | None:
        """Where to go on later: behind the last event taken, and behind what has happened to others since."""
        place = self._taken
        if self._stream is not None and not self._waiting:
            place = max(place, self._stream.mark)
        return place or None

    @property
    def is_level(self) -> bool:
        """Whether everything has been taken that had happened when it was entered."""
        if self._stream is not None and not self._is_level:
            self._is_level = self._stream.is_idle_since(self._entered_at)
        return self._is_level and not self._waiting

    async def __aenter__(self) -> Self:
        try:
            await self._attached()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChangeEvent:
        await self._wait()
        if not self._waiting:
            raise StopAsyncIteration
        return self._take()

    async def batch(self, seconds: float | None = None) -> list[ChangeEvent]:
        """Wait for an event and return all that are at hand.

        Args:
            seconds: how long to wait at most; by default without end.

        Returns:
            None at all if the time is up, or the store is closed.

        Raises:
            RepositoryError: the database refuses to tell.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wait()
        return [self._take() for _ in range(len(self._waiting))]

    async def _wait(self) -> None:
        while not self._waiting and not self.is_closed:
            if self._error is not None:
                raise self._error
            await self._attached()
            self._news.clear()
            if self._stream is not None and not self._waiting:
                await self._news.wait()

    async def _attached(self) -> None:
        if self._stream is None and not self.is_closed and self._error is None:
            if self._attaching is None:
                self._attaching = self._attach(self)
            try:
                await asyncio.shield(self._attaching)
            finally:
                if self._attaching.done():
                    self._attaching = None

    def _take(self) -> ChangeEvent:
        event = self._waiting.popleft()
        self._taken = event.cursor
        self._room.set()
        return event

    async def aclose(self) -> None:
        """End it; what is waiting is forgotten."""
        self.end()
        self._waiting.clear()

    # the feed's side

    def follow(self, stream: ChangeStream, leave: Callable[["Changes"], None] | None = None) -> None:
        """Take note of what stream he is told by from now on, and whom to tell when he wants nothing more."""
        self._stream, self._leave = stream, leave or _nobody
        if not self.reached:
            self.reached = self._taken = stream.position
            self._is_level = True

    def fall_behind(self) -> None:
        """Take note that he is told nothing any more until he has taken what is waiting."""
        self._stream, self._leave = None, _nobody
        self._news.set()

    @property
    def is_full(self) -> bool:
        """Whether as much is waiting for him as may."""
        return len(self._waiting) >= self._buffer

    def tell(self, event: ChangeEvent) -> None:
        """Let an event wait for him."""
        self.reached = event.cursor
        self._waiting.append(event)
        self._news.set()

    async def until_there_is_room(self) -> None:
        """Return once he has made room, or has ended."""
        while self.is_full and not self.is_closed:
            self._room.clear()
            await self._room.wait()

    def pass_by(self, stream: ChangeStream) -> None:
        """Take note that nothing else that concerns him has happened up to where a stream of his own is."""
        if not stream.is_lost:
            self.reached = stream.position
        self._entered_at = self._entered_at or stream.began_at
        self._is_level = self._is_level or stream.is_idle_since(self._entered_at)

    def end(self, error: RepositoryError | None = None) -> None:
        """Tell him that nothing more comes, and why, if there is a reason."""
        if error is None:
            self.is_closed = True
        else:
            self._error = self._error or error
        self._leave(self)
        self._stream, self._leave = None, _nobody
        self._news.set()
        self._room.set()


def _nobody(_: Changes) -> None:
    return


def _checked_cursor(after: object) -> str:
    if after is None:
        return ""
    if not isinstance(after, str) or not _CURSOR.fullmatch(after):
        raise ValidationError("after: must be the cursor of an event", "after")
    return after
