"""A proxy between servers of one group, which knows who connects and holds up what comes from some of them."""

import asyncio
import os
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from convostore.testing.proxy import Connection, Proxy

__all__ = ["PeerProxy", "owners_of_ports"]

_CHUNK = 65536
_TABLE = Path("/proc/net/tcp")


class PeerProxy(Proxy):
    """A proxy in front of one server of a group; use it with ``async with``.

    Args:
        host: of the server.
        port: of the server.
        sources: says which server of the group connects from which port at this moment.
    """

    def __init__(self, host: str, port: int, sources: Callable[[], Mapping[int, int]]) -> None:
        super().__init__(host, port)
        self._sources = sources
        self._known: Mapping[int, int] = {}
        self._held: dict[int, asyncio.Event] = {}

    def hold(self, source: int) -> None:
        """Let nothing pass, either way, on connections that a server of the group has made to this one."""
        self._known = {}  # ports are used again
        self._held[source] = asyncio.Event()

    def release(self, source: int) -> None:
        """Let pass what was held up, and all that follows."""
        self._held.pop(source).set()

    async def passing_from(self, port: int) -> None:
        """Wait for as long as whoever connects from a port is held up."""
        # To look is not cheap, and servers that have lost each other connect again and again.
        while self._held and (gate := self._held.get(self._source(port))):
            await gate.wait()

    def _source(self, port: int) -> int:
        if port not in self._known:
            self._known = {port: -1, **self._sources()}
        return self._known[port]

    def connection(self, reader: StreamReader, writer: StreamWriter) -> Connection:
        """Return what carries the bytes of a server that has connected."""
        return _Connection(self, reader, writer)


class _Connection(Connection):
    """One connection, whose messages are of no interest."""

    def __init__(self, proxy: PeerProxy, reader: StreamReader, writer: StreamWriter) -> None:
        super().__init__(reader, writer)
        self._proxy = proxy
        self._port: int = writer.get_extra_info("peername")[1]

    async def carry_requests(self, reader: StreamReader, server: StreamWriter) -> None:
        """Carry what the one who connected says."""
        await self._carry(reader, server)

    async def carry_answers(self, server: StreamReader, writer: StreamWriter) -> None:
        """Carry what the server says."""
        await self._carry(server, writer)

    async def _carry(self, source: StreamReader, target: StreamWriter) -> None:
        while chunk := await source.read(_CHUNK):
            await self._proxy.passing_from(self._port)
            target.write(chunk)
            await target.drain()


def owners_of_ports(pids: Iterable[int]) -> dict[int, int]:
    """Return which of some processes of this user has a connection from which port; nothing where Linux is not.

    Args:
        pids: the processes to look at.
    """
    ports = _ports_by_socket()
    return {ports[file]: pid for pid in pids for file in _open_files(pid) if file in ports}


# proc(5): https://man7.org/linux/man-pages/man5/proc_pid_net.5.html
def _ports_by_socket() -> dict[str, int]:
    with suppress(OSError):
        rows = [line.split() for line in _TABLE.read_text(encoding="ascii").splitlines()[1:]]
        return {f"socket:[{row[9]}]": int(row[1].partition(":")[2], 16) for row in rows if row[9] != "0"}
    return {}


def _open_files(pid: int) -> list[str]:
    found = []
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found.append(os.readlink(entry.path))  # noqa: PTH115 - ten times as fast as pathlib's
    return found
