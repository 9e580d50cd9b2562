"""Erasure marks: by which an import that began before an erasure sees that there was one.

A number of the tenant rises with each erasure, and each erasure keeps the number that it was given. Whoever knows the
number of his beginning can so tell later who was erased since, without a look at any clock. A user is kept as a hash.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pymongo import ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession

from convostore.gateways.operation import Operation
from convostore.models.identity import AFTER_SEPARATOR, SEPARATOR, join
from convostore.models.keys import digest

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway

COLLECTION = "erasures"
KEPT_DAYS = 30  # longer than any import takes
_OLD = {"$dateSubtract": {"startDate": "$$NOW", "unit": "day", "amount": KEPT_DAYS}}
_NEXT = {"number": {"$add": [{"$ifNull": ["$number", 0]}, 1]}}

Stored = dict[str, Any]


class Erased(NamedTuple):
    """Who was erased.

    Attributes:
        everybody: whether it was the whole tenant.
        users: hashes of users.
    """

    everybody: bool = False
    users: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return self.everybody or bool(self.users)

    def includes(self, user_id: str) -> bool:
        """Say whether a user was erased."""
        return self.everybody or (bool(self.users) and digest(user_id) in self.users)


class ErasureMarks:
    """The marks of one tenant.

    Args:
        gateway: the way to the database.
        tenant_id: whose they are.
    """

    def __init__(self, gateway: "MongoGateway", tenant_id: str) -> None:
        self._gateway = gateway
        self._collection = gateway.database[COLLECTION]
        self._tenant_id = tenant_id

    async def number(self) -> int:
        """Return the present number."""
        return int((await self._of_tenant()).get("number", 0))

    async def make(self, user_id: str | None = None) -> None:
        """Mark a user, or the whole tenant, as erased; those of long ago are removed."""
        whole = [{"$set": {"whole": "$number"}}] if user_id is None else []
        number = int((await self._change(join(self._tenant_id), [{"$set": _NEXT}, *whole]))["number"])
        if user_id is not None:
            kept = {"number": {"$max": ["$number", number]}, "at": "$$NOW"}
            await self._change(join(self._tenant_id, digest(user_id)), [{"$set": kept}])
        await self._remove_old()

    async def since(self, number: int) -> Erased:
        """Return who was erased since the number was this one."""
        tenant = await self._of_tenant()
        if tenant.get("number", 0) == number:
            return Erased()  # as nearly always
        if tenant.get("whole", 0) > number:
            return Erased(everybody=True)
        found = await self._find({"_id": self._users(), "number": {"$gt": number}})
        return Erased(users=frozenset(each["_id"].rpartition(SEPARATOR)[2] for each in found))

    def _users(self) -> dict[str, str]:
        start = join(self._tenant_id)
        return {"$gte": start + SEPARATOR, "$lt": start + AFTER_SEPARATOR}

    async def _of_tenant(self) -> Stored:
        return next(iter(await self._find({"_id": join(self._tenant_id)})), {})

    async def _find(self, query: Mapping[str, Any]) -> list[Stored]:
        async def attempt(session: AsyncClientSession | None) -> list[Stored]:
            return await self._collection.find(query, session=session).to_list()

        return await self._gateway.run(Operation("find", COLLECTION, "ErasureMark", repeatable=True), attempt)

    async def _change(self, identity: str, change: Sequence[Mapping[str, Any]]) -> Stored:
        async def attempt(session: AsyncClientSession | None) -> Stored:
            changed = await self._collection.find_one_and_update(
                {"_id": identity}, change, upsert=True, return_document=ReturnDocument.AFTER, session=session
            )
            return changed or {}

        # Twice does no harm: a number that nobody was given is none that anybody begins with.
        operation = Operation("find_one_and_update", COLLECTION, "ErasureMark", writes=True, repeatable=True)
        return await self._gateway.run(operation, attempt)

    async def _remove_old(self) -> None:
        query = {"_id": self._users(), "$expr": {"$lt": ["$at", _OLD]}}
        await self._gateway.run(
            Operation("delete_many", COLLECTION, "ErasureMark", writes=True, repeatable=True),
            lambda session: self._collection.delete_many(query, session=session),
        )
