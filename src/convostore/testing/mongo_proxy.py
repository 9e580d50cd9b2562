"""A proxy in front of a MongoDB server that loses connections on demand, command by command.

It understands the framing of the wire protocol, so that a connection is cut exactly before a command reaches the
server, or after the server has carried it out and before the client learns of it. The second is what no fail point of
the server can do, and what tells whether a client stores something twice.

    async with MongoProxy("127.0.0.1", 27017) as proxy:
        async with ConvoStore.open(mongodb_uri=proxy.uri) as store:
            proxy.cut_after(1)
            await store.tenant("acme").messages.append(conversation_id, message)

Commands are counted over all connections; monitoring and handshakes are not. Clients must not compress, and must
connect directly, as ``uri`` says: a client that discovers the members of a replica set goes past the proxy.

MongoDB Wire Protocol: https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
"""

import asyncio
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Self

__all__ = ["NOT_COUNTED", "Fault", "MongoProxy", "Rule", "command_name"]

NOT_COUNTED = frozenset(
    {"hello", "ismaster", "ping", "endsessions", "saslstart", "saslcontinue", "authenticate", "getnonce", "logout"}
)
_HEADER = struct.Struct("<iiii")  # length, request id, response to, operation code
_INT32 = struct.Struct("<i")
_OP_MSG = 2013
_FLAGS = 4
_CHECKSUM_PRESENT = 1
_CHECKSUM = 4
_LARGEST = 64_000_000  # the server takes 48,000,000 in one message


class Fault(StrEnum):
    """What befalls a command."""

    CUT_BEFORE = "cut before"
    """The connection is lost, and the command never reaches the server."""
    CUT_AFTER = "cut after"
    """The server carries the command out; the connection is lost before its answer gets through."""
    STALL = "stall"
    """The command never reaches the server, and the connection stays open without an answer."""
    STALL_AFTER = "stall after"
    """The server carries the command out; its answer is withheld, and the connection stays open."""


Rule = Callable[[str], Fault | None]
"""Given the name of a command, says what befalls it."""


class MongoProxy:
    """A TCP proxy on a free port of loopback; use it with ``async with``.

    Args:
        host: of the server.
        port: of the server.

    Attributes:
        commands: the names of the commands seen, in their order.
        struck: the faults that have befallen commands so far, as pairs of a name and a fault.
        rule: what befalls each command from now on; None for nothing.
    """

    def __init__(self, host: str, port: int) -> None:
        self.commands: list[str] = []
        self.struck: list[tuple[str, Fault]] = []
        self.rule: Rule | None = None
        self._target = (host, port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[_Connection] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut_connections()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def address(self) -> str:
        """Where clients connect, as ``host:port``."""
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    @property
    def uri(self) -> str:
        """The address as a client takes it."""
        return f"mongodb://{self.address}/?directConnection=true"

    def cut_before(self, n: int = 1, times: int = 1) -> None:
        """Lose the connection instead of forwarding the n-th command from now, and as many behind it as asked."""
        self.rule = _from(n, times, Fault.CUT_BEFORE)

    def cut_after(self, n: int = 1, times: int = 1) -> None:
        """Lose the connection instead of the answer to the n-th command from now, and as many behind it as asked."""
        self.rule = _from(n, times, Fault.CUT_AFTER)

    def stall(self, n: int = 1, times: int = 1, *, applied: bool = False) -> None:
        """Never answer the n-th command from now, whether or not it is applied, and as many behind it as asked."""
        self.rule = _from(n, times, Fault.STALL_AFTER if applied else Fault.STALL)

    def heal(self) -> None:
        """Let everything pass from now on, but for the connections that are stalled."""
        self.rule = None

    def cut_connections(self) -> None:
        """Lose all connections that are open now."""
        for connection in list(self._connections):
            connection.cut()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: a connection is served in a task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        connection = _Connection(self, reader, writer)
        self._connections.add(connection)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await connection.run(*self._target)
        finally:
            connection.cut()
            self._connections.discard(connection)

    def befalls(self, message: bytes) -> Fault | None:
        """Count a message of a client and say what befalls it."""
        name = command_name(message)
        if name is None or name.lower() in NOT_COUNTED:
            return None
        self.commands.append(name)
        fault = self.rule(name) if self.rule is not None else None
        if fault is not None:
            self.struck.append((name, fault))
        return fault


class _Connection:
    """One connection of a client with the one to the server that belongs to it."""

    def __init__(self, proxy: MongoProxy, reader: StreamReader, writer: StreamWriter) -> None:
        self._proxy = proxy
        self._client = (reader, writer)
        self._writers = [writer]
        self._withhold: Fault | None = None

    async def run(self, host: str, port: int) -> None:
        """Carry messages until one of the sides has gone."""
        server_reader, server_writer = await asyncio.open_connection(host, port)
        self._writers.append(server_writer)
        reader, writer = self._client
        pumps = [
            asyncio.create_task(self._carry_requests(reader, server_writer)),
            asyncio.create_task(self._carry_answers(server_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.cut()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    def cut(self) -> None:
        """Lose both connections at once."""
        for writer in self._writers:
            writer.transport.abort()

    async def _carry_requests(self, reader: StreamReader, server: StreamWriter) -> None:
        while True:
            message = await _read_message(reader)
            fault = self._proxy.befalls(message)
            if fault is Fault.CUT_BEFORE:
                return
            if fault is Fault.STALL:
                continue
            self._withhold = fault
            server.write(message)
            await server.drain()

    async def _carry_answers(self, server: StreamReader, writer: StreamWriter) -> None:
        while True:
            message = await _read_message(server)
            if self._withhold is Fault.CUT_AFTER:
                return
            if self._withhold is Fault.STALL_AFTER:
                continue
            writer.write(message)
            await writer.drain()


def _from(n: int, times: int, fault: Fault) -> Rule:
    seen = 0

    def rule(_: str) -> Fault | None:
        nonlocal seen
        seen += 1
        return fault if n <= seen < n + times else None

    return rule


async def _read_message(reader: StreamReader) -> bytes:
    header = await reader.readexactly(_HEADER.size)
    length = _HEADER.unpack(header)[0]
    if not _HEADER.size <= length <= _LARGEST:
        raise OSError("not a message of MongoDB")
    return header + await reader.readexactly(length - _HEADER.size)


def command_name(message: bytes) -> str | None:
    """Return the name of the command in a message, None if it is not an ``OP_MSG``.

    Args:
        message: a whole message, its header included.
    """
    if _HEADER.unpack_from(message)[3] != _OP_MSG:
        return None  # the first handshake of a connection
    flags = _INT32.unpack_from(message, _HEADER.size)[0]
    end = len(message) - (_CHECKSUM if flags & _CHECKSUM_PRESENT else 0)
    place = _HEADER.size + _FLAGS
    while place < end and message[place] != 0:  # a sequence of documents stands in front of the command
        place += 1 + _INT32.unpack_from(message, place + 1)[0]
    name = place + 1 + _INT32.size + 1  # behind the kind of the section, the length, and the type of the first value
    return message[name : message.index(0, name)].decode() if name < end else None
