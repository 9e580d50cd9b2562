"""Inserts that concurrent callers make together."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError

from convostore.gateways.operation import Operation
from convostore.gateways.shared import Shared, Stored
from convostore.gateways.translation import Failure, failures_of
from convostore.repositories.exceptions import RepositoryError

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway


class Run(NamedTuple):
    """Documents to be stored one after the other, none behind one that was refused.

    Attributes:
        documents: as they are stored, at least one.
        operation: what it is, for errors.
        size: bytes of all of them.
    """

    documents: Sequence[Stored]
    operation: Operation
    size: int


class Placed(NamedTuple):
    """What became of a run.

    Attributes:
        stored: how many of its documents are known to be stored.
        error: why the next one is not, or may not be; None if all are.
    """

    stored: int
    error: RepositoryError | None


class SharedInserts(Shared[Run, Placed]):
    """Inserts into one collection; those that travel together become one ``insert_many``.

    Args:
        gateway: carries out the operations.
        name: of the collection.
    """

    def __init__(self, gateway: "MongoGateway", name: str) -> None:
        super().__init__(gateway, name, subject=lambda run: run.documents[0]["_id"])

    async def insert(self, owner: str, run: Run) -> Placed:
        """Store a run of documents; in a unit of work it goes by itself."""
        try:
            if self._gateway.in_transaction():
                return await self._alone(run)
            return await self._batcher.call(owner, run, lambda: self._alone(run), size=run.size, writes=True)
        except RepositoryError as error:
            return Placed(0, error)

    async def _alone(self, run: Run) -> Placed:
        if len(run.documents) > 1:
            return (await self._send([run]))[0]
        document = run.documents[0]
        await self._gateway.run(run.operation, lambda session: self._collection.insert_one(document, session=session))
        return Placed(1, None)

    async def _send(self, runs: Sequence[Run]) -> list[Placed]:
        if all(len(run.documents) == 1 for run in runs):
            return await self._insert_each(runs)
        return await self._insert_in_order(runs)

    async def _insert_each(self, runs: Sequence[Run]) -> list[Placed]:
        refused = {failure.place: failure for failure in await self._insert(runs, ordered=False)}
        return [
            Placed(0, refused[place].translated(run.operation)) if place in refused else Placed(1, None)
            for place, run in enumerate(runs)
        ]

    async def _insert_in_order(self, runs: Sequence[Run]) -> list[Placed]:
        """Insert by commands that stop at what is refused, and go on behind the run that it belongs to."""
        placed: list[Placed] = []
        while len(placed) < len(runs):
            rest = runs[len(placed) :]
            try:
                failures = await self._insert(rest, ordered=True)
            except RepositoryError as error:
                return [*placed, *(Placed(0, copy.copy(error)) for _ in rest)]
            placed += _placed(rest, failures)
        return placed

    async def _insert(self, runs: Sequence[Run], *, ordered: bool) -> list[Failure]:
        documents = [document for run in runs for document in run.documents]
        operation = runs[0].operation
        if len(runs) > 1:
            operation = Operation("insert_many", self._name, self._name, writes=True, calls=len(runs))

        async def attempt(session: AsyncClientSession | None) -> list[Failure]:
            try:
                await self._collection.insert_many(documents, ordered=ordered, session=session)
            except BulkWriteError as error:
                if session is not None and session.in_transaction:
                    raise  # which has come to its end by it
                return failures_of(error)
            return []

        return await self._gateway.run(operation, attempt)


def _placed(runs: Sequence[Run], failures: Sequence[Failure]) -> list[Placed]:
    """Return what became of the runs up to the one that was refused."""
    placed: list[Placed] = []
    end = failures[0].place if failures else sum(len(run.documents) for run in runs)
    for run in runs:
        if end < len(run.documents):
            return [*placed, Placed(end, failures[0].translated(run.operation))]
        end -= len(run.documents)
        placed.append(Placed(len(run.documents), None))
    return placed
