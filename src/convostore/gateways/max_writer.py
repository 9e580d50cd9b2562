"""Coalesced ``$max`` updates: many in a short time to one document become one, many documents one command.

``$max`` commutes and may be repeated, so it does not matter in which order, how often, or together with what an
update is sent; after an error or a cancellation it is simply sent again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextvars import Context
from typing import Any, Protocol

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from convostore.gateways.mongo_transaction import Attempt
from convostore.gateways.operation import Operation
from convostore.gateways.update_command import update_all
from convostore.logs import get_logger
from convostore.repositories.exceptions import RepositoryError

Values = dict[str, Any]
INTERVAL = 0.03  # seconds; with a flush of a few milliseconds an update is there within 50
_PAUSE_AFTER_FAILURE = 0.5


class _Gateway(Protocol):
    @property
    def database(self) -> AsyncDatabase[dict[str, Any]]: ...

    async def run(self, operation: Operation, attempt: Attempt[Any]) -> Any: ...


class MaxWriter:
    """Collects ``$max`` updates of one collection and writes them in the background.

    Args:
        gateway: carries out the writes.
        collection: the name of the collection.
    """

    def __init__(self, gateway: _Gateway, collection: str = "conversations") -> None:
        self._gateway = gateway
        self._name = collection
        self._pending: dict[str, Values] = {}
        self._in_flight: list[dict[str, Values]] = []
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._logger = get_logger("activity")
        self.on_missing: Callable[[str], None] | None = None
        self.on_written: Callable[[Collection[str]], Awaitable[None]] | None = None

    @property
    def is_pending(self) -> bool:
        """Whether something taken in may not be written yet."""
        return bool(self._pending or self._in_flight)

    def put(self, identity: str, values: Values) -> None:
        """Take in an update; it is written within 50 ms, or when ``settle`` asks for it."""
        _merge(self._pending, identity, values)
        self._wake()

    def _wake(self) -> None:
        if not self._closed and (self._task is None or self._task.done()):
            # A context of its own: the task outlives the unit of work that its creator may be in.
            self._task = asyncio.create_task(self._run(), context=Context())

    async def settle(self, identity: str) -> None:
        """Return once everything taken in for this identity is written.

        Raises:
            RepositoryError: it could not be written; it stays pending.
        """
        batch: dict[str, Values] = {}
        # What somebody else is writing may not be there yet either.
        for taken_in in (self._pending, *self._in_flight):
            if identity in taken_in:
                _merge(batch, identity, taken_in[identity])
        self._pending.pop(identity, None)
        await self._write(batch)

    async def flush(self) -> None:
        """Write everything taken in.

        Raises:
            RepositoryError: it could not be written; it stays pending.
        """
        batch, self._pending = self._pending, {}
        for identity, values in [item for taken_in in self._in_flight for item in taken_in.items()]:
            _merge(batch, identity, values)
        await self._write(batch)

    async def _run(self) -> None:
        while self._pending:
            await asyncio.sleep(INTERVAL)
            batch, self._pending = self._pending, {}
            try:
                await self._write(batch)
            except RepositoryError as error:
                self._logger.warning("activity not written yet", error=type(error).__name__)
                await asyncio.sleep(_PAUSE_AFTER_FAILURE)

    async def _write(self, batch: dict[str, Values]) -> None:
        if not batch:
            return
        self._in_flight.append(batch)
        try:
            matched = await self._gateway.run(self._operation(), lambda session: self._send(batch, session))
            if self.on_written is not None:
                await self.on_written(batch)
        except BaseException:
            for identity, values in batch.items():
                _merge(self._pending, identity, values)
            self._wake()
            raise
        finally:
            self._in_flight.remove(batch)
        if matched < len(batch) and self.on_missing is not None:
            for identity in await self._missing(batch):
                self.on_missing(identity)

    def _operation(self) -> Operation:
        return Operation("bulk_write", self._name, "Activity", writes=True, repeatable=True)

    async def _send(self, batch: dict[str, Values], session: AsyncClientSession | None) -> int:
        # Only documents with a tenant: what has none is the tombstone of a deleted one.
        updates = [
            {"q": {"_id": identity, "tenant_id": {"$exists": True}}, "u": {"$max": values}}
            for identity, values in batch.items()
        ]
        return await update_all(self._collection, updates, session)

    async def _missing(self, batch: Iterable[str]) -> set[str]:
        identities = list(batch)
        query = {"_id": {"$in": identities}, "tenant_id": {"$exists": True}}
        found = await self._gateway.run(
            Operation("find", self._name, "Activity", repeatable=True),
            lambda _: self._collection.find(query, {"_id": 1}).to_list(),
        )
        return set(identities) - {document["_id"] for document in found}

    @property
    def _collection(self) -> AsyncCollection[dict[str, Any]]:
        return self._gateway.database[self._name]

    async def aclose(self) -> None:
        """Write what is pending, once, and stop; what a failure leaves unwritten can be derived from the log."""
        self._closed = True
        try:
            await self.flush()
        except RepositoryError as error:
            self._logger.warning("activity left unwritten", documents=len(self._pending), error=type(error).__name__)
        self._pending = {}
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])


def _merge(into: dict[str, Values], identity: str, values: Values) -> None:
    kept = into.get(identity)
    if kept is None:
        into[identity] = values.copy()
        return
    for name, value in values.items():
        if name not in kept or _is_greater(value, kept[name]):
            kept[name] = value


def _is_greater(value: Any, other: Any) -> bool:
    if type(value) is not dict:
        return bool(value > other)
    # As the server does it: documents compare by their fields in order; the first two of ours decide.
    return tuple(value.values())[:2] > tuple(other.values())[:2]
