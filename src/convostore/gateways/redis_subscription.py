"""Published messages, with a watch over the connection: a frozen server never reports an error by itself."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from convostore.gateways.redis_wire import Wire, drop
from convostore.gateways.retry import pause

LONGEST_PAUSE = 1.0  # seconds at most before the next connection is tried


class Missed:
    """Stands for messages that may have been published while there was no connection."""


MISSED: Final = Missed()


class Subscription:
    """What is published to channels.

    Publishing is a hint: a message that is published while there is no connection is lost. ``MISSED`` is yielded each
    time a connection stands, the first too, so that the reader looks for himself at what was published before.

    Args:
        wire: the way to the server.
        channels: what to listen to.
        interval: seconds between two looks whether the server is still there; it is given up after two.
    """

    def __init__(self, wire: Wire, channels: Sequence[str], interval: float = 0.75) -> None:
        self._wire = wire
        self._channels = tuple(channels)
        self._interval = interval

    async def messages(self) -> AsyncIterator[bytes | Missed]:
        """Yield the messages, without end; close the iterator to end it."""
        failures = 0
        while True:
            connection: Connection | None = None
            try:
                async with asyncio.timeout(2 * self._interval):
                    connection = await self._subscribed()
                failures = 0
                yield MISSED
                async for message in self._read(connection):
                    yield message
            except (RedisError, OSError, TimeoutError):
                failures += 1
            finally:
                if connection is not None:
                    await drop(connection)
            await pause(min(LONGEST_PAUSE, 0.05 * 2.0 ** min(failures, 10)))  # a power without bound overflows

    async def _subscribed(self) -> Connection:
        connection = self._wire.new_connection()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("SUBSCRIBE", *self._channels, check_health=False)
            for _ in self._channels:
                await connection.read_response(disconnect_on_error=False)
        except BaseException:
            await drop(connection)
            raise
        return connection

    async def _read(self, connection: Connection) -> AsyncIterator[bytes]:
        silent = False
        while True:
            reply = await connection.read_response(timeout=self._interval)
            if reply is None:
                if silent:
                    raise TimeoutError
                silent = True
                await connection.send_command("PING", check_health=False)
                continue
            silent = False
            if reply[0] == b"message":
                yield reply[2]
