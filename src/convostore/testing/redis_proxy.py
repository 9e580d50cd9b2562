"""A proxy in front of a Redis or Valkey server that loses connections on demand, command by command.

It understands the framing of the protocol, so that a connection is cut exactly before a command reaches the server, or
after the server has carried it out and before the client learns of it.

    async with RedisProxy("127.0.0.1", 6379) as proxy:
        clients = RedisClients.open(RedisSettings(redis_url=proxy.url))
        proxy.cut_after(1)

Commands are counted over all connections, also those of one pipeline; what opens a connection is not.

Redis serialization protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from asyncio import StreamReader, StreamWriter
from collections import deque

from convostore.testing.proxy import Connection, Fault, Proxy, Rule

__all__ = ["NOT_COUNTED", "Fault", "RedisProxy", "Rule"]

NOT_COUNTED = frozenset({"AUTH", "SELECT", "CLIENT", "HELLO", "PING"})


class RedisProxy(Proxy):
    """A proxy in front of one Redis or Valkey server; use it with ``async with``."""

    @property
    def url(self) -> str:
        """The address as a client takes it."""
        return f"redis://{self.address}/0"

    def connection(self, reader: StreamReader, writer: StreamWriter) -> Connection:
        """Return what carries the messages of a client that has connected."""
        return _Connection(self, reader, writer)


class _Connection(Connection):
    """One connection; the answers come in the order of the commands."""

    def __init__(self, proxy: RedisProxy, reader: StreamReader, writer: StreamWriter) -> None:
        super().__init__(reader, writer)
        self._proxy = proxy
        self._awaited: deque[Fault | None] = deque()
        self._stalled = False

    async def carry_requests(self, reader: StreamReader, server: StreamWriter) -> None:
        """Carry what the client says until the connection is to be lost."""
        while True:
            message = await _read_message(reader)
            name = message.split(b"\r\n", 3)[2].decode(errors="replace").upper()
            fault = None if name in NOT_COUNTED else self._proxy.befalls(name)
            if fault is Fault.CUT_BEFORE:
                return
            self._stalled |= fault is Fault.STALL
            if self._stalled:
                continue
            await self._proxy.passing()
            self._awaited.append(fault)
            server.write(message)
            await server.drain()

    async def carry_answers(self, server: StreamReader, writer: StreamWriter) -> None:
        """Carry what the server says until the connection is to be lost."""
        withheld = False
        while True:
            message = await _read_message(server)
            fault = self._awaited.popleft() if self._awaited else None
            if fault is Fault.CUT_AFTER:
                return
            withheld |= fault is Fault.STALL_AFTER
            if not withheld:
                await self._proxy.passing()
                writer.write(message)
                await writer.drain()


async def _read_message(reader: StreamReader) -> bytes:
    line = await reader.readuntil(b"\r\n")
    kind, length = line[:1], line[1:-2]
    if kind == b"$" and length != b"-1":
        return line + await reader.readexactly(int(length) + 2)
    if kind == b"*" and length != b"-1":
        return line + b"".join([await _read_message(reader) for _ in range(int(length))])
    return line
