"""Reads of short runs of documents that concurrent callers make together.

Most of what the driver and the server spend on such a read does not depend on how much is read, so those that travel
together become one pipeline of unions: half of the server's time, a third of the driver's.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from convostore.gateways.cancellation import finish
from convostore.gateways.find_command import Find, Finder
from convostore.gateways.flights import BatchLimits
from convostore.gateways.operation import Operation
from convostore.gateways.shared import Shared, Stored
from convostore.repositories.exceptions import (
    ConnectionError,  # noqa: A004 - the name is the specification's
    RepositoryError,
)

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway

MOST_TOGETHER = 2_000  # documents in a batch: whoever makes them of the answer lets nothing else run meanwhile
_LIMITS = BatchLimits(items=64, size=MOST_TOGETHER)
_ONE_BATCH = 1_000_000
_PLACE = "_place"  # whose document it is; no stored field has this name


class SharedFinds(Shared[Find, list[Stored]]):
    """Reads of one collection that find a limited number of documents.

    Args:
        gateway: carries out the operations.
        name: of the collection.
    """

    def __init__(self, gateway: "MongoGateway", name: str) -> None:
        super().__init__(gateway, name, _LIMITS)
        self._finder = Finder(self._collection)

    async def find(self, owner: str, asked: Find, operation: Operation) -> list[Stored]:
        """Return the documents in their order; in a unit of work the read goes by itself.

        Args:
            owner: whose turn it is.
            asked: what for, with a limit, and found by an index: a slow one delays those that travel with it.
            operation: what it is, for errors.

        Raises:
            RepositoryError: whatever went wrong, translated.
        """
        if self._gateway.in_transaction():
            return await self._alone(asked, operation)
        return await self._batcher.call(owner, asked, lambda: self._alone(asked, operation), size=asked.limit)

    async def _alone(self, asked: Find, operation: Operation) -> list[Stored]:
        return await self._gateway.run(operation, lambda session: self._finder.find(asked, session))

    async def _send(self, several: Sequence[Find]) -> Sequence[list[Stored] | RepositoryError]:
        operation = Operation("aggregate", self._name, self._name, repeatable=True, calls=len(several))
        try:
            found = await self._gateway.run(operation, lambda _: self._together(several))
        except ConnectionError:
            raise
        except RepositoryError:  # which of them the server refuses is seen when each goes by itself
            return await asyncio.gather(*(self._answer(asked) for asked in several))
        return _sorted_out(found, len(several))

    async def _answer(self, asked: Find) -> list[Stored] | RepositoryError:
        try:
            return await self._alone(asked, Operation("find", self._name, self._name, repeatable=True))
        except RepositoryError as error:
            return error

    async def _together(self, several: Sequence[Find]) -> list[Stored]:
        first, *others = [_stages(asked, place) for place, asked in enumerate(several)]
        unions = [{"$unionWith": {"coll": self._name, "pipeline": stages}} for stages in others]
        cursor = await self._collection.aggregate([*first, *unions], batchSize=_ONE_BATCH)
        try:
            return await cursor.to_list()
        finally:
            if cursor.alive and cursor.cursor_id:  # a cancelled reader must not leave it open
                await finish(cursor.close())


def _stages(asked: Find, place: int) -> list[dict[str, Any]]:
    return [
        {"$match": asked.query},
        {"$sort": dict(asked.sort)},
        {"$limit": asked.limit},
        {"$addFields": {_PLACE: place}},
    ]


def _sorted_out(found: list[Stored], count: int) -> list[list[Stored]]:
    answers: list[list[Stored]] = [[] for _ in range(count)]
    for document in found:
        answers[document.pop(_PLACE)].append(document)
    return answers
