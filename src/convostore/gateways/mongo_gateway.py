"""The way to MongoDB: one client, and what holds for every call that is made through it."""

import asyncio
import logging
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from convostore.gateways.cancellation import cancel_once, end_by, finish
from convostore.gateways.driver_mends import mend_driver
from convostore.gateways.lanes import Lanes
from convostore.gateways.max_writer import MaxWriter
from convostore.gateways.mongo_administration import MongoAdministration
from convostore.gateways.mongo_transaction import Attempt, MongoTransaction, current_transaction
from convostore.gateways.operation import Observer, Operation, OperationDetails
from convostore.gateways.retry import RetryPolicy, call_again
from convostore.gateways.shared_calls import SharedCalls
from convostore.gateways.shared_deadline import time_left
from convostore.gateways.tenant_database import TenantDatabase
from convostore.gateways.translation import DRIVER_ERRORS, translate
from convostore.gateways.waiting import CrowdedError, Places
from convostore.logs import ROOT, get_logger
from convostore.models.identity import check_identifier
from convostore.repositories.exceptions import DeadlineExceededError, TransactionError, ValidationError

if TYPE_CHECKING:
    from convostore.repositories.conversation_cache import ConversationCache
    from convostore.repositories.newest_cache import NewestCache

T = TypeVar("T")
Client = AsyncMongoClient[dict[str, Any]]

# Seconds that a cancelled call is given to end by itself: nearly always enough, and it saves the connection, which the
# driver otherwise throws away, or forgets to close if it was just being opened.
CANCEL_GRACE = 0.1

# Codes after which the driver's own reads are tried once more, as the retryable reads specification has it; the bare
# commands that ours are it leaves to us.
_PASSING = frozenset({6, 7, 89, 134, 9001})


class MongoGateway:
    """Carries out operations: joins the transaction of the task, holds the deadline, retries, translates, times.

    Args:
        client: the driver's client; closed by ``aclose``.
        database_name: the database that holds the collections.
        deadline: seconds that a call may take, all its attempts together; see ``one_deadline``.
        retry: how repeatable calls are tried again.
        concurrency: calls outside of units of work under way at the same time; further ones wait, first come, first
            served, which the driver's pool does not see to, up to ``MOST_WAITING``.
        observers: told of each call that has ended.
    """

    def __init__(
        self,
        client: Client,
        database_name: str,
        *,
        deadline: float = 10.0,
        retry: RetryPolicy | None = None,
        concurrency: int = 50,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._client = client
        self._database: AsyncDatabase[dict[str, Any]] = client[database_name]
        self.deadline = deadline
        self.retry = retry or RetryPolicy()
        self._places = Places(concurrency)
        self._observers = tuple(observers)
        self._logger = get_logger("mongodb")
        self._debugs = partial(logging.getLogger(f"{ROOT}.mongodb").isEnabledFor, logging.DEBUG)
        self.administration = MongoAdministration(self._database, self.run)
        self._shared: dict[str, SharedCalls] = {}
        self.activity = MaxWriter(self)
        self.lanes: Lanes[Any, Any] = Lanes()
        self.activity.on_missing = self.lanes.forget
        self.cached: ConversationCache | None = None
        self.newest: NewestCache | None = None

    @classmethod
    def connect(cls, uri: str, database_name: str, options: Mapping[str, Any], **policies: Any) -> Self:
        """Return a gateway with a client of its own; the first call connects.

        Args:
            uri: the address, ``mongodb://…`` or ``mongodb+srv://…``.
            database_name: the database that holds the collections.
            options: the driver's options.
            policies: ``deadline``, ``retry``, ``concurrency`` and ``observers`` of the gateway.

        Raises:
            ValidationError: the address or an option is not valid; the message never quotes it.
        """
        mend_driver()
        try:
            # The driver only warns of an option that it does not understand, and goes on without it.
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                client: Client = AsyncMongoClient(uri, **options)
            return cls(client, database_name, **policies)
        except (PyMongoError, ValueError, TypeError, UserWarning, OSError):  # the last of a file that it names
            raise ValidationError("mongodb_uri: not a valid MongoDB address or option", "mongodb_uri") from None

    @property
    def database(self) -> AsyncDatabase[dict[str, Any]]:
        """The driver's database, for the other gateways only."""
        return self._database

    @property
    def election(self) -> str:
        """The latest election of a primary that the driver knows of, or empty; later ones are greater."""
        election = self._client.topology_description.max_election_id
        return "" if election is None else str(election)

    def tenant(self, tenant_id: str) -> TenantDatabase:
        """Return the handle through which everything of one tenant is reached, and nothing else.

        Raises:
            ValidationError: it cannot be an identifier.
        """
        return TenantDatabase(self, check_identifier(tenant_id, "tenant_id"))

    def shared(self, collection: str) -> SharedCalls:
        """Return the calls on a collection that concurrent callers make together."""
        if collection not in self._shared:
            self._shared[collection] = SharedCalls(self, collection)
        return self._shared[collection]

    async def run(self, operation: Operation, attempt: Attempt[T]) -> T:
        """Carry out an operation.

        Args:
            operation: what it is.
            attempt: does it, given the session of the current transaction or None.

        Raises:
            RepositoryError: whatever went wrong, translated.
        """
        started = time.monotonic()
        failure: str | None = None
        try:
            transaction = current_transaction(self)
            if transaction is not None:
                return await transaction.run(operation, attempt)
            return await self._within_deadline(operation, attempt)
        except BaseException as error:
            failure = type(error).__name__
            raise
        finally:
            self._observe(operation, time.monotonic() - started, failure)

    async def _within_deadline(self, operation: Operation, attempt: Attempt[T]) -> T:
        seconds = time_left(self.deadline)
        if seconds <= 0:
            raise DeadlineExceededError("MongoDB", message=f"no time was left for {operation.name}: it was not sent")
        try:
            return await end_by(seconds, CANCEL_GRACE, self._attempts, operation, attempt)
        except TimeoutError as error:
            raise translate(error, operation) from error

    async def _attempts(self, operation: Operation, attempt: Attempt[T]) -> T:
        try:
            return await self._once(operation, attempt)
        except DRIVER_ERRORS as error:
            failure = translate(error, operation)
            if isinstance(error, CrowdedError) or not (
                operation.repeatable and (failure.retryable or getattr(error, "code", None) in _PASSING)
            ):
                raise failure from error
        return await call_again(self.retry, lambda: self._translated(operation, attempt))

    async def _translated(self, operation: Operation, attempt: Attempt[T]) -> T:
        try:
            return await self._once(operation, attempt)
        except DRIVER_ERRORS as error:
            raise translate(error, operation) from error

    async def _once(self, operation: Operation, attempt: Attempt[T]) -> T:
        async with self._places:
            return await self._in_session(attempt) if operation.writes else await attempt(None)

    async def _in_session(self, attempt: Attempt[T]) -> T:
        # A session of its own for each write. The driver's pool would lend that of a cancelled write, which the server
        # may still be at, to the next call, and this would wait for it. Here a cancelled write takes it along.
        session = self._client.start_session(causal_consistency=False)
        try:
            result = await attempt(session)
        except DRIVER_ERRORS:
            await session.end_session()
            raise
        await session.end_session()
        return result

    async def begin(self) -> MongoTransaction:
        """Begin a transaction, which the calls of this task join until it ends.

        Raises:
            TransactionError: the task is in one already.
        """
        if current_transaction(self) is not None:
            raise TransactionError("a unit of work is open already: units of work cannot be nested", "begin")
        session = self._client.start_session()
        await session.start_transaction()
        return MongoTransaction(session, self, self.deadline)

    def in_transaction(self) -> bool:
        """Say whether the present context is in a transaction of this gateway."""
        return current_transaction(self) is not None

    def cache_through(self, cached: "ConversationCache") -> None:
        """Let conversations be read through a cache, which is told of all that is written to them from now on."""
        self.cached = cached
        self.activity.on_written = cached.tell_activity

    async def tell(self, identities: Collection[str]) -> None:
        """Tell all caches, if there are any, of writes to conversations.

        Raises:
            RepositoryError: one of them could not be told.
        """
        caches = [cache for cache in (self.cached, self.newest) if cache is not None and identities]
        told = await asyncio.gather(*(cache.tell(identities) for cache in caches), return_exceptions=True)
        for failure in filter(None, told):
            raise failure

    def touch(self, identity: str) -> None:
        """Note that the present transaction has written to a conversation; it is told once it has happened."""
        transaction = current_transaction(self)
        if transaction is not None:
            transaction.touched.add(identity)

    def _observe(self, operation: Operation, duration: float, error: str | None) -> None:
        if self._debugs():
            self._logger.debug(
                "mongodb operation",
                operation=operation.name,
                collection=operation.collection,
                entity_id=operation.entity_id,
                calls=operation.calls,
                duration_ms=round(duration * 1000, 3),
                error=error,
            )
        for observer in self._observers:
            observer(OperationDetails(operation.name, operation.collection, duration, error, operation.calls))

    async def aclose(self) -> None:
        """Write what is pending and close all connections; survives the cancellation of the caller."""
        await finish(self._close())

    async def _close(self) -> None:
        await self.lanes.aclose()
        for shared in self._shared.values():
            await shared.aclose()
        await self.activity.aclose()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.deadline):
                await cancel_once(self._client.close())
                return
        await self._client.close()  # the server did not answer the farewell, which is not said again
