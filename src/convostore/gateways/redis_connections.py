"""Connections to Redis: made by address, raw replies, no retries and no time-outs of their own."""

from collections.abc import Callable, Mapping
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from convostore.gateways.redis_address import RedisAddress
from convostore.gateways.redis_cluster import ClusterWire
from convostore.gateways.redis_wire import SingleWire, Wire, drop

# The gateway bounds each call as a whole, which costs less than at each step, and knows what may be repeated.
_QUIET: Mapping[str, Any] = {
    "socket_timeout": None,
    "socket_connect_timeout": None,
    "protocol": 2,
    "driver_info": None,
}


def open_wire(address: RedisAddress, size: int) -> Wire:
    """Return the wire to an address; the first call connects.

    Args:
        address: where the servers are.
        size: connections at most, to each server.
    """
    if address.is_cluster:
        return ClusterWire(address.hosts, _maker_by_host(address), size)
    return SingleWire(_primary_maker(address) if address.has_sentinels else _maker(address), size)


def _maker(address: RedisAddress) -> Callable[[], Connection]:
    options = {**address.options, **_QUIET}
    cls: type[Connection] = options.pop("connection_class", Connection)
    return lambda: cls(**options)


def _maker_by_host(address: RedisAddress) -> Callable[[str, int], Connection]:
    cls = SSLConnection if address.encrypted else Connection
    options = {**address.options, **_QUIET}
    return lambda host, port: cls(host=host, port=port, **options)


def _primary_maker(address: RedisAddress) -> Callable[[], Connection]:
    cls = SSLConnection if address.encrypted else Connection
    finder = _PrimaryFinder(address, cls)

    class PrimaryConnection(cls):  # type: ignore[misc, valid-type]
        """A connection to whatever server the Sentinels call the primary when it is opened."""

        async def connect(self) -> None:
            """Ask the Sentinels, then connect."""
            self.host, self.port = await finder.find()
            await super().connect()

    options = {**address.options, **_QUIET}
    return lambda: PrimaryConnection(**options)


class _PrimaryFinder:
    """Asks Sentinels where the primary is, first the one that answered last.

    https://redis.io/docs/latest/develop/reference/sentinel-clients/
    """

    def __init__(self, address: RedisAddress, cls: type[Connection]) -> None:
        self._service = address.service
        self._cls = cls
        self._sentinels = list(address.hosts)

    async def find(self) -> tuple[str, int]:
        """Return host and port of the primary.

        Raises:
            RedisError: no Sentinel answers, or none knows it.
        """
        failure: Exception = RedisConnectionError("no Sentinel knows the service")
        for sentinel in list(self._sentinels):
            try:
                found = await self._ask(*sentinel)
            except (RedisError, OSError) as error:
                failure = error
                found = None
            except BaseException:
                self._put_last(sentinel)  # whoever waited for it to the end of his patience: the next asks another
                raise
            if found:
                return found
            self._put_last(sentinel)
        raise failure

    async def _ask(self, host: str, port: int) -> tuple[str, int] | None:
        connection = self._cls(host=host, port=port, **_QUIET)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service, check_health=False)
            reply = await connection.read_response(disconnect_on_error=False)
        finally:
            await drop(connection)
        return (reply[0].decode(), int(reply[1])) if reply else None

    def _put_last(self, sentinel: tuple[str, int]) -> None:
        self._sentinels.remove(sentinel)
        self._sentinels.append(sentinel)
