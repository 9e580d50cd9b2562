"""A tenant's part of a collection: every call is scoped to the tenant here, once."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bson import encode
from bson.raw_bson import RawBSONDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.cursor import AsyncCursor
from pymongo.read_concern import ReadConcern

from convostore.gateways.cancellation import finish
from convostore.gateways.operation import Operation
from convostore.models.identity import AFTER_SEPARATOR, SEPARATOR, join
from convostore.repositories.exceptions import ValidationError

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway

Key = tuple[str, ...]  # the components of an identity without the tenant
Stored = dict[str, Any]
Sort = Sequence[tuple[str, int]]
Session = AsyncClientSession | None

MAX_BATCH_BYTES = 40_000_000  # the server takes 48,000,000 in one command, and only one command is one insert
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
_ONE_BATCH = 1_000_000  # the server's own first batch is 101; of a read cancelled during it the cursor is not known
_ONLY_TENANT = {"tenant_id": 1}


class TenantCollection:
    """The documents of one tenant in one collection.

    Identities are given as keys, tuples of their components, and joined here with the tenant in front; documents are
    stamped with the tenant; queries are narrowed to him; what comes back without his name on it is not there.
    Moments in what comes back are in UTC without saying so; ``from_dict`` of the models says it. Every method raises
    the translated errors of the gateway.
    """

    def __init__(self, gateway: "MongoGateway", name: str, tenant_id: str, entity_type: str) -> None:
        self._gateway = gateway
        self._collection: AsyncCollection[Stored] = gateway.database[name]
        self._unsettled = self._collection.with_options(read_concern=ReadConcern("local"))
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
        stamped = self._stamped(key, document)
        await self._gateway.run(
            self._write("insert_one", key),
            lambda session: self._collection.insert_one(stamped, session=session),
        )

    async def get(self, key: Key) -> Stored | None:
        """Return a document, or None."""
        return await self._find_one(key, None)

    async def exists(self, key: Key) -> bool:
        """Say whether there is such a document."""
        return await self._find_one(key, _ONLY_TENANT) is not None

    async def _find_one(self, key: Key, projection: Mapping[str, Any] | None) -> Stored | None:
        query = {"_id": self.identity(key)}
        found = await self._gateway.run(
            self._read("find_one", key),
            lambda session: self._collection.find_one(query, projection, session=session),
        )
        return found if found is not None and found.get("tenant_id") == self._tenant_id else None

    async def was_deleted(self, key: Key) -> bool:
        """Say whether a tombstone stands in the place of a document; it bears no tenant."""
        query = {"_id": self.identity(key), "tenant_id": None, "deleted_at": {"$exists": True}}
        found = await self._gateway.run(
            self._read("find_one", key),
            lambda session: self._collection.find_one(query, _ONLY_TENANT, session=session),
        )
        return found is not None

    async def update(self, key: Key, guard: Mapping[str, Any], change: Any) -> bool:
        """Change the document of a key if it also matches the guard; say whether it did.

        Args:
            key: which document.
            guard: further conditions, made by the library.
            change: an update document or pipeline.
        """
        query = {"_id": self.identity(key), "tenant_id": self._tenant_id, **guard}
        result = await self._gateway.run(
            self._write("update_one", key),
            lambda session: self._collection.update_one(query, change, session=session),
        )
        return result.matched_count > 0

    # many documents

    async def insert_adjacent(self, documents: Sequence[tuple[Key, Mapping[str, Any]]]) -> None:
        """Store new documents by one command that stops at the first that is refused.

        Raises:
            ValidationError: together they are larger than one command may be; nothing was sent.
        """
        operation = self._write("insert_many", documents[0][0])
        stamped = [self._stamped(key, document) for key, document in documents]
        await self._gateway.run(operation, lambda session: self._insert_adjacent(stamped, session))

    async def _insert_adjacent(self, stamped: list[Stored], session: Session) -> None:
        raw = [RawBSONDocument(encode(document)) for document in stamped]
        if max(len(document.raw) for document in raw) > MAX_DOCUMENT_BYTES:
            # The server would refuse it only after it has stored those before it.
            raise ValidationError(f"messages: one is larger than {MAX_DOCUMENT_BYTES} bytes", "messages")
        if sum(len(document.raw) for document in raw) > MAX_BATCH_BYTES:
            raise ValidationError(f"messages: larger than {MAX_BATCH_BYTES} bytes together", "messages")
        await self._collection.insert_many(raw, ordered=True, session=session)

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
        scoped = {"tenant_id": self._tenant_id, **query}

        async def attempt(session: Session) -> list[Stored]:
            cursor = self._collection.find(scoped, projection, skip=skip, limit=limit, session=session)
            return await _all(cursor.sort(sort) if sort else cursor, limit)

        return await self._gateway.run(self._read("find"), attempt)

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

        async def attempt(session: Session) -> list[Stored]:
            cursor = self._collection.find(query, limit=limit, session=session)
            return await _all(cursor.sort("_id", -1 if descending else 1), limit)

        return await self._gateway.run(self._read("find", prefix), attempt)

    def _bounds(self, prefix: Key, after: str | None = None, before: str | None = None) -> dict[str, str]:
        start = self.identity(prefix)
        low = {"$gt": f"{start}{SEPARATOR}{after}"} if after is not None else {"$gte": start + SEPARATOR}
        return {**low, "$lt": f"{start}{SEPARATOR}{before}" if before is not None else start + AFTER_SEPARATOR}

    async def last(self, prefix: Key) -> Stored | None:
        """Return the last document below a prefix as the primary has it, whether or not it is settled yet."""
        query = {"_id": self._bounds(prefix)}

        async def attempt(session: Session) -> list[Stored]:
            cursor = self._unsettled.find(query, limit=1, session=session)
            return await _all(cursor.sort("_id", -1), 1)

        found = await self._gateway.run(self._read("find", prefix), attempt)
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


async def _all(cursor: AsyncCursor[Stored], limit: int) -> list[Stored]:
    # One batch as a rule; where there are more, a cancelled reader must not leave the cursor open on the server.
    try:
        # A batch as large as the limit would leave the cursor open, and cost a second trip to learn that it is empty.
        return await cursor.batch_size(limit + 1 if limit else _ONE_BATCH).to_list()
    finally:
        if cursor.alive and cursor.cursor_id:
            await finish(cursor.close())
