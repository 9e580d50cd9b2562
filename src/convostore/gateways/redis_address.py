"""Addresses of Redis and Valkey: one server, a group behind Sentinels, or a cluster."""

from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url

from convostore.repositories.exceptions import ValidationError

SINGLE = ("redis", "rediss", "unix")
SENTINEL = ("redis+sentinel", "rediss+sentinel")
CLUSTER = ("redis+cluster", "rediss+cluster")
DEFAULT_PORTS = {"sentinel": 26379, "cluster": 6379}
_PARAMETERS = ("db", "username", "password", "client_name", "ssl_")  # the gateway decides over all others


@dataclass(frozen=True)
class RedisAddress:
    """Where the servers are.

    ``redis://[user:password@]host:port/database`` (``rediss`` with TLS, ``unix:///path?db=…``) is one server, with
    the driver's parameters for TLS behind a question mark (``ssl_ca_certs``);
    ``redis+sentinel://[user:password@]host,host:port/service/database`` is what Sentinels call ``service``;
    ``redis+cluster://[user:password@]host:port,host:port`` is a cluster.

    Attributes:
        scheme: which of these.
        hosts: host and port of each; none for a single server, whose ``options`` hold them.
        service: what the Sentinels call the group.
        options: what the driver's connection takes; may hold a password, so it is not shown.
    """

    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    options: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the address of a text.

        Raises:
            ValidationError: it is none; the message never quotes it.
        """
        try:
            scheme, _, rest = text.partition("://")
            if scheme.lower() in SINGLE:
                return cls(scheme.lower(), options=_single(text))
            if scheme.lower() in SENTINEL + CLUSTER:
                return cls(*_several(scheme.lower(), rest))
        except (ValueError, TypeError, IndexError, AttributeError):
            pass
        known = ", ".join(f"{each}://" for each in SINGLE + SENTINEL + CLUSTER)
        raise ValidationError(f"redis_url: not a valid Redis address; it begins with one of {known}", "redis_url")

    @property
    def is_cluster(self) -> bool:
        """Whether it is a cluster."""
        return self.scheme in CLUSTER

    @property
    def has_sentinels(self) -> bool:
        """Whether Sentinels are asked where the server is."""
        return self.scheme in SENTINEL

    @property
    def encrypted(self) -> bool:
        """Whether the connection uses TLS."""
        return self.scheme.startswith("rediss") or self.options.get("connection_class") is SSLConnection

    @property
    def is_local_socket(self) -> bool:
        """Whether it is a path of this machine."""
        return self.options.get("connection_class") is UnixDomainSocketConnection


def _single(text: str) -> dict[str, Any]:
    parts = urlsplit(text)
    options: dict[str, Any] = dict(parse_url(text))
    if any(not name.startswith(_PARAMETERS) for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise ValueError("a parameter that is not taken")
    if parts.fragment or (parts.scheme != "unix" and parts.path.strip("/") and not parts.path[1:].isdecimal()):
        raise ValueError("a database without a number")  # the driver would take the first one
    return {**options, "db": int(options.get("db", 0))}


def _several(scheme: str, rest: str) -> tuple[str, tuple[tuple[str, int], ...], str, dict[str, Any]]:
    # Not by ``urlsplit``: since CVE-2024-11168 it refuses a bracketed host that is not the only one.
    if "?" in rest or "#" in rest:
        raise ValueError("parameters are not taken")
    place, _, tail = rest.partition("/")
    credentials, _, netloc = place.rpartition("@")
    kind = scheme.partition("+")[2]
    hosts = tuple(_host(each, DEFAULT_PORTS[kind]) for each in netloc.split(","))
    path = [unquote(part) for part in tail.split("/") if part]
    options = _credentials(credentials)
    if kind == "cluster":
        if path:
            raise ValueError("a cluster has one database")
        return scheme, hosts, "", options
    service, database = (*path, "0") if len(path) == 1 else path
    return scheme, hosts, service, {**options, "db": int(database)}


def _credentials(text: str) -> dict[str, Any]:
    user, _, password = text.partition(":")
    return {name: unquote(value) for name, value in (("username", user), ("password", password)) if value}


def _host(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a host without a name")
    return parts.hostname, parts.port or port
