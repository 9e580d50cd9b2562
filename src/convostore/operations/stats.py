"""Stats: what is stored, and how much room it takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convostore.gateways.mongo_administration import MongoAdministration
from convostore.models.identity import AFTER_SEPARATOR, SEPARATOR, check_identifier, join
from convostore.repositories.slots import KIND

_COLLECTIONS = ("conversations", "messages")


@dataclass(frozen=True, slots=True)
class TenantStats:
    """What one tenant has.

    Attributes:
        tenant_id: who.
        statuses: conversations by status.
        roles: messages by role, without deleted ones.
    """

    tenant_id: str
    statuses: dict[str, int] = field(default_factory=dict)
    roles: dict[str, int] = field(default_factory=dict)

    @property
    def conversations(self) -> int:
        """How many conversations."""
        return sum(self.statuses.values())

    @property
    def messages(self) -> int:
        """How many messages."""
        return sum(self.roles.values())


@dataclass(frozen=True, slots=True)
class CollectionSize:
    """The room that a collection takes, all tenants together.

    Attributes:
        name: of the collection.
        documents: how many, places without content included.
        data: bytes before compression.
        storage: bytes on disk.
        indexes: bytes of the indexes on disk.
    """

    name: str
    documents: int
    data: int
    storage: int
    indexes: int

    @property
    def bytes_per_document(self) -> float:
        """Bytes on disk for each document, indexes included."""
        return (self.storage + self.indexes) / self.documents if self.documents else 0.0


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What is stored in a database.

    Attributes:
        tenants: in the order of their names.
        sizes: of the collections.
    """

    tenants: list[TenantStats]
    sizes: list[CollectionSize]


class Stats:
    """Counts what is stored.

    Args:
        administration: of the database.
    """

    def __init__(self, administration: MongoAdministration) -> None:
        self._administration = administration

    async def collect(self, tenant_id: str | None = None) -> StoreStats:
        """Return the figures of one tenant, or of all.

        Raises:
            ValidationError: this cannot be a tenant.
            RepositoryError: the database failed.
        """
        tenants: dict[str, TenantStats] = {}
        if tenant_id is not None:
            tenant_id = check_identifier(tenant_id, "tenant_id")
            tenants[tenant_id] = TenantStats(tenant_id)
        scope = {"tenant_id": {"$exists": True} if tenant_id is None else {"$eq": tenant_id}}
        for name, key, count in await self._counts("conversations", scope, "status"):
            tenants.setdefault(name, TenantStats(name)).statuses[key] = count
        shown = {KIND: None, "deleted_at": None, **_messages_of(tenant_id)}
        for name, key, count in await self._counts("messages", shown, "role"):
            tenants.setdefault(name, TenantStats(name)).roles[key] = count
        return StoreStats([tenants[name] for name in sorted(tenants)], [await self._size(c) for c in _COLLECTIONS])

    async def _counts(self, collection: str, match: Mapping[str, Any], by: str) -> Sequence[tuple[str, str, int]]:
        group = {"_id": {"tenant": "$tenant_id", "by": f"${by}"}, "count": {"$sum": 1}}
        pipeline: list[dict[str, Any]] = [{"$match": match}, {"$group": group}, {"$sort": {"count": -1, "_id": 1}}]
        found = self._administration.aggregate(collection, pipeline)
        return [(row["_id"]["tenant"], str(row["_id"].get("by")), row["count"]) async for row in found]

    async def _size(self, collection: str) -> CollectionSize:
        stats = await self._administration.command({"collStats": collection})
        storage, indexes = stats.get("storageSize", 0), stats.get("totalIndexSize", 0)
        return CollectionSize(collection, int(stats["count"]), int(stats["size"]), int(storage), int(indexes))


def _messages_of(tenant_id: str | None) -> dict[str, Any]:
    if tenant_id is None:
        return {}
    start = join(tenant_id)
    return {"_id": {"$gte": start + SEPARATOR, "$lt": start + AFTER_SEPARATOR}}
