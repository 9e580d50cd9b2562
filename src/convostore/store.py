"""ConvoStore: opens the databases, hands out repositories, closes what it opened."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from convostore.database.local_servers import LocalServers, default_data_directory
from convostore.database.mongodb import current_tenant, open_mongodb
from convostore.database.settings import MongoSettings
from convostore.gateways.mongo_gateway import MongoGateway
from convostore.gateways.tenant_database import TenantDatabase
from convostore.operations.indexes import Schema, Step
from convostore.repositories.conversation_repository import ConversationRepository
from convostore.repositories.exceptions import RepositoryError
from convostore.repositories.message_repository import MessageRepository
from convostore.repositories.unit_of_work import UnitOfWork, in_transaction

T = TypeVar("T")


class TenantStore:
    """The repositories of one tenant.

    Attributes:
        conversations: his conversations.
        messages: their messages.
    """

    def __init__(self, database: TenantDatabase) -> None:
        self._database = database
        self.conversations = ConversationRepository(database)
        self.messages = MessageRepository(database)

    @property
    def tenant_id(self) -> str:
        """Whose they are."""
        return self._database.tenant_id

    @property
    def database(self) -> TenantDatabase:
        """The handle that a repository is made from."""
        return self._database

    def current(self) -> AbstractContextManager[TenantDatabase]:
        """Make this tenant the one that ``get_conversation_repository()`` and its like answer for."""
        return current_tenant(self._database)


class ConvoStore:
    """The way to everything that is stored.

    Args:
        mongodb: the way to MongoDB; closed by ``aclose``.
    """

    def __init__(self, mongodb: MongoGateway) -> None:
        self.mongodb = mongodb

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: MongoSettings | None = None, *, data: Path | None = None, **given: Any
    ) -> AsyncIterator[Self]:
        """Open the databases for the time of an ``async with``.

        Without an address, in the environment or given, local servers are started, for trying out.

        Args:
            settings: all settings; by default those of the environment.
            data: directory of local servers; by default ``CONVOSTORE_DATA``.
            given: single settings, which win over the environment.

        Raises:
            ValidationError: a setting is not valid.
            ConnectionError: the server cannot be reached.
            RepositoryError: the database lacks indexes that the promises rest on.
        """
        settings = settings or MongoSettings.from_environment(**given)
        async with AsyncExitStack() as stack:
            if settings.mongodb_uri is None:
                servers = await stack.enter_async_context(await LocalServers.acquire(data or default_data_directory()))
                settings = settings.evolve(mongodb_uri=servers.addresses.mongodb_uri)
            store = cls(open_mongodb(settings))
            stack.push_async_callback(store.aclose)
            await store.prepare()
            yield store

    async def prepare(self) -> None:
        """Make sure of the collections and indexes: create them in a database that has none.

        Raises:
            RepositoryError: the database is in use and lacks some; creating them there is left to an operator.
        """
        schema = Schema(self.mongodb.administration)
        steps = await schema.plan()
        if steps and await self._is_unused(steps):
            await schema.apply(steps)
            steps = await schema.plan()
        if steps:
            missing = ", ".join(f"{step.kind} {step.collection} {step.name}".strip() for step in steps)
            raise RepositoryError(f"the database is not as convostore needs it ({missing}): see `convostore indexes`")

    async def _is_unused(self, steps: Sequence[Step]) -> bool:
        """Say whether what lacks something is missing or empty: nobody has created it yet, or not to the end."""
        for name in {step.collection for step in steps}:
            async for _ in self.mongodb.administration.aggregate(name, [{"$limit": 1}]):
                return False
        return True

    def tenant(self, tenant_id: str) -> TenantStore:
        """Return the repositories of a tenant.

        Raises:
            ValidationError: it cannot be an identifier.
        """
        return TenantStore(self.mongodb.tenant(tenant_id))

    def transaction(self) -> UnitOfWork:
        """Return a unit of work for one attempt: ``async with store.transaction():``."""
        return UnitOfWork(self.mongodb)

    async def in_transaction(self, work: Callable[[UnitOfWork], Awaitable[T]]) -> T:
        """Do work in a unit of work, again if it ran into another one; join the unit that is open, if any."""
        return await in_transaction(self.mongodb, work)

    async def aclose(self) -> None:
        """Write what is pending and close all connections."""
        await self.mongodb.aclose()
