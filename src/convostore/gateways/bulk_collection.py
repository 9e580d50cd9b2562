"""Claims: places of a collection that an import holds until it has stored what belongs there.

A claim bears no tenant, so that everyone else takes it for absent; its identity begins with the tenant all the same, so
nobody else can take the place.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from bson import encode
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError, WriteConcernError
from pymongo.read_concern import ReadConcern

from convostore.gateways.operation import Operation
from convostore.gateways.tenant_collection import MAX_DOCUMENT_BYTES, Key, Stored
from convostore.gateways.translation import write_errors
from convostore.models.identity import AFTER_SEPARATOR, SEPARATOR, escape, join, split

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway

IMPORTING = "importing"  # in a claim: the digest of what is to come
CONDEMNED = "condemned"  # in its place: what is below it is being removed
_DUPLICATE = 11000
_escape = lru_cache(maxsize=1024)(escape)


class Inserted(NamedTuple):
    """What became of documents to be stored.

    Attributes:
        occupied: the keys of those whose places were not free.
        doubtful: an answer was lost, so it may be these very documents that were in the way.
    """

    occupied: set[Key]
    doubtful: bool


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

    async def claim(self, claims: Mapping[Key, Mapping[str, Any]], *, in_one_command: bool = False) -> set[Key]:
        """Put claims into places; return the places that were not free.

        Args:
            claims: what is to hold which place.
            in_one_command: as in ``insert_below``.
        """
        keys = list(claims)
        documents = [{"_id": join(self._tenant_id, *key), "version": 1, **claims[key]} for key in keys]
        places, _ = await self._insert(documents, in_one_command)
        return {keys[place] for place in places}

    async def finish(self, claims: Mapping[Key, str]) -> int:
        """Make claims into what they hold, each if it still is the claim of its digest; return how many."""
        # One statement: one for each would cost the server three times as much. No digest stands for two identities.
        query = {
            "_id": {"$in": [join(self._tenant_id, *key) for key in claims]},
            IMPORTING: {"$in": list(claims.values())},
        }
        change = {"$set": {"tenant_id": self._tenant_id}, "$unset": {IMPORTING: "", "at": ""}}
        attempts = 0

        async def attempt(session: AsyncClientSession | None) -> int:
            nonlocal attempts
            attempts += 1
            result = await self._collection.update_many(query, change, session=session)
            # What an attempt did whose answer was lost, the next one finds done.
            return result.matched_count if attempts == 1 else len(claims)

        return await self._gateway.run(self._operation("update_many", writes=True), attempt)

    async def condemn(self, key: Key, before: datetime) -> bool:
        """Make a claim of before a moment into one that no import can take up or finish; say whether it was one."""
        query = {"_id": join(self._tenant_id, *key), IMPORTING: {"$exists": True}, "at": {"$lt": before}}
        change = {"$set": {IMPORTING: CONDEMNED}}

        async def attempt(session: AsyncClientSession | None) -> int:
            return (await self._collection.update_one(query, change, session=session)).matched_count

        return await self._gateway.run(self._operation("update_one", writes=True), attempt) > 0

    async def remove_condemned(self, key: Key) -> None:
        """Remove a claim that was condemned, if it still is there."""
        query = {"_id": join(self._tenant_id, *key), IMPORTING: CONDEMNED}
        await self._gateway.run(
            self._operation("delete_one", writes=True),
            lambda session: self._collection.delete_one(query, session=session),
        )

    async def remove_below(self, key: Key) -> None:
        """Remove all documents below a key."""
        start = join(self._tenant_id, *key)
        query = {"_id": {"$gte": start + SEPARATOR, "$lt": start + AFTER_SEPARATOR}}
        await self._gateway.run(
            self._operation("delete_many", writes=True),
            lambda session: self._collection.delete_many(query, session=session),
        )

    async def insert_below(self, groups: Mapping[Key, Sequence[Stored]], *, in_one_command: bool = False) -> Inserted:
        """Store new documents of the tenant, each on its own account.

        Args:
            groups: for each key the documents below it, whose ``_id`` is the last component of their identity. They
                are given the whole of it and their tenant in place: copies would take a tenth of an import. It should
                be their first field, else the server makes a copy to put it there.
            in_one_command: they are known to fit into one, ``MAX_BATCH_BYTES``, and need not be counted exactly if an
                answer is lost. That takes half the time in the driver.
        """
        documents = self._completed(groups)
        places, attempts = await self._insert(documents, in_one_command)
        return Inserted({split(documents[place]["_id"])[1:] for place in places}, attempts > 1)

    def _completed(self, groups: Mapping[Key, Sequence[Stored]]) -> list[Stored]:
        documents: list[Stored] = []
        for key, members in groups.items():
            prefix = join(self._tenant_id, *key) + SEPARATOR
            for document in members:
                document["_id"] = prefix + _escape(document["_id"])
                document["tenant_id"] = self._tenant_id
            documents += members
        return documents

    async def _insert(self, documents: list[Stored], in_one_command: bool) -> tuple[set[int], int]:
        """Return the indexes of those whose places were not free, and how many attempts it took."""
        insert = self._insert_at_once if in_one_command else self._insert_split
        attempts = 0

        async def attempt(session: AsyncClientSession | None) -> set[int]:
            nonlocal attempts
            attempts += 1
            return await insert(documents, session)

        return await self._gateway.run(self._operation("insert_many", writes=True), attempt), attempts

    async def _insert_split(self, documents: list[Stored], session: AsyncClientSession | None) -> set[int]:
        try:
            await self._collection.insert_many(documents, ordered=False, session=session)
        except BulkWriteError as error:
            return _refused_places(error)
        return set()

    async def _insert_at_once(self, documents: list[Stored], session: AsyncClientSession | None) -> set[int]:
        answer = await self._collection.database.command(
            "insert",
            self._name,
            documents=documents,
            ordered=False,
            writeConcern=self._collection.write_concern.document,
            session=session,
        )
        failures, concern = answer.get("writeErrors", []), answer.get("writeConcernError")
        if not failures and concern is None:
            return set()
        # What the driver makes of such an answer to its own inserts.
        details = {"writeErrors": failures, "writeConcernErrors": [] if concern is None else [concern]}
        return _refused_places(BulkWriteError(details))


def _refused_places(error: BulkWriteError) -> set[int]:
    failures, concerns = write_errors(error), error.details.get("writeConcernErrors")
    if concerns:  # above all: what was stored may yet be rolled back
        raise WriteConcernError(concerns[0].get("errmsg", ""), concerns[0].get("code"), concerns[0]) from error
    if not failures or any(failure["code"] != _DUPLICATE for failure in failures):
        raise error
    return {failure["index"] for failure in failures}


def fits_into_document(document: Mapping[str, Any]) -> bool:
    """Say whether the database can hold a document, with room for its identity."""
    return len(encode(document)) <= MAX_DOCUMENT_BYTES - 4096
