"""Guarded updates of single documents that concurrent callers make together."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pymongo import UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError

from convostore.gateways.operation import Operation
from convostore.gateways.shared import Shared
from convostore.gateways.translation import DATABASE, Failure, failures_of
from convostore.repositories.exceptions import RepositoryError

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway

# What the server answers to an upsert that would have to insert a document under another identity than was asked for.
_IMPOSSIBLE = 66
_NO_IDENTITY = {"_id": None}


class Update(NamedTuple):
    """A change of one document.

    Attributes:
        query: its identity, and the conditions under which it is changed.
        change: an update document.
        operation: what it is, for errors.
        size: bytes of both.
    """

    query: Mapping[str, Any]
    change: Mapping[str, Any]
    operation: Operation
    size: int


class SharedUpdates(Shared[Update, bool]):
    """Guarded updates in one collection; those that travel together become one ``bulk_write``.

    The server tells of a bulk only how many it matched. So that each caller learns what became of his own, whatever
    matches nothing is made to report itself: as an upsert that cannot insert, since it would give the new document
    another identity than the one it was looked for by, which every server refuses.

    Args:
        gateway: carries out the operations.
        name: of the collection.
    """

    def __init__(self, gateway: "MongoGateway", name: str) -> None:
        super().__init__(gateway, name, subject=lambda update: update.query["_id"])

    async def update(self, owner: str, update: Update) -> bool:
        """Change a document if it matches; say whether it did. In a unit of work the update goes by itself.

        Raises:
            RepositoryError: whatever went wrong, translated.
        """
        if self._gateway.in_transaction():
            return await self._alone(update)
        return await self._batcher.call(owner, update, lambda: self._alone(update), size=update.size, writes=True)

    async def _alone(self, update: Update) -> bool:
        result = await self._gateway.run(
            update.operation,
            lambda session: self._collection.update_one(update.query, update.change, session=session),
        )
        return result.matched_count > 0

    async def _send(self, updates: Sequence[Update]) -> list[bool | RepositoryError]:
        operation = Operation("bulk_write", self._name, self._name, writes=True, calls=len(updates))
        requests = [UpdateOne(update.query, _reporting(update.change), upsert=True) for update in updates]
        failures = await self._gateway.run(operation, lambda session: self._bulk(requests, session))
        refused = {failure.place: failure for failure in failures}
        return [_verdict(refused.get(place), update) for place, update in enumerate(updates)]

    async def _bulk(self, requests: list[UpdateOne], session: AsyncClientSession | None) -> list[Failure]:
        try:
            result = await self._collection.bulk_write(requests, ordered=False, session=session)
        except BulkWriteError as error:
            return failures_of(error)
        if result.upserted_count:
            raise RepositoryError(f"{DATABASE} has inserted a document that it should have refused")
        return []


def _reporting(change: Mapping[str, Any]) -> dict[str, Any]:
    return {**change, "$setOnInsert": _NO_IDENTITY}


def _verdict(failure: Failure | None, update: Update) -> bool | RepositoryError:
    if failure is None:
        return True
    return False if failure.code == _IMPOSSIBLE else failure.translated(update.operation)
