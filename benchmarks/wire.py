"""What the server and the wire take by themselves: the same commands over a blocking socket, nothing in between.

Run it with ``python -m benchmarks.wire``. No client can be faster than that with one command at a time; where the time
of a client's operation comes near to it, what is left to gain lies in the server. Each line tells microseconds for an
operation: of one command for each, and of one command for 64 of them.
"""

import asyncio
import itertools
import socket
import statistics
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import bson

from benchmarks.repositories import CONVERSATIONS, READ, Workload
from convostore import ConvoStore, MongoSettings
from convostore.database.local_servers import LocalServers
from convostore.models.types import utc_now

TOGETHER = 64
ROUNDS = 9
COMMANDS = 20
_HEADER = struct.Struct("<iiii")
_MESSAGE = 2013
Command = dict[str, Any]
_MAJORITY = {"writeConcern": {"w": "majority"}}


class Wire:
    """A blocking socket to a server.

    Args:
        address: of the server, ``mongodb://host:port/…``.
        database: where commands act.
    """

    def __init__(self, address: str, database: str) -> None:
        parts = urlsplit(address)
        self._socket = socket.create_connection((str(parts.hostname), int(parts.port or 27017)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._database = database
        self._numbers = itertools.count(1)

    def message(self, command: Command) -> bytes:
        """Return a command as it goes over the wire."""
        body = b"\0\0\0\0\0" + bson.encode({**command, "$db": self._database})
        return _HEADER.pack(_HEADER.size + len(body), next(self._numbers), 0, _MESSAGE) + body

    def exchange(self, message: bytes) -> bytes:
        """Send a message and return the answer, undecoded."""
        self._socket.sendall(message)
        (length,) = struct.unpack("<i", self._exactly(4))
        return self._exactly(length - 4)

    def _exactly(self, count: int) -> bytes:
        parts = bytearray(count)
        view = memoryview(parts)
        while view:
            view = view[self._socket.recv_into(view) :]
        return bytes(parts)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Work(NamedTuple):
    """A piece of work.

    Attributes:
        name: what it is.
        command: makes a command for so many operations.
    """

    name: str
    command: Callable[[int], Command]


def works(tenant_id: str) -> Iterator[Work]:
    """Return the work, on the documents of the benchmark's own tenant."""
    numbers = itertools.count()

    def identities(count: int) -> list[str]:
        return [f"{tenant_id}:c-{next(numbers) % CONVERSATIONS:06d}" for _ in range(count)]

    def update(count: int) -> Command:
        change = {"$set": {"title": "A talk that goes on", "updated_at": utc_now()}, "$inc": {"version": 1}}
        query = {"tenant_id": tenant_id, "version": {"$gte": 1}}
        statements = [{"q": {"_id": each, **query}, "u": change} for each in identities(count)]
        return {"update": "conversations", "updates": statements, "ordered": False, **_MAJORITY}

    def insert(count: int) -> Command:
        body = {"tenant_id": tenant_id, "sequence": 1, "role": "user", "content": "x" * 90, "created_at": utc_now()}
        documents = [{"_id": f"{tenant_id}:w-{uuid.uuid4().hex}:1", "version": 1, **body} for _ in range(count)]
        return {"insert": "messages", "documents": documents, "ordered": False, **_MAJORITY}

    def newest(count: int) -> Command:
        bounds = {"$gte": f"{tenant_id}:{READ}:", "$lt": f"{tenant_id}:{READ};"}
        if count == 1:
            query = {"filter": {"_id": bounds}, "sort": {"_id": -1}, "limit": 51, "batchSize": 52}
            return {"find": "messages", **query}
        stages = [{"$match": {"_id": bounds}}, {"$sort": {"_id": -1}}, {"$limit": 51}]
        unions = [{"$unionWith": {"coll": "messages", "pipeline": stages}} for _ in range(count - 1)]
        return {"aggregate": "messages", "pipeline": [*stages, *unions], "cursor": {"batchSize": 100_000}}

    yield Work(
        "get by id",
        lambda count: {"find": "conversations", "filter": {"_id": {"$in": identities(count)}}, "batchSize": 1000},
    )
    yield Work("guarded update", update)
    yield Work("append", insert)
    yield Work("newest 50", newest)


def measure(wire: Wire, work: Work, together: int) -> float:
    """Return the median of the microseconds that an operation takes."""
    times = []
    for _ in range(ROUNDS):
        messages = [wire.message(work.command(together)) for _ in range(COMMANDS)]
        started = time.perf_counter()
        for message in messages:
            wire.exchange(message)
        times.append((time.perf_counter() - started) / COMMANDS / together * 1e6)
    return statistics.median(times)


async def main() -> None:
    """Prepare the documents, measure, print."""
    async with await LocalServers.acquire() as servers:
        settings = MongoSettings(mongodb_uri=servers.addresses.mongodb_uri, database_name="wire")
        async with ConvoStore.open(settings) as store:
            await Workload(store).prepare()
            await asyncio.to_thread(_print_all, Wire(servers.addresses.mongodb_uri, "wire"))


def _print_all(wire: Wire) -> None:
    try:
        print(f"{'microseconds for an operation':32}{'one':>8}{TOGETHER:>8}")
        for work in works("bench"):
            print(f"{work.name:32}{measure(wire, work, 1):8.0f}{measure(wire, work, TOGETHER):8.0f}")
    finally:
        wire.close()


if __name__ == "__main__":
    asyncio.run(main())
