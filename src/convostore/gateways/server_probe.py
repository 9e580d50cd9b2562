"""Bring a mongod that has just been started to the state of a writable primary."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

__all__ = ["direct_client", "initiate_replica_set", "is_writable_primary", "mongod_process_id"]

NOT_YET_INITIALIZED = 94
ANSWER_MILLISECONDS = 5000


@contextmanager
def direct_client(
    host: str, port: int, milliseconds: int = ANSWER_MILLISECONDS
) -> Iterator[MongoClient[dict[str, Any]]]:
    """Open a client of one server, whatever set it is of; for the other probes only."""
    client: MongoClient[dict[str, Any]] = MongoClient(
        host,
        port,
        directConnection=True,
        connectTimeoutMS=milliseconds,
        socketTimeoutMS=milliseconds,
        serverSelectionTimeoutMS=milliseconds,
    )
    with client:
        yield client


def mongod_process_id(host: str, port: int) -> int | None:
    """Return the process id of the server that answers on an address.

    Args:
        host: a name or an IP address.
        port: the port.

    Returns:
        The process id, or None when no mongod answers there.
    """
    try:
        with direct_client(host, port) as client:
            return int(client.admin.command("serverStatus")["pid"])
    except PyMongoError:
        return None


def is_writable_primary(host: str, port: int) -> bool:
    """Tell whether the server on an address accepts writes.

    Args:
        host: a name or an IP address.
        port: the port.

    Returns:
        True for a writable primary; False for everything else, an absent server included.
    """
    try:
        with direct_client(host, port) as client:
            return bool(client.admin.command("hello")["isWritablePrimary"])
    except PyMongoError:
        return False


def initiate_replica_set(host: str, port: int, name: str) -> bool:
    """Make the server on an address the only member of its replica set.

    A server that comes back with its data on another port is no member of the set that it remembers; it is
    given a configuration with its new address.

    Args:
        host: a name or an IP address, as the clients are to use it.
        port: the port.
        name: the name of the set, the same that mongod was started with.

    Returns:
        True when the configuration is in place, False when the server cannot take it yet.
    """
    try:
        with direct_client(host, port) as client:
            _put_in_place(client, f"{host}:{port}", name)
    except PyMongoError:
        return False
    return True


def _put_in_place(client: MongoClient[dict[str, Any]], address: str, name: str) -> None:
    members = [{"_id": 0, "host": address}]
    stored = _stored_configuration(client)
    if stored is None:
        settings = {"electionTimeoutMillis": 500}
        client.admin.command("replSetInitiate", {"_id": name, "members": members, "settings": settings})
    elif [member["host"] for member in stored["members"]] != [address]:
        stored |= {"members": members, "version": stored["version"] + 1}
        client.admin.command("replSetReconfig", stored, force=True)


def _stored_configuration(client: MongoClient[dict[str, Any]]) -> dict[str, Any] | None:
    try:
        configuration: dict[str, Any] = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code == NOT_YET_INITIALIZED:
            return None
        raise
    return configuration
