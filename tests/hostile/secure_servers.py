"""Servers that ask for a password and speak TLS only, with certificates of an authority of the test's own."""

import asyncio
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from convostore.database.child_server import free_ports
from convostore.database.server_binaries import ServerBinaries
from convostore.testing.redis_servers import RedisServer

HOST = "127.0.0.1"
PASSWORD = "pl4nted-p@ss:word/1"  # noqa: S105 - looked for wherever it must not be
QUOTED = "pl4nted-p%40ss%3Aword%2F1"
READY_SECONDS = 30.0


@dataclass(frozen=True)
class Certificates:
    """Files: of the authority, of another that nobody trusts, and of servers for this host and for another."""

    authority: Path
    stranger: Path
    server: Path
    elsewhere: Path

    @classmethod
    def made_in(cls, directory: Path) -> "Certificates":
        """Write the files."""
        made = cls(*(directory / f"{name}.pem" for name in ("authority", "stranger", "server", "elsewhere")))
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(made.authority))
        trustme.CA().cert_pem.write_to_path(str(made.stranger))
        for path, host in ((made.server, HOST), (made.elsewhere, "elsewhere.example")):
            authority.issue_cert(host).private_key_and_cert_chain_pem.write_to_path(str(path))
        return made


def mongodb_uri(port: int, certificates: Certificates, **changed: str) -> str:
    """Return the address of a secured mongod, right unless something is changed."""
    password, authority = changed.get("password", QUOTED), changed.get("authority", certificates.authority)
    return f"mongodb://app:{password}@{HOST}:{port}/?directConnection=true&tls=true&tlsCAFile={authority}"


def redis_url(port: int, certificates: Certificates, **changed: str) -> str:
    """Return the address of a secured Valkey, right unless something is changed."""
    password, authority = changed.get("password", QUOTED), changed.get("authority", certificates.authority)
    return f"rediss://app:{password}@{HOST}:{port}/0?ssl_ca_certs={authority}"


@contextmanager
def secured_mongod(directory: Path, certificates: Certificates) -> Iterator[int]:
    """Run a mongod with a user of its own; yields its port."""
    (port,) = free_ports(1)
    key, data = directory / "members.key", directory / "data"
    data.mkdir()
    key.write_text("0123456789abcdef" * 4)
    key.chmod(0o600)
    tls = ("--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(certificates.server))
    command = [
        *(str(ServerBinaries.find().mongod), "--quiet", "--dbpath", str(data), "--port", str(port), "--bind_ip", HOST),
        *("--nounixsocket", "--replSet", "secured", "--keyFile", str(key), *tls),
        *("--tlsCAFile", str(certificates.authority), "--tlsAllowConnectionsWithoutCertificates"),
        *("--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64", "--setParameter", "enableTestCommands=1"),
    ]
    with (directory / "mongod.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        _create_user(port, certificates)
        yield port
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _create_user(port: int, certificates: Certificates) -> None:
    deadline = time.monotonic() + READY_SECONDS
    options: dict[str, Any] = {"directConnection": True, "tls": True, "tlsCAFile": str(certificates.authority)}
    with MongoClient(HOST, port, serverSelectionTimeoutMS=int(1000 * READY_SECONDS), **options) as client:
        member = {"_id": 0, "host": f"{HOST}:{port}"}
        client.admin.command("replSetInitiate", {"_id": "secured", "members": [member]})
        while True:
            try:
                client.admin.command("createUser", "app", pwd=PASSWORD, roles=["root"])
            except PyMongoError:  # not elected yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return


@contextmanager
def secured_redis(certificates: Certificates, kind: str = "valkey", certificate: Path | None = None) -> Iterator[int]:
    """Run a server with a user of its own; yields the port where it speaks TLS.

    The wheel's Valkey was built without TLS, so something in front of it speaks that; Debian's Redis does itself.
    """
    certificate = certificate or certificates.server
    (port,) = free_ports(1)
    files = {"tls_cert_file": certificate, "tls_key_file": certificate, "tls_ca_cert_file": certificates.authority}
    options = {name: str(path) for name, path in files.items()} | {"tls_port": str(port), "tls_auth_clients": "no"}
    with RedisServer(kind, requirepass="of nobody's", **(options if kind == "redis" else {})) as server:
        server.ask("ACL", "SETUSER", "app", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        if kind == "redis":
            yield port
        else:
            with _encrypting(certificate, server.port) as port:
                yield port


@contextmanager
def _encrypting(certificate: Path, behind: int) -> Iterator[int]:
    """Speak TLS in front of a port of this host, in a thread of its own; yields the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(HOST, behind)
        await asyncio.gather(carry(reader, inner_writer), carry(inner_reader, writer))

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    starting = asyncio.start_server(serve, HOST, 0, ssl=context)
    server = asyncio.run_coroutine_threadsafe(starting, loop).result(10)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
