"""A tenant's part of a collection: every call is scoped to the tenant here, once."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bson import encode

from convostore.gateways.find_command import Find, Sort
from convostore.gateways.operation import Operation
from convostore.gateways.shared_calls import ONLY_TENANT
from convostore.gateways.shared_inserts import Placed, Run
from convostore.gateways.shared_reads import SharedReads
from convostore.gateways.shared_updates import Update
from convostore.gateways.translation import DRIVER_ERRORS, translate
from convostore.models.identity import AFTER_SEPARATOR, SEPARATOR, join
from convostore.repositories.exceptions import ValidationError

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway

Key = tuple[str, ...]  # the components of an identity without the tenant
Stored = dict[str, Any]

MAX_BATCH_BYTES = 40_000_000  # the server takes 48,000,000 in one command
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
_FIXED_BYTES = 200  # what is stored beside the names: of the identity, the sequence, the batch


class TenantCollection:
    """The documents of one tenant in one collection.

    Identities are given as keys, tuples of their components, and joined here with the tenant in front; documents are
    stamped with the tenant; queries are narrowed to him; what comes back without his name on it is not there.
    Moments in what comes back are in UTC without saying so; ``from_dict`` of the models says it. Every method raises
    the translated errors of the gateway.
    """

    def __init__(self, gateway: "MongoGateway", name: str, tenant_id: str, entity_type: str) -> None:
        self._gateway = gateway
        self._shared = shared = gateway.shared(name)
        self._collection = shared.collection
        self._finder = shared.finder
        self._unsettled = shared.unsettled
        self._tenant_id = tenant_id
        self._name = name
        self._entity_type = entity_type

    # identities

    def identity(self, key: Key) -> str:
        """Return the stored identity of a key."""
        return join(self._tenant_id, *key)

    def _read(self, name: str, key: Key = ()) -> Operation:
        return Operation(name, self._name, self._entity_type, SEPARATOR.join(key), repeatable=True)

    def _write(self, name: str, key: Key = (), *, repeatable: bool = False) -> Operation:
        return Operation(name, self._name, self._entity_type, SEPARATOR.join(key), True, repeatable)

    def _stamped(self, key: Key, document: Mapping[str, Any]) -> Stored:
        return {"_id": self.identity(key), **document, "tenant_id": self._tenant_id}

    # single documents

    async def insert(self, key: Key, document: Mapping[str, Any]) -> None:
        """Store a new document."""
        size = _check_size(self.stored_size(key, document), self._write("insert_one", key))
        placed = await self.insert_run([(key, document)], size)
        if placed.error is not None:
            raise placed.error

    async def get(self, key: Key) -> Stored | None:
        """Return a document, or None."""
        return await self._own(self._shared.reads, key)

    async def exists(self, key: Key) -> bool:
        """Say whether there is such a document."""
        return await self._own(self._shared.looks, key) is not None

    async def _own(self, reads: SharedReads, key: Key) -> Stored | None:
        found = await reads.get(self._tenant_id, self.identity(key), self._read("find_one", key))
        return found if found is not None and found.get("tenant_id") == self._tenant_id else None

    async def was_deleted(self, key: Key) -> bool:
        """Say whether a tombstone stands in the place of a document; it bears no tenant."""
        query = {"_id": self.identity(key), "tenant_id": None, "deleted_at": {"$exists": True}}
        asked = Find(query, limit=1, projection=ONLY_TENANT)
        found = await self._gateway.run(self._read("find_one", key), lambda session: self._finder.find(asked, session))
        return bool(found)

    async def update(self, key: Key, guard: Mapping[str, Any], change: Any) -> bool:
        """Change the document of a key if it also matches the guard; say whether it did.

        Args:
            key: which document.
            guard: further conditions, made by the library.
            change: an update document or pipeline.
        """
        query = {"_id": self.identity(key), "tenant_id": self._tenant_id, **guard}
        operation = self._write("update_one", key)
        if isinstance(change, Mapping):
            size = _check_size(encoded_size({"q": query, "u": change}, operation), operation)
            return await self._shared.updates.update(self._tenant_id, Update(query, change, operation, size))
        result = await self._gateway.run(
            operation, lambda session: self._collection.update_one(query, change, session=session)
        )
        return result.matched_count > 0

    # many documents

    def size_of(self, document: Mapping[str, Any], prefix: Key) -> int:
        """Return how many bytes a document takes at most once it is stored below a prefix.

        Raises:
            ValidationError: it holds what cannot be stored.
        """
        # Each character of an identity is escaped to three bytes, or encoded to four.
        names = 4 * sum(map(len, (self._tenant_id, self._tenant_id, *prefix)))
        try:
            return len(encode(document)) + names + _FIXED_BYTES
        except DRIVER_ERRORS as error:
            raise translate(error, self._write("insert_one", prefix)) from error

    def stored_size(self, key: Key, document: Mapping[str, Any]) -> int:
        """Return how many bytes a document takes as it is stored; ``size_of`` costs less.

        Raises:
            ValidationError: it holds what cannot be stored.
        """
        return encoded_size(self._stamped(key, document), self._write("insert_one", key))

    async def insert_run(self, documents: Sequence[tuple[Key, Mapping[str, Any]]], size: int) -> Placed:
        """Store new documents one after the other, none behind one that was refused; say how far that went.

        Args:
            documents: at least one.
            size: bytes of all of them, as ``size_of`` tells.
        """
        operation = self._write("insert_one" if len(documents) == 1 else "insert_many", documents[0][0])
        stamped = [self._stamped(key, document) for key, document in documents]
        return await self._shared.inserts.insert(self._tenant_id, Run(stamped, operation, size))

    async def get_many(self, keys: Sequence[Key], projection: Sequence[str] | None = None) -> dict[Key, Stored]:
        """Return the documents of those keys that there are."""
        by_identity = {self.identity(key): key for key in keys}
        found = await self.find(
            {"_id": {"$in": list(by_identity)}}, projection=projection and [*projection, "tenant_id"]
        )
        return {by_identity[document["_id"]]: document for document in found}

    async def find(
        self,
        query: Mapping[str, Any],
        sort: Sort = (),
        skip: int = 0,
        limit: int = 0,
        projection: Sequence[str] | None = None,
    ) -> list[Stored]:
        """Return the documents that match a query made by the library."""
        asked = Find({"tenant_id": self._tenant_id, **query}, sort, skip, limit, projection)
        return await self._gateway.run(self._read("find"), lambda session: self._finder.find(asked, session))

    async def find_first(self, query: Mapping[str, Any], sort: Sort, limit: int) -> list[Stored]:
        """Return the first documents that match a query to which an index leads; concurrent callers share the way."""
        asked = Find({"tenant_id": self._tenant_id, **query}, sort, limit=limit)
        return await self._shared.finds.find(self._tenant_id, asked, self._read("find"))

    def within(self, prefix: Key) -> Stored:
        """Return the condition that a document lies below a prefix; the empty one is all of the tenant's."""
        return {"_id": self._bounds(prefix)}

    async def find_range(
        self,
        prefix: Key,
        after: str | None = None,
        before: str | None = None,
        *,
        limit: int = 0,
        descending: bool = False,
        condition: Mapping[str, Any] | None = None,
    ) -> list[Stored]:
        """Return the documents below a prefix in the order of their identity, read straight off the disk.

        Args:
            prefix: the first components.
            after: only those whose next component is greater.
            before: only those whose next component is smaller.
            limit: at most so many; 0 for all.
            descending: from the end.
            condition: further conditions, made by the library.
        """
        query = {"_id": self._bounds(prefix, after, before), **(condition or {})}
        asked, operation = Find(query, [("_id", -1 if descending else 1)], limit=limit), self._read("find", prefix)
        if limit:
            return await self._shared.finds.find(self._tenant_id, asked, operation)
        return await self._gateway.run(operation, lambda session: self._finder.find(asked, session))

    def _bounds(self, prefix: Key, after: str | None = None, before: str | None = None) -> dict[str, str]:
        start = self.identity(prefix)
        low = {"$gt": f"{start}{SEPARATOR}{after}"} if after is not None else {"$gte": start + SEPARATOR}
        return {**low, "$lt": f"{start}{SEPARATOR}{before}" if before is not None else start + AFTER_SEPARATOR}

    async def last(self, prefix: Key) -> Stored | None:
        """Return the last document below a prefix as the primary has it, whether or not it is settled yet."""
        asked = Find({"_id": self._bounds(prefix)}, [("_id", -1)], limit=1)
        found = await self._gateway.run(
            self._read("find", prefix), lambda session: self._unsettled.find(asked, session)
        )
        return found[0] if found else None

    async def update_range(self, prefix: Key, before: str, change: Any) -> int:
        """Change all documents below a prefix and before a component; may be repeated; return how many."""
        query = {"_id": self._bounds(prefix, before=before)}
        result = await self._gateway.run(
            self._write("update_many", prefix, repeatable=True),
            lambda session: self._collection.update_many(query, change, session=session),
        )
        return result.matched_count

    async def count(self, query: Mapping[str, Any], limit: int = 0) -> int:
        """Count the documents that match a query made by the library, up to a limit if there is one."""
        scoped = {"tenant_id": self._tenant_id, **query}
        options = {"limit": limit} if limit else {}
        return await self._gateway.run(
            self._read("count_documents"),
            lambda session: self._collection.count_documents(scoped, session=session, **options),
        )


def encoded_size(document: Mapping[str, Any], operation: Operation) -> int:
    """Return how many bytes a document takes; so what cannot be stored fails before it travels with others.

    Raises:
        ValidationError: it holds what cannot be stored.
    """
    try:
        return len(encode(document))
    except DRIVER_ERRORS as error:
        raise translate(error, operation) from error


def _check_size(size: int, operation: Operation) -> int:
    if size > MAX_DOCUMENT_BYTES:
        subject = f"{operation.entity_type} '{operation.entity_id}'"
        raise ValidationError(f"document: {subject} is larger than the database allows", "document")
    return size
