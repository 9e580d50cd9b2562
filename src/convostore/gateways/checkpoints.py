"""Checkpoints: how far somebody who follows the changes of a database has come, kept in it."""

from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any

from pymongo.asynchronous.client_session import AsyncClientSession

from convostore.gateways.operation import Operation

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway

COLLECTION = "sync"
CURSOR = "cursor"


class Checkpoints:
    """The checkpoints of a database, by name.

    Args:
        gateway: the way to it.
    """

    def __init__(self, gateway: "MongoGateway") -> None:
        self._gateway = gateway

    async def read(self, name: str) -> dict[str, Any] | None:
        """Return a checkpoint, with ``cursor``, ``saved_at`` and what else was saved, or None."""
        return next((found for found in await self._find({"_id": name})), None)

    async def all(self) -> list[dict[str, Any]]:
        """Return all checkpoints."""
        return await self._find({})

    async def _find(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        async def attempt(session: AsyncClientSession | None) -> list[dict[str, Any]]:
            return await self._gateway.database[COLLECTION].find(query, session=session).to_list()

        found = await self._gateway.run(Operation("find", COLLECTION, "Checkpoint", repeatable=True), attempt)
        return [{**each, "saved_at": each["saved_at"].replace(tzinfo=UTC)} for each in found]

    async def save(self, name: str, cursor: str, facts: Mapping[str, Any], *, anew: bool = False) -> None:
        """Keep how far somebody has come, unless another of the same name has come further.

        Args:
            name: whose it is.
            cursor: where to go on.
            facts: what else is to be kept.
            anew: whatever was kept before: it leads nowhere.
        """
        further = cursor if anew else {"$max": [f"${CURSOR}", cursor]}
        change = [{"$set": {**facts, CURSOR: further, "saved_at": "$$NOW"}}]
        operation = Operation("update_one", COLLECTION, "Checkpoint", name, writes=True, repeatable=True)
        await self._gateway.run(
            operation,
            lambda session: self._gateway.database[COLLECTION].update_one(
                {"_id": name}, change, upsert=True, session=session
            ),
        )
