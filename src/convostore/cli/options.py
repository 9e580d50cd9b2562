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
from convostore.database.settings import MongoSettings, variable
from convostore.gateways.mongo_gateway import MongoGateway
from convostore.models.identity import check_identifier
from convostore.repositories.exceptions import ValidationError
from convostore.store import ConvoStore, TenantStore

LONG_DEADLINE = 600.0  # seconds; what an operation asks of the server may take longer than a request's

Tenant = Annotated[str, typer.Option("--tenant", "-t", help="Whose conversations.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")]
MongoUri = Annotated[
    str | None,
    typer.Option("--mongodb-uri", help="Address of MongoDB; by default CONVOSTORE_MONGODB_URI, else local servers."),
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
    """

    mongodb_uri: str | None
    database: str | None
    data: Path | None

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


@asynccontextmanager
async def located(where: Where) -> AsyncIterator[MongoSettings]:
    """Have settings with an address: the one that is known, or that of local servers, kept for the time."""
    patience = {} if os.environ.get(variable("deadline")) else {"deadline": LONG_DEADLINE}
    settings = where.settings(**patience)
    async with AsyncExitStack() as stack:
        if settings.mongodb_uri is None:
            servers = await LocalServers.acquire(where.data or default_data_directory())
            await stack.enter_async_context(servers)
            settings = settings.evolve(mongodb_uri=servers.addresses.mongodb_uri)
        yield settings


@asynccontextmanager
async def open_store(where: Where) -> AsyncIterator[ConvoStore]:
    """Open the store for the time of an ``async with``; an empty database is prepared."""
    async with located(where) as settings, ConvoStore.open(settings) as store:
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
    async with located(where) as settings:
        gateway = open_mongodb(settings)
        try:
            yield gateway
        finally:
            await gateway.aclose()
