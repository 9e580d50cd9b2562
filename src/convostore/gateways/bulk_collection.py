"""Claims: places of a collection that an import holds until it has stored what belongs there.

A claim bears no tenant, so that everyone else takes it for absent; its identity begins with the tenant all the same, so
nobody else can take the place.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bson import encode
from pymongo import UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern

from convostore.gateways.operation import Operation
from convostore.gateways.tenant_collection import MAX_DOCUMENT_BYTES, Key, Stored
from convostore.gateways.translation import write_errors
from convostore.models.identity import SEPARATOR, escape, join

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway

IMPORTING = "importing"  # in a claim: the digest of what is to come
_DUPLICATE = 11000


class BulkCollection:
    """The places of one tenant in one collection, as an import sees them: claims and tombstones included.

    Args:
        gateway: carries out the operations.
        name: of the collection.
        tenant_id: whose places.
    """

    def __init__(self, gateway: "MongoGateway", name: str, tenant_id: str) -> None:
        self._gateway = gateway
        self._collection: AsyncCollection[Stored] = gateway.database[name]
        # A claim that somebody has just made counts before it is settled.
        self._unsettled = self._collection.with_options(read_concern=ReadConcern("local"))
        self._tenant_id = tenant_id
        self._name = name

    def _operation(self, name: str, *, writes: bool) -> Operation:
        return Operation(name, self._name, "Claim", writes=writes, repeatable=True)

    async def read(self, keys: Iterable[Key], projection: Sequence[str]) -> dict[Key, Stored]:
        """Return what stands in those places that are not free, whatever it is."""
        by_identity = {join(self._tenant_id, *key): key for key in keys}
        query = {"_id": {"$in": list(by_identity)}}

        async def attempt(session: AsyncClientSession | None) -> list[Stored]:
            return await self._unsettled.find(query, list(projection), session=session).to_list()

        found = await self._gateway.run(self._operation("find", writes=False), attempt)
        return {by_identity[document["_id"]]: document for document in found}

    async def claim(self, claims: Mapping[Key, Mapping[str, Any]]) -> set[Key]:
        """Put claims into places; return the places that were not free."""
        keys = list(claims)
        documents = [{"_id": join(self._tenant_id, *key), "version": 1, **claims[key]} for key in keys]
        return {keys[index] for index in await self._insert_each(documents)}

    async def finish(self, documents: Mapping[Key, tuple[str, Mapping[str, Any]]]) -> int:
        """Replace claims by what they were held for, each if it still is the claim of the digest; return how many."""
        updates = [
            UpdateOne(
                {"_id": join(self._tenant_id, *key), IMPORTING: digest},
                {"$set": {**document, "tenant_id": self._tenant_id}, "$unset": {IMPORTING: "", "at": ""}},
            )
            for key, (digest, document) in documents.items()
        ]
        result = await self._gateway.run(
            self._operation("bulk_write", writes=True),
            lambda session: self._collection.bulk_write(updates, ordered=False, session=session),
        )
        return result.matched_count

    async def insert_below(self, groups: Mapping[Key, Mapping[str, Mapping[str, Any]]]) -> set[Key]:
        """Store new documents of the tenant, each on its own account; return the keys of those that were there before.

        Args:
            groups: for each key the documents below it, by the last component of their identity.
        """
        keys: list[Key] = []
        documents: list[Stored] = []
        for key, members in groups.items():
            prefix = join(self._tenant_id, *key) + SEPARATOR
            for last, document in members.items():
                keys.append((*key, last))
                documents.append({"_id": prefix + escape(last), **document, "tenant_id": self._tenant_id})
        return {keys[index] for index in await self._insert_each(documents)}

    async def _insert_each(self, documents: list[Stored]) -> set[int]:
        async def attempt(session: AsyncClientSession | None) -> set[int]:
            try:
                await self._collection.insert_many(documents, ordered=False, session=session)
            except BulkWriteError as error:
                return _refused_places(error)
            return set()

        return await self._gateway.run(self._operation("insert_many", writes=True), attempt)


def _refused_places(error: BulkWriteError) -> set[int]:
    failures = write_errors(error)
    if not failures or any(failure["code"] != _DUPLICATE for failure in failures):
        raise error
    return {failure["index"] for failure in failures}


def fits_into_document(document: Mapping[str, Any]) -> bool:
    """Say whether the database can hold a document, with room for its identity."""
    return len(encode(document)) <= MAX_DOCUMENT_BYTES - 4096
