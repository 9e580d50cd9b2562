"""Places: all that stands below a tenant's name in a collection, whatever it is.

Claims and tombstones bear no tenant, blanks and seals no content; the identity of each begins with him all the same.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection

from convostore.gateways.operation import Operation
from convostore.gateways.tenant_collection import Key, Stored
from convostore.models.identity import AFTER_SEPARATOR, SEPARATOR, join

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway


class TenantPlaces:
    """All places of one tenant in one collection.

    Every method takes a condition made by the library, is scoped to the tenant by the bounds of his identities, and
    may be repeated.

    Args:
        gateway: carries out the operations.
        name: of the collection.
        tenant_id: whose places.
    """

    def __init__(self, gateway: "MongoGateway", name: str, tenant_id: str) -> None:
        self._gateway = gateway
        self._collection: AsyncCollection[Stored] = gateway.database[name]
        self._name = name
        self._tenant_id = tenant_id

    def _operation(self, name: str, *, writes: bool = False) -> Operation:
        return Operation(name, self._name, "Place", writes=writes, repeatable=True)

    def _query(self, condition: Mapping[str, Any], prefix: Key = (), after: str = "") -> Stored:
        start = join(self._tenant_id, *prefix)
        low = {"$gt": after} if after else {"$gte": start + SEPARATOR}
        return {"$and": [{"_id": {**low, "$lt": start + AFTER_SEPARATOR}}, dict(condition)]}

    def identity(self, *key: str) -> str:
        """Return the stored identity of a key."""
        return join(self._tenant_id, *key)

    async def find(
        self, condition: Mapping[str, Any], limit: int, after: str = "", projection: Sequence[str] = ("_id",)
    ) -> list[Stored]:
        """Return what stands there and matches, in the order of identities.

        Args:
            condition: what it must be.
            limit: at most so many.
            after: only what stands behind this identity of the tenant.
            projection: the fields wanted.
        """
        query = self._query(condition, after=after)

        async def attempt(session: AsyncClientSession | None) -> list[Stored]:
            found = self._collection.find(query, list(projection), session=session)
            return await found.sort("_id", 1).limit(limit).to_list()

        return await self._gateway.run(self._operation("find"), attempt)

    async def count(self, condition: Mapping[str, Any], prefix: Key = ()) -> int:
        """Count what matches below a prefix; the empty one is all of the tenant's."""
        query = self._query(condition, prefix)
        return await self._gateway.run(
            self._operation("count_documents"),
            lambda session: self._collection.count_documents(query, session=session),
        )

    async def update(self, condition: Mapping[str, Any], change: Any) -> int:
        """Change what matches; return how much it was."""
        query = self._query(condition)

        async def attempt(session: AsyncClientSession | None) -> int:
            return (await self._collection.update_many(query, change, session=session)).matched_count

        return await self._gateway.run(self._operation("update_many", writes=True), attempt)

    async def remove(self, condition: Mapping[str, Any]) -> int:
        """Remove what matches for good; return how much it was."""
        query = self._query(condition)

        async def attempt(session: AsyncClientSession | None) -> int:
            return (await self._collection.delete_many(query, session=session)).deleted_count

        return await self._gateway.run(self._operation("delete_many", writes=True), attempt)
