"""Settings: where the servers are, how patiently they are asked."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr

from convostore.models.document import Value
from convostore.repositories.exceptions import ValidationError

PREFIX = "CONVOSTORE_"
LOCAL_SESSION_KEY = "no secret: sessions of servers for trying out"
Seconds = Annotated[float, Field(gt=0, le=3600, strict=False)]
Count = Annotated[int, Field(ge=1, le=100_000, strict=False)]


class Settings(Value):
    """Settings that are read from the environment or given."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **given: Any) -> Self:
        """Return the settings of the environment (``CONVOSTORE_MONGODB_URI`` and so on); what is given wins.

        Raises:
            ValidationError: a setting is unknown or not valid; names it.
        """
        source = os.environ if environment is None else environment
        found = {name: source[variable(name)] for name in cls.model_fields if source.get(variable(name))}
        try:
            return cls(**{**found, **given})
        except ValidationError as error:
            name = str(error.field)
            place = f" (from {variable(name)})" if name in found and name not in given else ""
            raise ValidationError(f"{error}{place}", error.field) from None


class MongoSettings(Settings):
    """How MongoDB is reached; the defaults held under injected faults.

    Attributes:
        mongodb_uri: the address; may hold a password, so it is never shown.
        database_name: the database that holds the collections.
        max_pool_size: connections at most, half of them for calls outside of units of work.
        deadline: seconds that a call may take, all its attempts together.
        attempts: how often a repeatable call is tried.
        connect_timeout: seconds to open a connection.
        heartbeat: seconds between looks at the server; with ``connect_timeout`` it bounds how long a frozen primary
            goes unnoticed.
        server_selection_timeout: seconds to wait for a usable server.
        wait_queue_timeout: seconds to wait for a free connection.
        app_name: what the server's log calls this program.
    """

    mongodb_uri: Annotated[SecretStr, Field(strict=False)] | None = None
    database_name: Annotated[str, Field(min_length=1, max_length=38, pattern=r"^[A-Za-z0-9_-]+$")] = "convostore"
    max_pool_size: Count = 100
    deadline: Seconds = 10.0
    attempts: Count = 4
    connect_timeout: Seconds = 2.0
    heartbeat: Annotated[float, Field(ge=0.5, le=60, strict=False)] = 2.0
    server_selection_timeout: Seconds = 5.0
    wait_queue_timeout: Seconds = 3.0
    app_name: Annotated[str, Field(min_length=1, max_length=100)] = "convostore"

    def client_options(self) -> dict[str, Any]:
        """Return the options of the driver's client.

        Moments are decoded without a time zone, ten times as fast as with one; ``from_dict`` adds UTC.
        """
        return {
            "w": "majority",
            "readConcernLevel": "majority",
            "retryWrites": True,
            "retryReads": True,
            "tz_aware": False,
            "uuidRepresentation": "standard",
            "maxPoolSize": self.max_pool_size,
            "connectTimeoutMS": _milliseconds(self.connect_timeout),
            "heartbeatFrequencyMS": _milliseconds(self.heartbeat),
            "serverSelectionTimeoutMS": _milliseconds(self.server_selection_timeout),
            "waitQueueTimeoutMS": _milliseconds(self.wait_queue_timeout),
            "appname": self.app_name,
        }


class RedisSettings(Settings):
    """How Redis or Valkey is reached, once for sessions and limits, once for the cache.

    Attributes:
        redis_url: the address for sessions and limits: ``redis://…``, ``redis+sentinel://…``, ``redis+cluster://…``
            and their like; may hold a password, so it is never shown.
        cache_url: the address for the cache; by default the same.
        redis_deadline: seconds that a call for sessions or limits may take.
        cache_deadline: seconds that a call to the cache may take; after them the database is asked instead.
        redis_pool_size: connections at most, to each server.
        breaker_failures: after so many failures in a row a server is left alone for a while.
        breaker_pause: seconds of that while.
        cache_conversations: whether conversations are read through the cache; the same in all programs that write to a
            database, for each tells the cache what it writes.
        cache_messages: whether the newest messages of conversations are; the same in all programs too.
        near_cache_bytes: room in the process for what the cache was last found to hold; 0 for none. A read that it
            answers asks nobody, and may be behind the writes of other processes.
        near_cache_lag: seconds that it may be.
        session_key: secret from which the visible part of a session's id is made; the same in all processes.
    """

    redis_url: Annotated[SecretStr, Field(strict=False)] | None = None
    cache_url: Annotated[SecretStr, Field(strict=False)] | None = None
    redis_deadline: Seconds = 0.2
    cache_deadline: Seconds = 0.1
    redis_pool_size: Count = 32
    breaker_failures: Count = 5
    breaker_pause: Seconds = 1.0
    cache_conversations: Annotated[bool, Field(strict=False)] = False
    cache_messages: Annotated[bool, Field(strict=False)] = False
    near_cache_bytes: Annotated[int, Field(ge=0, le=2**40, strict=False)] = 0
    near_cache_lag: Annotated[float, Field(ge=0.01, le=10, strict=False)] = 0.1
    session_key: Annotated[SecretStr, Field(strict=False, min_length=32)] | None = None

    def with_local_server(self, url: str) -> Self:
        """Return the settings for a server on this machine, for trying out, unless they name another one."""
        if self.redis_url is not None:
            return self
        return self.evolve(redis_url=url, session_key=self.session_key or LOCAL_SESSION_KEY)


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
