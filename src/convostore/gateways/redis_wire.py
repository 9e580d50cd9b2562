"""Wires to Redis: send commands to the right server, read the replies, never give one to another caller.

The driver's own pools lose a connection's place when its release is cancelled, and cost a command more than the
command itself. Here a connection is in one hand at a time, and is closed unless all its replies have been read.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from hiredis import pack_command
from redis.asyncio.connection import Connection
from redis.exceptions import BusyLoadingError, DataError, ReadOnlyError, RedisError, ResponseError

from convostore.gateways.waiting import Places as PlacesOfCalls

Part = str | bytes | int | float
Command = Sequence[Part]
Places = Mapping[str, Sequence[int]]

UNSENDABLE = (DataError, UnicodeEncodeError)

_HERE: Places = {"": ()}


class Unsent(Exception):  # noqa: N818 - says what is known of the failure that is its cause
    """No connection could be had, so the command was not sent."""


class ClosedWireError(RuntimeError):
    """The wire was closed before."""


class ForeignLoopError(RuntimeError):
    """The wire belongs to another event loop."""


class NoClusterError(RuntimeError):
    """The server is not part of a cluster."""


class Flight:
    """A call under way.

    Attributes:
        end: the loop's time at which it is given up.
        sent: whether a byte of it may have reached a server.
        replies: those that have come, of the commands sent last.
    """

    __slots__ = ("end", "replies", "sent")

    def __init__(self, end: float) -> None:
        self.end = end
        self.sent = False
        self.replies: list[Any] = []


class Wire(Protocol):
    """The way to one server, or to a cluster of them."""

    def places(self, commands: Sequence[Command]) -> Places | None:
        """Return which server each command belongs to, by its name, or None if ``look`` must be called before."""
        ...

    async def look(self, flight: Flight) -> None:
        """Find out which servers there are, unless that is known and fresh.

        Raises:
            Unsent: none of them answers, and nothing was known before.
        """
        ...

    async def execute(
        self, commands: Sequence[Command], flight: Flight, place: str = "", packed: bytes = b""
    ) -> list[Any]:
        """Send commands to a server and return the reply to each, a refusal as the driver's ``ResponseError``.

        Args:
            commands: what to send.
            flight: until when; is told what has happened.
            place: which server.
            packed: the commands as they are sent, if somebody has packed them already.

        Raises:
            Unsent: nothing was sent.
            RedisError: the connection failed, or one of the replies cannot be read.
            RuntimeError: the wire is closed, or belongs to another event loop.
        """
        ...

    def servers(self) -> list[str]:
        """Return the names of the servers that hold keys."""
        ...

    def new_connection(self) -> Connection:
        """Return a connection, not open yet, that is the caller's alone."""
        ...

    async def aclose(self) -> None:
        """Close all connections; one that is in use when its command ends."""
        ...


class SingleWire:
    """The way to one server, through connections that are kept.

    Args:
        make: returns a connection that is not open yet.
        size: connections at most; who finds none waits, first come, first served, up to ``MOST_WAITING``.
    """

    def __init__(self, make: Callable[[], Connection], size: int) -> None:
        self._make = make
        self._idle: list[Connection] = []
        self._places = PlacesOfCalls(size)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def places(self, commands: Sequence[Command]) -> Places:  # noqa: ARG002
        """Return the one server."""
        return _HERE

    async def look(self, flight: Flight) -> None:
        """Do nothing: there is one server."""

    async def execute(
        self,
        commands: Sequence[Command],
        flight: Flight,
        place: str = "",  # noqa: ARG002
        packed: bytes = b"",
    ) -> list[Any]:
        """Send commands over one connection."""
        self._check_loop()
        packed = packed or b"".join(map(pack, commands))
        async with self._places:
            connection = await self._connected()
            writer = connection._writer  # noqa: SLF001 - see drop
            try:
                flight.sent = True
                await connection.send_packed_command(packed, check_health=False)
                replies = flight.replies = []
                for _ in commands:
                    replies.append(await _reply(connection))  # noqa: PERF401 - those before a failure are wanted
            except BaseException:
                await drop(connection, writer)
                raise
            await self._give_back(connection, replies)
        return replies

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise ForeignLoopError
            self._loop = loop

    async def _connected(self) -> Connection:
        if self._closed:
            raise ClosedWireError
        while self._idle:
            connection = self._idle.pop()
            if connection.is_connected and not await connection.can_read():
                return connection
            await drop(connection)  # closed by the server, or it holds what nobody asked for
        return await self._opened(self._make())

    async def _opened(self, connection: Connection) -> Connection:
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            await drop(connection)
            raise Unsent from error
        except BaseException:
            await drop(connection)
            raise
        return connection

    async def _give_back(self, connection: Connection, replies: Sequence[Any]) -> None:
        # A server that has become a replica refuses writes: the next connection finds the new primary.
        if self._closed or any(isinstance(reply, ReadOnlyError) for reply in replies):
            await drop(connection)
        else:
            self._idle.append(connection)

    def servers(self) -> list[str]:
        """Return the one server."""
        return [""]

    def new_connection(self) -> Connection:
        """Return a connection of its own to the server."""
        return self._make()

    async def aclose(self) -> None:
        """Close all connections; one that is in use when its command ends."""
        self._closed = True
        await self.drop_idle()
        await asyncio.sleep(0)  # the loop closes the sockets in its next turn

    async def drop_idle(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            with suppress(RuntimeError):  # its loop has ended, and the socket with it
                await drop(self._idle.pop())


async def drop(connection: Connection, writer: asyncio.StreamWriter | None = None) -> None:
    """Close a connection at once, waiting for nothing, so that nothing can cut it short.

    The driver closes kindly: it keeps the socket until a frozen server has taken all that is sent.

    Args:
        connection: whatever state it is in.
        writer: its writer, where the driver may have closed and forgotten it already.
    """
    writer = writer or connection._writer  # noqa: SLF001 - the driver has no other way
    if writer is not None:
        writer.transport.abort()
    await connection.disconnect(nowait=True)


async def _reply(connection: Connection) -> Any:
    try:
        # The connection's own method looks at a time-out for each reply, which costs more than to read it.
        return await connection._parser.read_response()  # type: ignore[attr-defined] # noqa: SLF001
    except (ResponseError, BusyLoadingError) as error:
        return error


def pack(command: Command) -> bytes:
    """Return a command as it is sent.

    Raises:
        DataError: a word is of a kind that cannot be sent.
        UnicodeEncodeError: a word is no text that can be sent.
    """
    if bool in map(type, command):  # of which the driver makes the text "True"
        raise DataError("a word is of a kind that cannot be sent")
    try:
        packed: bytes = pack_command(tuple(command))  # type: ignore[arg-type]
    except TypeError:
        raise DataError("a word is of a kind that cannot be sent") from None
    return packed
