"""The change feed: one change stream for all who follow in this process.

The shared stream tells every follower what concerns him, and waits for nobody. Who begins at an earlier place, or has
fallen behind by more than may wait for him, is told by a stream of his own from there, which waits for him alone; once
that is level with the shared one he joins it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Iterable
from contextvars import Context
from typing import Any

from convostore.gateways.cancellation import finish
from convostore.gateways.change_stream import AWAIT_SECONDS, Change, ChangeStream, Loss, moment_of
from convostore.gateways.mongo_gateway import MongoGateway
from convostore.repositories.exceptions import (
    ConnectionError,  # noqa: A004 - the name is the specification's
    RepositoryError,
)
from convostore.sync.changes import Changes
from convostore.sync.events import ChangeEvent, HistoryLost
from convostore.sync.reading import event_of, pipeline

BUFFER = 2000  # events that may wait for a follower
_PATIENCE = 1.0  # seconds that a stream is given to end by itself; cancelled, it throws its connection away


class ChangeFeed:
    """Tells what happens in a database.

    Args:
        gateway: the way to it; stays open.
        buffer: so many events may wait for each follower.
    """

    def __init__(self, gateway: MongoGateway, buffer: int = BUFFER) -> None:
        self._gateway = gateway
        self._buffer = buffer
        self._shared: _Shared | None = None
        self._joining = asyncio.Lock()
        self._behind: set[Changes] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def changes(self, tenant_id: str | None, after: str | None = None) -> Changes:
        """Return what happens from now on, or behind a cursor.

        Args:
            tenant_id: to whom; None for all tenants.
            after: the cursor of an event.

        Raises:
            ValidationError: one of them cannot be right.
        """
        return Changes(self._attach, tenant_id, after, self._buffer)

    def _attach(self, follower: Changes) -> asyncio.Task[None]:
        return self._start(self._begin(follower))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # A context of its own: it outlives the unit of work that its creator may be in.
        task = asyncio.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _begin(self, follower: Changes) -> None:
        if self._closed:
            follower.end()
        elif not follower.reached:
            await self._join(follower)
        else:
            stream = ChangeStream(self._gateway, pipeline(follower.tenant_id), follower.reached)
            follower.follow(stream)
            self._behind.add(follower)
            self._start(self._catch_up(follower, stream))

    async def _join(self, follower: Changes) -> bool:
        """Let a follower be told by the shared stream, if that is not ahead of him; it begins with its first one."""
        async with self._joining:
            if self._shared is None:
                stream = ChangeStream(self._gateway, pipeline(), follower.reached or None)
                await stream.open()
                self._shared = _Shared(stream)
                self._start(self._share(self._shared))
            elif follower.reached and not self._shared.is_reached_by(follower.reached):
                return False
            self._shared.add(follower)
            return True

    async def _share(self, shared: "_Shared") -> None:
        failure: RepositoryError | None = None
        try:
            while shared.followers and not self._closed:
                shared.tell(await shared.stream.next())
        except RepositoryError as error:
            failure = error
        except Exception as error:
            failure = _of_a_mistake(error)
            raise
        finally:
            self._shared = None
            shared.end(failure)
            await shared.stream.aclose()

    async def _catch_up(self, follower: Changes, stream: ChangeStream) -> None:
        try:
            joined = False
            while not (follower.is_closed or joined):
                await follower.until_there_is_room()
                event = _event(await stream.next(), stream)
                if event is not None:
                    follower.tell(event)
                follower.pass_by(stream)
                joined = await self._has_joined(follower, stream)
        except RepositoryError as error:
            follower.end(error)
        except Exception as error:
            follower.end(_of_a_mistake(error))
            raise
        finally:
            self._behind.discard(follower)
            await stream.aclose()

    async def _has_joined(self, follower: Changes, stream: ChangeStream) -> bool:
        if stream.is_lost or not stream.began_at:
            return False
        if self._shared is None and not stream.is_idle_since(stream.began_at):
            return False  # a shared stream does not begin in the past
        try:
            return await self._join(follower)
        except ConnectionError:
            return False  # his own stream goes on trying

    async def aclose(self) -> None:
        """End all that follow; survives the cancellation of the caller."""
        self._closed = True
        if self._shared is not None:
            self._shared.end()
        for follower in tuple(self._behind):
            follower.end()
        await finish(self._ended())

    async def _ended(self) -> None:
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=AWAIT_SECONDS + _PATIENCE)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)


class _Shared:
    """A stream, and who is told by it.

    Attributes:
        stream: the stream, open.
        followers: whom it tells.
    """

    def __init__(self, stream: ChangeStream) -> None:
        self.stream = stream
        self.followers: set[Changes] = set()
        self._of_tenant: defaultdict[str | None, set[Changes]] = defaultdict(set)

    def is_reached_by(self, place: str) -> bool:
        """Say whether who has been told everything up to a place misses nothing here."""
        return not self.stream.is_lost and place >= self.stream.position

    def add(self, follower: Changes) -> None:
        """Tell a follower from now on."""
        if not follower.is_closed:
            self.followers.add(follower)
            self._of_tenant[follower.tenant_id].add(follower)
            follower.follow(self.stream, self._remove)

    def _remove(self, follower: Changes) -> None:
        self.followers.discard(follower)
        concerned = self._of_tenant[follower.tenant_id]
        concerned.discard(follower)
        if not concerned:
            del self._of_tenant[follower.tenant_id]

    def tell(self, change: Change | Loss | None) -> None:
        """Tell those whom it concerns."""
        event = _event(change, self.stream)
        if isinstance(event, HistoryLost):
            self._tell(event, self.followers)
        elif event is not None:
            for tenant_id in (event.tenant_id, None):
                self._tell(event, self._of_tenant.get(tenant_id, ()))

    def _tell(self, event: ChangeEvent, followers: Iterable[Changes]) -> None:
        for follower in tuple(followers):
            if follower.is_full:
                self._remove(follower)
                follower.fall_behind()
            elif event.cursor > follower.reached or isinstance(event, HistoryLost):
                follower.tell(event)

    def end(self, error: RepositoryError | None = None) -> None:
        """Tell all that nothing more comes."""
        for follower in tuple(self.followers):
            follower.end(error)


def _of_a_mistake(error: Exception) -> RepositoryError:
    """Return what followers are told of an error that nobody foresaw: better than waiting for ever."""
    return RepositoryError(f"the change feed failed: {type(error).__name__}", original_error=error)


def _event(change: Change | Loss | None, stream: ChangeStream) -> ChangeEvent | None:
    if isinstance(change, Loss):
        return HistoryLost(tenant_id="", cursor=stream.position, at=moment_of(stream.position), reason=change)
    return None if change is None else event_of(change)
