"""Reads of single documents that concurrent callers make together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convostore.gateways.find_command import Find, Finder
from convostore.gateways.operation import Operation
from convostore.gateways.shared import Shared, Stored

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway


class SharedReads(Shared[str, Stored | None]):
    """Reads of one collection by identity; those that travel together become one ``$in``.

    Several callers who ask for one document share the read: it left after each of them had asked.

    Args:
        gateway: carries out the operations.
        name: of the collection.
        projection: only these fields of the documents; None for all.
    """

    def __init__(self, gateway: "MongoGateway", name: str, projection: Sequence[str] | None = None) -> None:
        super().__init__(gateway, name)
        self._projection = projection
        self._finder = Finder(self._collection)

    async def get(self, owner: str, identity: str, operation: Operation) -> Stored | None:
        """Return a document, or None; in a unit of work the read goes by itself.

        Raises:
            RepositoryError: whatever went wrong, translated.
        """
        if self._gateway.in_transaction():
            return await self._alone(identity, operation)
        return await self._batcher.call(owner, identity, lambda: self._alone(identity, operation))

    async def _alone(self, identity: str, operation: Operation) -> Stored | None:
        asked = Find({"_id": identity}, limit=1, projection=self._projection)
        found = await self._gateway.run(operation, lambda session: self._finder.find(asked, session))
        return found[0] if found else None

    async def _send(self, identities: Sequence[str]) -> list[Stored | None]:
        asked = Find({"_id": {"$in": list(dict.fromkeys(identities))}}, projection=self._projection)
        operation = Operation("find", self._name, self._name, repeatable=True, calls=len(identities))
        found = await self._gateway.run(operation, lambda session: self._finder.find(asked, session))
        left = {document["_id"]: document for document in found}
        given: dict[str, Stored] = {}
        return [_own(identity, left, given) for identity in identities]


def _own(identity: str, left: dict[str, Stored], given: dict[str, Stored]) -> Stored | None:
    """Return a document that is the caller's alone, for what is nested in it will be his to change."""
    if identity in left:
        given[identity] = left.pop(identity)
        return given[identity]
    return _copied(given[identity]) if identity in given else None


def _copied(value: Any) -> Any:
    if type(value) is dict:
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if type(value) is list else value
