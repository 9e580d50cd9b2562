"""The two kinds of local servers: a replica set with one mongod, a Valkey or Redis."""

import re
import socket
from typing import ClassVar

from convostore.database.child_server import HOST, ChildServer, PortTakenError
from convostore.gateways.server_probe import initiate_replica_set, is_writable_primary, mongod_process_id

__all__ = ["MongodServer", "ValkeyServer"]

REPLICA_SET = "convostore"
ANSWER_SECONDS = 5.0
ANSWER_BYTES = 65536


class MongodServer(ChildServer):
    """A mongod that is a replica set of its own, so that transactions and change streams work."""

    name = "mongod"
    database_type = "MongoDB"
    cache_gigabytes: ClassVar[str] = "0.5"
    oplog_megabytes: ClassVar[str] = "256"

    @property
    def uri(self) -> str:
        """The connection string."""
        return f"mongodb://{HOST}:{self.port}/?replicaSet={REPLICA_SET}"

    def command(self) -> list[str]:
        """Return the command line; only throw-away servers accept fail points."""
        parameters = ["diagnosticDataCollectionEnabled=false"]
        if self.throw_away:
            parameters.append("enableTestCommands=1")
        return [
            *(str(self.program), "--quiet", "--dbpath", str(self.data), "--replSet", REPLICA_SET),
            *("--bind_ip", HOST, "--port", str(self.port), "--nounixsocket"),
            *("--wiredTigerCacheSizeGB", self.cache_gigabytes, "--oplogSize", self.oplog_megabytes),
            # What a client that dies in a unit of work leaves open blocks others for that long, by default a minute.
            *("--setParameter", "transactionLifetimeLimitSeconds=10"),
            *(word for parameter in parameters for word in ("--setParameter", parameter)),
        ]

    def is_ready(self) -> bool:
        """Found the replica set where needed and tell whether this is its primary."""
        return (
            self.answers()
            and initiate_replica_set(HOST, self.port, REPLICA_SET)
            and is_writable_primary(HOST, self.port)
        )

    def answers(self) -> bool:
        """Tell whether the server answers, be it of a replica set already or not.

        Raises:
            PortTakenError: a server that is not this child answers on the port.
        """
        if not _listens(self.port):
            return False
        pid = mongod_process_id(HOST, self.port)
        if pid not in (None, self.pid):
            raise PortTakenError
        return pid is not None


class ValkeyServer(ChildServer):
    """A valkey-server or redis-server, which writes its data to disk unless it is thrown away."""

    name = "valkey"
    database_type = "Redis"

    @property
    def url(self) -> str:
        """The address of database 0."""
        return f"redis://{HOST}:{self.port}/0"

    def command(self) -> list[str]:
        """Return the command line."""
        return [
            *(str(self.program), "--bind", HOST, "--port", str(self.port), "--dir", str(self.data)),
            *("--save", "", "--appendonly", "no" if self.throw_away else "yes"),
            *("--daemonize", "no", "--protected-mode", "yes", "--set-proc-title", "no"),
        ]

    def is_ready(self) -> bool:
        """Tell whether the server has loaded its data."""
        try:
            with socket.create_connection((HOST, self.port), ANSWER_SECONDS) as connection:
                return self._answers(connection)
        except OSError:
            return False

    def _answers(self, connection: socket.socket) -> bool:
        connection.sendall(b"INFO server\r\n")
        pid = re.search(rb"process_id:(\d+)", connection.recv(ANSWER_BYTES))
        if pid and int(pid[1]) != self.pid:
            raise PortTakenError
        connection.sendall(b"PING\r\n")
        return pid is not None and b"+PONG" in connection.recv(ANSWER_BYTES)


def _listens(port: int) -> bool:
    # Cheaper than to let the driver try, and it tries again only after half a second.
    try:
        socket.create_connection((HOST, port), ANSWER_SECONDS).close()
    except OSError:
        return False
    return True
