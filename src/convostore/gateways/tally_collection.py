"""Tallies: numbers of a tenant that only rise, each in a document of its own."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pymongo import UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession

from convostore.gateways.operation import Operation
from convostore.gateways.tenant_collection import Key
from convostore.models.identity import join

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway


class Tally(NamedTuple):
    """A number that only rises.

    Attributes:
        fields: what the document holds besides, set when it is made.
        name: the field of the number.
        number: what it is at least from now on.
    """

    fields: Mapping[str, Any]
    name: str
    number: int


class TallyCollection:
    """The tallies of one tenant in one collection.

    ``$max`` commutes and may be repeated, so it does not matter who writes, how often, or how late.

    Args:
        gateway: carries out the operations.
        name: of the collection.
        tenant_id: whose tallies.
        entity_type: what errors call them.
    """

    def __init__(self, gateway: "MongoGateway", name: str, tenant_id: str, entity_type: str) -> None:
        self._gateway = gateway
        self._collection = gateway.database[name]
        self._tenant_id = tenant_id
        self._operation = Operation("bulk_write", name, entity_type, writes=True, repeatable=True)

    async def raise_all(self, tallies: Mapping[Key, Tally]) -> None:
        """Raise tallies, and make those that there are not; after an error some may have been raised."""
        updates = [self._update(key, tally) for key, tally in tallies.items()]

        async def attempt(session: AsyncClientSession | None) -> None:
            await self._collection.bulk_write(updates, ordered=False, session=session)

        if updates:
            await self._gateway.run(self._operation, attempt)

    def _update(self, key: Key, tally: Tally) -> UpdateOne:
        made = {**tally.fields, "tenant_id": self._tenant_id}
        change = {"$max": {tally.name: tally.number}, "$setOnInsert": made}
        return UpdateOne({"_id": join(self._tenant_id, *key)}, change, upsert=True)
