"""What one member of a replica set is told past every client: to found the set, to step down, to fail."""

from collections.abc import Mapping, Sequence
from typing import Any

from pymongo.errors import AutoReconnect, PyMongoError

from convostore.gateways.server_probe import direct_client

__all__ = ["found_replica_set", "has_sync_source", "is_primary", "set_fail_point", "step_down"]


def found_replica_set(host: str, port: int, name: str, members: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Make servers a replica set.

    Args:
        host: of one of them.
        port: of the same.
        name: of the set, with which all were started.
        members: their addresses, as they are to reach each other.
        settings: of the set, such as ``electionTimeoutMillis``.

    Raises:
        PyMongoError: it refuses.
    """
    listed = [{"_id": number, "host": address} for number, address in enumerate(members)]
    with direct_client(host, port) as client:
        client.admin.command("replSetInitiate", {"_id": name, "members": listed, "settings": dict(settings)})


def is_primary(host: str, port: int) -> bool:
    """Tell whether the server on an address takes itself for the primary; False when it does not answer."""
    try:
        with direct_client(host, port, milliseconds=500) as client:
            return bool(client.admin.command("hello")["isWritablePrimary"])
    except PyMongoError:
        return False


def has_sync_source(host: str, port: int) -> bool:
    """Tell whether a member is a secondary that fetches from another; False when it does not answer."""
    try:
        with direct_client(host, port) as client:
            status = client.admin.command("replSetGetStatus")
    except PyMongoError:
        return False
    return status["myState"] == 2 and bool(status.get("syncSourceHost"))  # noqa: PLR2004 - SECONDARY


def step_down(host: str, port: int, seconds: int) -> bool:
    """Let the primary give up its office for some seconds; say whether it did."""
    try:
        with direct_client(host, port) as client:
            client.admin.command("replSetStepDown", seconds, secondaryCatchUpPeriodSecs=1, force=True)
    except AutoReconnect:
        return True
    except PyMongoError:
        return False
    return True


def set_fail_point(host: str, port: int, mode: Mapping[str, Any] | str, data: Mapping[str, Any]) -> None:
    """Arm or disarm the fail point ``failCommand`` of a server that takes test commands.

    Args:
        host: of the server.
        port: of the server.
        mode: such as ``{"times": 3}``, ``{"activationProbability": 0.1}``, ``"alwaysOn"``, ``"off"``.
        data: such as ``{"failCommands": ["insert"], "closeConnection": True}``.

    Raises:
        PyMongoError: it refuses.
    """
    with direct_client(host, port) as client:
        client.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": dict(data)})
