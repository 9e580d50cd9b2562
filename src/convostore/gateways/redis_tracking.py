"""Tracking: the server says which keys have changed, and until when what it has said is known to be complete.

Server-assisted client-side caching in its broadcasting mode: the server says of each key below a prefix that it was
written to, has ended or was evicted, whoever had read it, and keeps no table of readers for it.
https://redis.io/docs/latest/develop/reference/client-side-caching/

All of it comes over one connection, which is at once the one that tracks, so the two are lost together. The answer to a
PING comes over it as well, behind all that was said before: **who has had the answer to a PING that was sent at a
moment knows of every change whose caller had been answered before that moment.** For the server says what has changed
before it lets any answer of the same turn of its loop go. So nothing but the time since such a moment bounds how much
may be unknown, whatever becomes of the connection, and no clock of another machine takes part.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError, ResponseError

from convostore.gateways.operation import Operation
from convostore.gateways.redis_subscription import LONGEST_PAUSE
from convostore.gateways.redis_translation import DRIVER_ERRORS, translate
from convostore.gateways.redis_wire import Command, Wire, drop, pack
from convostore.gateways.retry import pause
from convostore.logs import get_logger

PATIENCE = 1.0  # seconds to wait for a connection, and for the answer to a PING, before another connection is tried
_CHANNEL = b"__redis__:invalidate"
_PING = pack(("PING",))
_FOLLOW = Operation("CLIENT TRACKING for the near cache", "near", "Server")
_NEVER = float("-inf")

Changed = Callable[[Sequence[bytes] | None], None]


class Tracking:
    """What the server says of the keys below a prefix.

    Args:
        wire: the way to the server; no cluster, whose servers say nothing of each other's keys.
        prefix: of the keys.
        lag: seconds that what is known may be incomplete, for ``is_complete``.
        changed: told of the keys that have changed, or None if that may be all of them: they were all removed, or the
            connection was lost.
    """

    def __init__(self, wire: Wire, prefix: str, lag: float, changed: Changed) -> None:
        self.lag = lag
        self._wire = wire
        self._prefix = prefix
        self._changed = changed
        self._connection: Connection | None = None
        self._complete_to = _NEVER
        self._pinged: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._logger = get_logger("redis")

    @property
    def stands(self) -> bool:
        """Whether all that changes from now on will be said, or the connection lost."""
        return self._connection is not None

    def is_complete(self) -> bool:
        """Say whether all changes are known whose callers had been answered ``lag`` seconds ago; asks in good time."""
        now = time.monotonic()
        if self._connection is None:
            self.start()
        elif self._pinged is None and now - self._complete_to > self.lag / 3:
            self._ping(self._connection, now)
        return now - self._complete_to <= self.lag

    async def check(self) -> None:
        """Make sure that the server says what changes, then listen to it.

        Raises:
            ConnectionError: it cannot be reached.
            RepositoryError: it refuses.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                await drop(await self._tracked())
        except DRIVER_ERRORS as error:
            raise translate(error, _FOLLOW, sent=True) from None
        self.start()

    def start(self) -> None:
        """Listen in the background from now on, unless that is done already."""
        if self._task is None:
            # A context of its own: it is shared by many, and in the unit of work of none of them.
            self._task = asyncio.create_task(self._run(), name="convostore near cache", context=Context())

    async def _run(self) -> None:
        failures = 0
        while True:
            with suppress(RedisError, OSError, TimeoutError):
                try:
                    async with asyncio.timeout(PATIENCE):
                        connection = await self._tracked()
                except ResponseError as error:
                    # Whoever opened the store was told, unless it was away then.
                    self._logger.warning("near cache is of no use", error=str(translate(error, _FOLLOW, sent=True)))
                    raise
                failures = 0
                await self._listen(connection)
            failures += 1
            await pause(min(LONGEST_PAUSE, 0.05 * 2.0 ** min(failures, 10)))

    async def _tracked(self) -> Connection:
        connection = self._wire.new_connection()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            own = await _answer(connection, ("CLIENT", "ID"))
            tracking = ("CLIENT", "TRACKING", "ON", "REDIRECT", own, "BCAST", "PREFIX", self._prefix)
            await _answer(connection, tracking)
            await _answer(connection, ("SUBSCRIBE", _CHANNEL))
        except BaseException:
            await drop(connection)
            raise
        return connection

    async def _listen(self, connection: Connection) -> None:
        self._connection = connection
        self._ping(connection, time.monotonic())
        try:
            while True:
                reply = await connection.read_response(timeout=PATIENCE / 2)
                if reply is not None:
                    self._take(reply)
                elif self._pinged is not None and time.monotonic() - self._pinged > PATIENCE:
                    return
        finally:
            self._connection, self._pinged, self._complete_to = None, None, _NEVER
            self._changed(None)
            await drop(connection)

    def _ping(self, connection: Connection, now: float) -> None:
        # Sent at once, without a task that waits for it: the driver's own way to send does.
        writer = connection._writer  # noqa: SLF001 - the driver has no other way
        if writer is not None:
            self._pinged = now
            writer.write(_PING)

    def _take(self, reply: Any) -> None:
        if reply[0] == b"message":
            self._changed(reply[2])
        elif reply[0] == b"pong" and self._pinged is not None:
            self._complete_to, self._pinged = self._pinged, None

    async def aclose(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])


async def _answer(connection: Connection, command: Command) -> Any:
    await connection.send_packed_command(pack(command), check_health=False)
    return await connection.read_response(disconnect_on_error=False)
