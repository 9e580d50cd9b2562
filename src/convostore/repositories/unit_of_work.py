"""The unit of work: several writes that happen wholly or not at all.

Fowler, "Patterns of Enterprise Application Architecture", 2002. The repositories of the same store join by themselves.
"""

import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Self, TypeVar

from convostore.gateways.cancellation import finish
from convostore.gateways.mongo_gateway import MongoGateway
from convostore.gateways.mongo_transaction import MongoTransaction
from convostore.gateways.retry import pause
from convostore.gateways.shared_deadline import one_deadline, time_left
from convostore.logs import get_logger
from convostore.repositories.exceptions import (
    Outcome,
    RepositoryError,
    TransactionAbortedError,
    TransactionConflictError,
    TransactionError,
)

T = TypeVar("T")
Hook = Callable[[], Awaitable[None] | None]
_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.5

_current: ContextVar["UnitOfWork | None"] = ContextVar("convostore_unit_of_work", default=None)


class UnitOfWork:
    """One attempt to do several things as one; use it with ``async with``, in one task.

    Leaving it normally commits, leaving it by an exception undoes everything.

    Attributes:
        failed_hooks: how many of its after-commit hooks have failed.
    """

    def __init__(self, gateway: MongoGateway) -> None:
        self.failed_hooks = 0
        self._gateway = gateway
        self._hooks: list[Hook] = []
        self._transaction: MongoTransaction | None = None
        self._logger = get_logger("unit_of_work")

    def after_commit(self, hook: Hook) -> None:
        """Call a function once the commit is known; hooks run in order, and never after a rollback.

        One that fails is logged and counted, not raised: the writes stand.
        """
        self._hooks.append(hook)

    async def __aenter__(self) -> Self:
        if self._transaction is not None:
            raise TransactionError("a unit of work can be used once", "begin")
        if not self._gateway.in_transaction():
            with suppress(RepositoryError):  # else it could run into what this process itself has yet to write
                await self._gateway.activity.flush()
        self._transaction = await self._gateway.begin()
        self._token = _current.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        transaction = self._transaction
        assert transaction is not None  # noqa: S101 - for the type checker: entering has set it
        _current.reset(self._token)
        transaction.leave()
        if error is not None or transaction.failure is not None:
            await transaction.abort()
        if error is None:
            await self._complete(transaction)

    async def _complete(self, transaction: MongoTransaction) -> None:
        failure = transaction.failure
        if failure is not None:
            # An error that was caught inside has undone the whole all the same.
            text = f"nothing was applied: an operation had failed ({type(failure).__name__})"
            raise TransactionAbortedError(text, "commit") from failure
        await finish(self._commit(transaction))

    async def _commit(self, transaction: MongoTransaction) -> None:
        # Together and out of reach of a cancellation: what is committed is also announced.
        try:
            await transaction.commit()
        except RepositoryError as error:
            if error.outcome is Outcome.UNKNOWN:
                with suppress(RepositoryError):
                    await self._gateway.tell(transaction.touched)
            raise
        try:
            await self._gateway.tell(transaction.touched)
        finally:
            for hook in self._hooks:
                await self._run_hook(hook)

    async def _run_hook(self, hook: Hook) -> None:
        try:
            result = hook()
            if inspect.isawaitable(result):
                await result
        except Exception as error:  # noqa: BLE001 - a hook is the application's, and may raise anything
            self.failed_hooks += 1
            self._logger.warning("after-commit hook failed", error=type(error).__name__)


async def in_transaction(
    gateway: MongoGateway, work: Callable[[UnitOfWork], Awaitable[T]], seconds: float | None = None
) -> T:
    """Do work in a unit of work, again if it ran into another one; join the unit that is open, if any.

    Args:
        gateway: the way to the database.
        work: may be called several times.
        seconds: until it must be committed, all attempts together; by default as long as a call may take.

    Raises:
        DeadlineExceededError: time is over.
        TransactionConflictError: it ran into others until the time was up.
        RepositoryError: what the work or the commit raised.
    """
    unit = _current.get()
    if unit is not None and gateway.in_transaction():
        return await work(unit)
    with one_deadline(gateway.deadline if seconds is None else seconds):
        return await _until_done(gateway, work, gateway.deadline if seconds is None else seconds)


async def _until_done(gateway: MongoGateway, work: Callable[[UnitOfWork], Awaitable[T]], seconds: float) -> T:
    longest = _FIRST_PAUSE
    while True:
        try:
            return await _once(gateway, work)
        except RepositoryError as error:
            if not _may_run_again(error) or time_left(seconds) < longest:
                raise
        await pause(longest)
        longest = min(2 * longest, _LONGEST_PAUSE)


async def _once(gateway: MongoGateway, work: Callable[[UnitOfWork], Awaitable[T]]) -> T:
    async with UnitOfWork(gateway) as unit:
        return await work(unit)


def _may_run_again(error: RepositoryError) -> bool:
    cause = error.__cause__ if isinstance(error, TransactionAbortedError) else error
    return isinstance(cause, TransactionConflictError) or (
        isinstance(cause, RepositoryError) and cause.retryable and cause.outcome is Outcome.NOT_APPLIED
    )
