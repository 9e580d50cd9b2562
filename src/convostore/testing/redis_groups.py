"""Groups of Redis or Valkey servers of one's own: a cluster, and a primary with a replica that Sentinels watch.

Redis cluster specification: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
Redis Sentinel: https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from convostore.database.child_server import HOST
from convostore.repositories.exceptions import LocalServerError
from convostore.testing.redis_servers import RedisServer

__all__ = ["LocalCluster", "LocalSentinels"]

SLOTS = 16_384
READY_SECONDS = 30.0
POLL_SECONDS = 0.02
BUS = 10_000  # the bus port is so far above the other
NODE_TIMEOUT = 1_000  # milliseconds until the others take a server for gone


class _Group:
    """Servers that end together."""

    def __init__(self) -> None:
        self._ends = ExitStack()

    def start(self) -> Self:
        """Start the group and wait until it can be used.

        Raises:
            LocalServerError: it does not come up; all of it is stopped.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """End all servers and remove what they have written."""
        self._ends.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class LocalCluster(_Group):
    """A cluster of primaries without replicas, which share the slots evenly; ready in about a second.

    While one of them is away the others go on with their slots.

    Args:
        kind: ``valkey`` or ``redis``.
        size: how many.

    Attributes:
        servers: the servers, in the order of their slots.
    """

    def __init__(self, kind: str = "valkey", size: int = 3) -> None:
        super().__init__()
        options = {
            "cluster_enabled": "yes",
            "cluster_node_timeout": str(NODE_TIMEOUT),
            "cluster_require_full_coverage": "no",
        }
        self.servers = [RedisServer(kind, **options) for _ in range(size)]

    @property
    def url(self) -> str:
        """The address of the cluster."""
        return f"redis+cluster://{','.join(server.address for server in self.servers)}"

    def _start(self) -> None:
        for server in self.servers:
            self._ends.enter_context(server)
        for index, server in enumerate(self.servers):
            low, high = (SLOTS * edge // len(self.servers) for edge in (index, index + 1))
            _must(server, "CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            _must(server, "CLUSTER", "ADDSLOTSRANGE", low, high - 1)
            _must(server, "CLUSTER", "MEET", HOST, self.servers[0].port, self.servers[0].port + BUS)
        _wait("the cluster", lambda: all(self._is_whole(server) for server in self.servers))

    def _is_whole(self, server: RedisServer) -> bool:
        info = server.ask("CLUSTER", "INFO")
        known = f"cluster_known_nodes:{len(self.servers)}\r"
        return "cluster_state:ok" in info and known in info and f"cluster_slots_ok:{SLOTS}" in info

    def move_slot(self, slot: int, source: int, target: int) -> None:
        """Give a slot with all its keys from one server to another, as an operator does while clients go on.

        Args:
            slot: the slot.
            source: index of the server that has it.
            target: index of the server that gets it.
        """
        giver, taker = self.servers[source], self.servers[target]
        names = {server: server.ask("CLUSTER", "MYID") for server in self.servers}
        _must(taker, "CLUSTER", "SETSLOT", slot, "IMPORTING", names[giver])
        _must(giver, "CLUSTER", "SETSLOT", slot, "MIGRATING", names[taker])
        for key in giver.ask_list("CLUSTER", "GETKEYSINSLOT", slot, 100_000):
            _must(giver, "MIGRATE", HOST, taker.port, key, 0, 5_000)
        for server in (taker, giver, *self.servers):
            _must(server, "CLUSTER", "SETSLOT", slot, "NODE", names[taker])


class LocalSentinels(_Group):
    """A primary with a replica, watched by Sentinels, which make the replica the primary when the other is away.

    Args:
        kind: ``valkey`` or ``redis``.
        sentinels: how many; more than half must agree.
        down_after: milliseconds without an answer until a server counts as away.

    Attributes:
        service: what the Sentinels call the group.
        servers: the first is the primary at the start.
        sentinels: the Sentinels.
    """

    service = "conversations"

    def __init__(self, kind: str = "valkey", sentinels: int = 3, down_after: int = 500) -> None:
        super().__init__()
        self.servers = [RedisServer(kind, repl_diskless_sync_delay="0"), RedisServer(kind)]
        self.sentinels: list[RedisServer] = []
        self._kind, self._count, self._down_after = kind, sentinels, down_after

    @property
    def url(self) -> str:
        """The address of database 0 of the group's primary."""
        return f"redis+sentinel://{','.join(each.address for each in self.sentinels)}/{self.service}/0"

    @property
    def primary(self) -> RedisServer:
        """The server that is the primary now, as the first Sentinel knows it."""
        port = self.sentinels[0].ask_list("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)[1]
        return next(server for server in self.servers if server.port == int(port))

    def _start(self) -> None:
        primary, replica = [self._ends.enter_context(server) for server in self.servers]
        _must(replica, "REPLICAOF", HOST, primary.port)
        _wait("the replica", lambda: "master_link_status:up" in replica.ask("INFO", "replication"))
        folder = Path(self._ends.enter_context(tempfile.TemporaryDirectory()))
        for index in range(self._count):
            self.sentinels.append(self._ends.enter_context(self._sentinel(folder / f"{index}.conf")))
        seen = f"slaves=1,sentinels={self._count}"
        _wait("Sentinels", lambda: all(seen in each.ask("INFO", "sentinel") for each in self.sentinels))

    def _sentinel(self, file: Path) -> RedisServer:
        lines = [
            f"sentinel monitor {self.service} {HOST} {self.servers[0].port} {self._count // 2 + 1}",
            f"sentinel down-after-milliseconds {self.service} {self._down_after}",
            f"sentinel failover-timeout {self.service} 5000",
        ]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return RedisServer(self._kind, str(file), "--sentinel")


def _must(server: RedisServer, *words: str | int) -> None:
    reply = server.ask(*words)
    if reply.startswith("-"):
        raise LocalServerError("Redis", message=f"{' '.join(map(str, words[:2]))} failed: {reply}")


def _wait(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise LocalServerError("Redis", message=f"{what} did not come up within {READY_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
