"""Options that commands share, and opening what they lead to."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from convostore.database.local_servers import LocalServers, default_data_directory
from convostore.database.mongodb import open_mongodb
from convostore.database.redis_client import RedisClients
from convostore.database.settings import MongoSettings, RedisSettings, variable
from convostore.gateways.mongo_gateway import MongoGateway
from convostore.models.identity import check_identifier
from convostore.repositories.exceptions import ValidationError
from convostore.store import ConvoStore
from convostore.tenant_store import TenantStore

LONG_DEADLINE = 600.0  # seconds; what an operation asks of the server may take longer than a request's
PATIENT_DEADLINE = 10.0  # seconds for a call to Redis, which nobody waits for in a request

Tenant = Annotated[str, typer.Option("--tenant", "-t", help="Whose conversations.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")]
MongoUri = Annotated[
    str | None,
    typer.Option("--mongodb-uri", help="Address of MongoDB; by default CONVOSTORE_MONGODB_URI, else local servers."),
]
RedisUrl = Annotated[
    str | None,
    typer.Option("--redis-url", help="Address of Redis; by default CONVOSTORE_REDIS_URL, with local servers theirs."),
]
DatabaseName = Annotated[
    str | None, typer.Option("--database", help="Name of the database; by default CONVOSTORE_DATABASE_NAME.")
]
DataDirectory = Annotated[
    Path | None,
    typer.Option("--data", help="Directory of the local servers; by default CONVOSTORE_DATA.", file_okay=False),
]


@dataclass(frozen=True, slots=True)
class Where:
    """Which database a command is about.

    Attributes:
        mongodb_uri: its server; None for the environment's, or local ones.
        database: its name; None for the environment's.
        data: directory of local servers, which are used whatever the environment says.
        redis_url: its Redis; None for the environment's, or a local one beside a local MongoDB.
    """

    mongodb_uri: str | None
    database: str | None
    data: Path | None
    redis_url: str | None = None

    def settings(self, **given: Any) -> MongoSettings:
        """Return the settings: what was given wins over the environment.

        Raises:
            ValidationError: they do not go together, or one is not valid.
        """
        if self.mongodb_uri is not None and self.data is not None:
            raise ValidationError("data: give either --data or --mongodb-uri", "data")
        named = {"mongodb_uri": self.mongodb_uri, "database_name": self.database}
        given |= {name: value for name, value in named.items() if value is not None}
        settings = MongoSettings.from_environment(**given)
        return settings.evolve(mongodb_uri=None) if self.data is not None else settings

    def redis_settings(self) -> RedisSettings:
        """Return the settings of Redis, without an address if none is known.

        Raises:
            ValidationError: one is not valid.
        """
        given: dict[str, Any] = {} if self.redis_url is None else {"redis_url": self.redis_url}
        for name in ("redis_deadline", "cache_deadline"):
            if not os.environ.get(variable(name)):
                given[name] = PATIENT_DEADLINE
        settings = RedisSettings.from_environment(**given)
        local = self.data is not None and self.redis_url is None
        return settings.evolve(redis_url=None) if local else settings


@asynccontextmanager
async def located(where: Where) -> AsyncIterator[tuple[MongoSettings, RedisSettings]]:
    """Have settings with an address: the one that is known, or that of local servers, kept for the time."""
    patience = {} if os.environ.get(variable("deadline")) else {"deadline": LONG_DEADLINE}
    settings, redis_settings = where.settings(**patience), where.redis_settings()
    async with AsyncExitStack() as stack:
        if settings.mongodb_uri is None:
            servers = await LocalServers.acquire(where.data or default_data_directory())
            await stack.enter_async_context(servers)
            settings = settings.evolve(mongodb_uri=servers.addresses.mongodb_uri)
            redis_settings = redis_settings.with_local_server(servers.addresses.redis_url)
        yield settings, redis_settings


@asynccontextmanager
async def open_store(where: Where) -> AsyncIterator[ConvoStore]:
    """Open the store for the time of an ``async with``; an empty database is prepared."""
    async with located(where) as settings, ConvoStore.open(*settings) as store:
        yield store


@asynccontextmanager
async def open_tenant(where: Where, tenant_id: str) -> AsyncIterator[TenantStore]:
    """Open the store for one tenant, whose name is looked at before anything is started."""
    check_identifier(tenant_id, "tenant")
    async with open_store(where) as store:
        yield store.tenant(tenant_id)


@asynccontextmanager
async def open_gateway(where: Where) -> AsyncIterator[MongoGateway]:
    """Open the way to the database as it is, whatever state it is in."""
    async with open_gateways(where) as (mongodb, _):
        yield mongodb


@asynccontextmanager
async def open_gateways(where: Where) -> AsyncIterator[tuple[MongoGateway, RedisClients | None]]:
    """Open the ways to both servers as they are; to Redis only if its address is known."""
    async with located(where) as (settings, redis_settings), AsyncExitStack() as stack:
        mongodb = open_mongodb(settings)
        stack.push_async_callback(mongodb.aclose)
        redis = None
        if redis_settings.redis_url is not None:
            redis = RedisClients.open(redis_settings)
            stack.push_async_callback(redis.aclose)
        yield mongodb, redis
