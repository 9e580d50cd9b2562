"""A proxy in front of a server that loses connections on demand, command by command, is slow, or lets nothing pass."""

import asyncio
from abc import ABC, abstractmethod
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Self

__all__ = ["Connection", "Fault", "Proxy", "Rule"]


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


class Proxy(ABC):
    """A TCP proxy on a free port of loopback; use it with ``async with``.

    Args:
        host: of the server.
        port: of the server.

    Attributes:
        commands: the names of the commands seen, in their order.
        struck: the faults that have befallen commands so far, as pairs of a name and a fault.
        rule: what befalls each command from now on; None for nothing.
        latency: seconds by which everything is late, each way.
    """

    def __init__(self, host: str, port: int) -> None:
        self.commands: list[str] = []
        self.struck: list[tuple[str, Fault]] = []
        self.rule: Rule | None = None
        self.latency = 0.0
        self._target = (host, port)
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[Connection] = set()

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

    def cut_before(self, n: int = 1, times: int = 1) -> None:
        """Lose the connection instead of forwarding the n-th command from now, and as many behind it as asked."""
        self.rule = _from(n, times, Fault.CUT_BEFORE)

    def cut_after(self, n: int = 1, times: int = 1) -> None:
        """Lose the connection instead of the answer to the n-th command from now, and as many behind it as asked."""
        self.rule = _from(n, times, Fault.CUT_AFTER)

    def stall(self, n: int = 1, times: int = 1, *, applied: bool = False) -> None:
        """Never answer the n-th command from now, whether or not it is applied, and as many behind it as asked."""
        self.rule = _from(n, times, Fault.STALL_AFTER if applied else Fault.STALL)

    def block(self) -> None:
        """Let nothing pass, not even a handshake; what is sent meanwhile arrives once it is healed, as with TCP."""
        self._open.clear()

    def heal(self) -> None:
        """Let everything pass from now on at once, but for the connections that are stalled."""
        self.rule = None
        self.latency = 0.0
        self._open.set()

    def lead_to(self, host: str, port: int) -> None:
        """Lead to another server from now on; all connections that are open are lost."""
        self._target = (host, port)
        self.cut_connections()

    async def passing(self) -> None:
        """Wait for as long as what passes now is held up."""
        await self._open.wait()
        if self.latency:
            await asyncio.sleep(self.latency)

    def cut_connections(self) -> None:
        """Lose all connections that are open now."""
        for connection in list(self._connections):
            connection.cut()

    @abstractmethod
    def connection(self, reader: StreamReader, writer: StreamWriter) -> "Connection":
        """Return what carries the messages of a client that has connected."""

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: a connection is served in a task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        connection = self.connection(reader, writer)
        self._connections.add(connection)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await connection.run(*self._target)
        finally:
            connection.cut()
            self._connections.discard(connection)

    def befalls(self, name: str) -> Fault | None:
        """Count a command of a client and say what befalls it."""
        self.commands.append(name)
        fault = self.rule(name) if self.rule is not None else None
        if fault is not None:
            self.struck.append((name, fault))
        return fault


class Connection(ABC):
    """One connection of a client with the one to the server that belongs to it."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._client = (reader, writer)
        self._writers = [writer]

    async def run(self, host: str, port: int) -> None:
        """Carry messages until one of the sides has gone."""
        server_reader, server_writer = await asyncio.open_connection(host, port)
        self._writers.append(server_writer)
        reader, writer = self._client
        pumps = [
            asyncio.create_task(self.carry_requests(reader, server_writer)),
            asyncio.create_task(self.carry_answers(server_reader, writer)),
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

    @abstractmethod
    async def carry_requests(self, reader: StreamReader, server: StreamWriter) -> None:
        """Carry what the client says until the connection is to be lost."""

    @abstractmethod
    async def carry_answers(self, server: StreamReader, writer: StreamWriter) -> None:
        """Carry what the server says until the connection is to be lost."""


def _from(n: int, times: int, fault: Fault) -> Rule:
    seen = 0

    def rule(_: str) -> Fault | None:
        nonlocal seen
        seen += 1
        return fault if n <= seen < n + times else None

    return rule
