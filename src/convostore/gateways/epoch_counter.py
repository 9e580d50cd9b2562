"""The epoch of the cache: a number, kept in the database, that only rises, and which one is settled."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pymongo import ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession

from convostore.gateways.operation import Operation

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway

COLLECTION = "cache"
_IDENTITY = {"_id": "epoch"}
_READ = Operation("find_one", COLLECTION, "Epoch", repeatable=True)
_CHANGE = Operation("find_one_and_update", COLLECTION, "Epoch", writes=True, repeatable=True)  # twice does no harm


class Epoch(NamedTuple):
    """The state of the number.

    Attributes:
        number: the present one.
        settled: the one whose cells may be in use, this one or one before it.
        election: the latest one that it has been raised for; empty where there are none to be seen.
    """

    number: int
    settled: int
    election: str = ""

    @property
    def numbers(self) -> set[int]:
        """Those whose cells may be in use."""
        return {self.number, self.settled}

    @property
    def is_settled(self) -> bool:
        """Whether the present one may be used."""
        return self.number == self.settled


class EpochCounter:
    """The number of a database; 0, and settled, where nobody has ever raised it.

    Args:
        gateway: the way to it.
    """

    def __init__(self, gateway: "MongoGateway") -> None:
        self._gateway = gateway

    @property
    def election(self) -> str:
        """The latest election of a primary that this process knows of, or empty; later ones are greater."""
        return self._gateway.election

    async def read(self) -> Epoch:
        """Return the state, from the primary."""

        async def attempt(session: AsyncClientSession | None) -> dict[str, Any] | None:
            return await self._gateway.database[COLLECTION].find_one(_IDENTITY, session=session)

        return _epoch(await self._gateway.run(_READ, attempt))

    async def advance(self) -> Epoch:
        """Raise the number, and return the state then."""
        change: dict[str, Any] = {"$inc": {"number": 1}}
        if self.election:
            change["$max"] = {"election": self.election}
        return _epoch(await self._change({}, change, upsert=True))

    async def acknowledge(self) -> Epoch:
        """Raise the number for the latest election, unless somebody has; return the state then."""
        election = self.election
        older = {"$or": [{"election": {"$lt": election}}, {"election": None}]}
        raised = await self._change(older, {"$inc": {"number": 1}, "$set": {"election": election}}, upsert=False)
        # Where there was no number yet, nobody has used the cache.
        first = {"$setOnInsert": {"number": 0, "settled": 0, "election": election}}
        return _epoch(raised or await self._change({}, first, upsert=True))

    async def settle(self, number: int) -> None:
        """Let a number be settled, unless it has been raised since."""
        await self._change({"number": number}, {"$max": {"settled": number}}, upsert=False)

    async def _change(
        self, guard: Mapping[str, Any], change: Mapping[str, Any], *, upsert: bool
    ) -> dict[str, Any] | None:
        async def attempt(session: AsyncClientSession | None) -> dict[str, Any] | None:
            return await self._gateway.database[COLLECTION].find_one_and_update(
                {**_IDENTITY, **guard}, change, upsert=upsert, return_document=ReturnDocument.AFTER, session=session
            )

        return await self._gateway.run(_CHANGE, attempt)


def _epoch(found: dict[str, Any] | None) -> Epoch:
    if found is None:
        return Epoch(0, 0)
    return Epoch(int(found["number"]), int(found.get("settled", 0)), str(found.get("election", "")))
