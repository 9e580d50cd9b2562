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

import struct
from asyncio import StreamReader, StreamWriter

from convostore.testing.proxy import Connection, Fault, Proxy, Rule

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


class MongoProxy(Proxy):
    """A proxy in front of one MongoDB server; use it with ``async with``."""

    @property
    def uri(self) -> str:
        """The address as a client takes it."""
        return f"mongodb://{self.address}/?directConnection=true"

    def told(self, name: str | None, answer: bytes) -> bytes:  # noqa: ARG002 - for those who tell something else
        """Return the answer to a command (None: the first handshake) as the client is to see it."""
        return answer

    def connection(self, reader: StreamReader, writer: StreamWriter) -> Connection:
        """Return what carries the messages of a client that has connected."""
        return _Connection(self, reader, writer)


class _Connection(Connection):
    """One connection, with one command at a time."""

    def __init__(self, proxy: MongoProxy, reader: StreamReader, writer: StreamWriter) -> None:
        super().__init__(reader, writer)
        self._proxy = proxy
        self._withhold: Fault | None = None
        self._name: str | None = None

    async def carry_requests(self, reader: StreamReader, server: StreamWriter) -> None:
        """Carry what the client says until the connection is to be lost."""
        while True:
            message = await _read_message(reader)
            name = command_name(message)
            fault = self._proxy.befalls(name) if name and name.lower() not in NOT_COUNTED else None
            if fault is Fault.CUT_BEFORE:
                return
            if fault is Fault.STALL:
                continue
            self._withhold, self._name = fault, name
            await self._proxy.passing()
            server.write(message)
            await server.drain()

    async def carry_answers(self, server: StreamReader, writer: StreamWriter) -> None:
        """Carry what the server says until the connection is to be lost."""
        while True:
            message = await _read_message(server)
            if self._withhold is Fault.CUT_AFTER:
                return
            if self._withhold is Fault.STALL_AFTER:
                continue
            await self._proxy.passing()
            writer.write(self._proxy.told(self._name, message))
            await writer.drain()


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
