"""The transaction a task is in, on the driver's side."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import TypeVar

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import ConfigurationError, ConnectionFailure, PyMongoError

from convostore.gateways.cancellation import cancel_once, finish
from convostore.gateways.operation import Operation
from convostore.gateways.shared_deadline import time_left
from convostore.gateways.translation import DRIVER_ERRORS, is_unknown_commit, translate
from convostore.repositories.exceptions import (
    DeadlineExceededError,
    Outcome,
    RepositoryError,
    TransactionAbortedError,
    TransactionError,
)

T = TypeVar("T")
Attempt = Callable[[AsyncClientSession | None], Awaitable[T]]
_COMMIT = Operation("commit", "", "UnitOfWork", writes=True)
_PAUSE = 0.02
_FAREWELL = 0.5  # seconds that giving up may take, also where the deadline is over
_LAST_WORD = 0.1
_GRACE = 0.5  # seconds for a cancelled operation: an abort that overtakes it would leave open what it then begins

_current: ContextVar["MongoTransaction | None"] = ContextVar("convostore_transaction", default=None)


class MongoTransaction:
    """One transaction on one session, owned by the task that began it.

    After the first failure nothing more is sent: the server has given the transaction up, whatever the caller makes
    of the error.

    Attributes:
        failure: the first error of an operation in it, or None.
        touched: the identities of conversations that it has written to.
    """

    def __init__(self, session: AsyncClientSession, owner: object, deadline: float) -> None:
        self.owner = owner
        self.failure: BaseException | None = None
        self.touched: set[str] = set()
        self._session = session
        self._deadline = deadline
        self._used = False
        self._task = asyncio.current_task()
        self._token = _current.set(self)

    async def run(self, operation: Operation, attempt: Attempt[T]) -> T:
        """Carry out one operation in the transaction.

        Raises:
            TransactionAbortedError: an earlier operation failed.
            TransactionError: this task did not begin the transaction.
            RepositoryError: the translated error of the operation, which ends the transaction.
        """
        self._check_owner(operation)
        self._used = True
        try:
            async with asyncio.timeout(time_left(self._deadline)):
                return await cancel_once(attempt(self._session), _GRACE)
        except DRIVER_ERRORS as error:
            failure = translate(error, operation)
            failure.outcome = Outcome.NOT_APPLIED  # there will be no commit
            self.failure = failure
            raise failure from error
        except BaseException as error:
            self.failure = error  # cancelled: the server may still be at it
            raise

    def _check_owner(self, operation: Operation) -> None:
        if asyncio.current_task() is not self._task:
            raise TransactionError(
                "a unit of work belongs to the task that opened it: await its operations there, one after the "
                "other, and start other tasks outside it",
                operation.name,
            )
        if self.failure is not None:
            raise TransactionAbortedError(
                f"the unit of work has failed already ({type(self.failure).__name__}); leave it, and run it again",
                operation.name,
            )

    async def commit(self) -> None:
        """Make everything happen; survives the cancellation of the caller.

        Raises:
            TransactionConflictError: nothing happened; the whole may be run again.
            RepositoryError: the commit failed; ``outcome`` says whether that is certain.
        """
        await finish(self._commit(time_left(self._deadline)))

    async def abort(self) -> None:
        """Make nothing happen; survives the cancellation of the caller, and never raises a driver's error."""
        await finish(self._abort(max(_FAREWELL, time_left(self._deadline))))

    async def _abort(self, seconds: float) -> None:
        is_known = not self._used or await self._abort_until_known(seconds)
        await self._end(_FAREWELL if is_known else _LAST_WORD)

    async def _abort_until_known(self, seconds: float) -> bool:
        # The driver tries twice and says nothing. Left open, the transaction would block other writers for a minute.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    if await self._abort_once():
                        return True
                    await asyncio.sleep(_PAUSE)
        return False

    async def _abort_once(self) -> bool:
        try:
            await self._session.client.admin.command("abortTransaction", session=self._session)
        except (ConnectionFailure, ConfigurationError):  # the second of a member that is just starting
            return False
        except PyMongoError:
            return True  # the server has given it up already
        return True

    async def _commit(self, seconds: float) -> None:
        if seconds <= 0:
            await self._abort(_FAREWELL)
            raise DeadlineExceededError("MongoDB", message="no time was left to commit: nothing was applied")
        try:
            async with asyncio.timeout(seconds):
                await self._commit_until_known()
        except DRIVER_ERRORS as error:
            raise _commit_failure(error) from error
        finally:
            await self._end(_FAREWELL)

    async def _commit_until_known(self) -> None:
        while True:
            try:
                return await self._session.commit_transaction()
            except DRIVER_ERRORS as error:
                if not is_unknown_commit(error):
                    raise
            await asyncio.sleep(_PAUSE)

    async def _end(self, seconds: float) -> None:
        # Ending the session aborts what is still open. The driver swallows most of what goes wrong there, and the rest
        # tells nobody anything: the server gives up an abandoned transaction by itself.
        with suppress(*DRIVER_ERRORS):
            async with asyncio.timeout(min(self._deadline, seconds)):
                await self._session.end_session()

    def leave(self) -> None:
        """Stop being the current transaction of the task."""
        _current.reset(self._token)


def current_transaction(owner: object) -> MongoTransaction | None:
    """Return the transaction of this owner that the present context is in, if any."""
    transaction = _current.get()
    return transaction if transaction is not None and transaction.owner is owner else None


def _commit_failure(error: Exception) -> RepositoryError:
    failure = translate(error, _COMMIT)
    if isinstance(error, TimeoutError):
        failure.outcome = Outcome.UNKNOWN
    return failure
