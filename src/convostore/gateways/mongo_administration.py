"""Administration of a MongoDB database: what no tenant does."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from pymongo.asynchronous.database import AsyncDatabase

from convostore.gateways.mongo_transaction import Attempt
from convostore.gateways.operation import Operation

T = TypeVar("T")
Keys = Sequence[tuple[str, int | str]]


class _Run(Protocol):
    async def __call__(self, operation: Operation, attempt: Attempt[T]) -> T: ...


class MongoAdministration:
    """Commands, collections, indexes, and reads across tenants.

    Args:
        database: the driver's database.
        run: carries out an operation as the gateway does it.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]], run: _Run) -> None:
        self._database = database
        self._run = run

    @property
    def database_name(self) -> str:
        """The name of the database."""
        return self._database.name

    @property
    def write_concern(self) -> dict[str, Any]:
        """What a write waits for, in the server's terms."""
        return dict(self._database.write_concern.document)

    async def command(self, command: Mapping[str, Any], *, admin: bool = False) -> dict[str, Any]:
        """Return the server's answer to a command."""
        target = self._database.client.admin if admin else self._database
        operation = Operation(next(iter(command)), "", "Command", writes=True)
        return await self._run(operation, lambda _: target.command(dict(command)))

    async def collections(self) -> dict[str, dict[str, Any]]:
        """Return the options of each collection, by name."""
        operation = Operation("list_collections", "", "Collection", repeatable=True)
        found = await self._run(operation, lambda _: self._collections())
        return {info["name"]: info.get("options", {}) for info in found}

    async def _collections(self) -> list[dict[str, Any]]:
        cursor = await self._database.list_collections()
        return [dict(info) for info in await cursor.to_list()]

    async def indexes(self, collection: str) -> dict[str, dict[str, Any]]:
        """Return the description of each index of a collection, by name."""
        operation = Operation("list_indexes", collection, "Index", repeatable=True)
        found = await self._run(operation, lambda _: self._indexes(collection))
        return {str(info["name"]): dict(info) for info in found}

    async def _indexes(self, collection: str) -> list[Any]:
        cursor = await self._database[collection].list_indexes()
        return await cursor.to_list()

    async def aggregate(self, collection: str, pipeline: Sequence[Mapping[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        """Iterate over the documents that an aggregation of a whole collection yields."""
        operation = Operation("aggregate", collection, "Aggregation", repeatable=True)
        cursor = await self._run(operation, lambda _: self._database[collection].aggregate(pipeline, allowDiskUse=True))
        async with cursor:
            while batch := await self._run(operation, lambda _: cursor.to_list(1000)):
                for document in batch:
                    yield document

    async def drop_database(self) -> None:
        """Delete the whole database."""
        operation = Operation("drop_database", "", "Database", writes=True, repeatable=True)
        await self._run(operation, lambda _: self._database.client.drop_database(self._database.name))
