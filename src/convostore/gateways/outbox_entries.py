"""The entries of the outbox, of all tenants, as those who carry them out see them.

When an entry is due is said by the server's clock alone. Whoever takes one makes it due again later, so that it is
nobody's else meanwhile, and comes back if he dies.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pymongo import ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection

from convostore.gateways.operation import Operation

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway

COLLECTION = "outbox"
ENTITY = "OutboxEntry"
AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)  # due by whatever clock

Stored = dict[str, Any]


class Waiting(NamedTuple):
    """What is in the outbox.

    Attributes:
        entries: how many.
        failed: those that were tried more than once.
    """

    entries: int
    failed: int


class OutboxEntries:
    """The entries of a database.

    Args:
        gateway: the way to it.
    """

    def __init__(self, gateway: "MongoGateway") -> None:
        self._gateway = gateway
        self._collection: AsyncCollection[Stored] = gateway.database[COLLECTION]

    def _operation(self, name: str, identity: str = "", *, repeatable: bool = True) -> Operation:
        return Operation(name, COLLECTION, ENTITY, identity, writes=True, repeatable=repeatable)

    async def take(self, seconds: float, identity: str | None = None) -> Stored | None:
        """Take an entry that is due, this one or any, for so many seconds; None if there is none."""
        query: Stored = {"$expr": {"$lte": ["$due_at", "$$NOW"]}}
        if identity is not None:
            query["_id"] = identity
        change = [{"$set": {"due_at": _in(seconds), "attempts": {"$add": ["$attempts", 1]}}}]

        async def attempt(session: AsyncClientSession | None) -> Stored | None:
            return await self._collection.find_one_and_update(
                query, change, sort=[("due_at", 1)], return_document=ReturnDocument.AFTER, session=session
            )

        # An answer that was lost leaves the entry taken by nobody, until its time is up.
        return await self._gateway.run(self._operation("find_one_and_update", repeatable=False), attempt)

    async def postpone(self, identity: str, seconds: float) -> None:
        """Make an entry due in so many seconds."""
        await self._update(identity, [{"$set": {"due_at": _in(seconds)}}])

    async def strike_out(self, identity: str, effect: str) -> None:
        """Take an effect out of an entry: it is there."""
        await self._update(identity, {"$pull": {"effects": effect}})

    async def _update(self, identity: str, change: Any) -> None:
        await self._gateway.run(
            self._operation("update_one", identity),
            lambda session: self._collection.update_one({"_id": identity}, change, session=session),
        )

    async def remove(self, identity: str) -> None:
        """Remove an entry whose effects are all there."""
        query = {"_id": identity, "effects": []}
        await self._gateway.run(
            self._operation("delete_one", identity), lambda session: self._collection.delete_one(query, session=session)
        )

    async def waiting(self) -> Waiting:
        """Count what is in the outbox."""
        failed = {"attempts": {"$gt": 1}}
        count = self._collection.count_documents
        operation = Operation("count_documents", COLLECTION, ENTITY, repeatable=True)
        return Waiting(
            await self._gateway.run(operation, lambda session: count({}, session=session)),
            await self._gateway.run(operation, lambda session: count(failed, session=session)),
        )


def _in(seconds: float) -> Stored:
    return {"$dateAdd": {"startDate": "$$NOW", "unit": "millisecond", "amount": round(seconds * 1000)}}
