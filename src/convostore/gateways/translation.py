"""From the driver's errors to our own: labels first, then class, then server code.

Translation also strips the driver's error of what it quotes (keys, documents), since it stays attached as the cause
and would otherwise reach a log with the traceback.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import bson.errors
from pymongo import errors

from convostore.gateways.operation import Operation
from convostore.gateways.waiting import CrowdedError
from convostore.repositories.exceptions import (
    ConnectionError,  # noqa: A004 - the name is the specification's
    CorruptDocumentError,
    DeadlineExceededError,
    DuplicateEntityError,
    Outcome,
    RepositoryError,
    TransactionConflictError,
    TransactionError,
    ValidationError,
)

DATABASE = "MongoDB"
DRIVER_ERRORS = (
    errors.PyMongoError,
    bson.errors.BSONError,
    TimeoutError,
    OverflowError,
    UnicodeEncodeError,
    CrowdedError,
    RuntimeError,  # what the driver raises in another event loop than its own
)
Factory = Callable[[Exception, Operation], RepositoryError]

NO_TRANSACTIONS = (
    "this MongoDB server has no transactions: a unit of work needs a replica set (one member is enough) or a "
    "sharded cluster"
)


def _outcome(operation: Operation) -> Outcome:
    return Outcome.UNKNOWN if operation.writes else Outcome.NOT_APPLIED


def _disconnected(error: Exception, operation: Operation) -> RepositoryError:
    message = f"connection to {DATABASE} lost during {operation.name}"
    return ConnectionError(DATABASE, error, outcome=_outcome(operation), message=message)


def _unreachable(error: Exception, _: Operation) -> RepositoryError:
    return ConnectionError(DATABASE, error)


def _not_ready(error: Exception, operation: Operation) -> RepositoryError:
    # A member that is just starting knows of no sessions; nothing was sent to it.
    return ConnectionError(DATABASE, error, message=f"a server of {DATABASE} is not ready for {operation.name}")


def _late(error: Exception, operation: Operation) -> RepositoryError:
    message = f"{DATABASE} did not answer {operation.name} in time"
    return DeadlineExceededError(DATABASE, error, outcome=_outcome(operation), message=message)


def _busy(error: Exception, operation: Operation) -> RepositoryError:
    message = f"no connection to {DATABASE} became free for {operation.name}: the pool is exhausted"
    return DeadlineExceededError(DATABASE, error, message=message)


def _crowded(error: Exception, operation: Operation) -> RepositoryError:
    message = f"too many calls wait for {DATABASE}: {operation.name} was not sent"
    return DeadlineExceededError(DATABASE, error, message=message)


def _too_large(_: Exception, operation: Operation) -> RepositoryError:
    return ValidationError(f"document: {_subject(operation)} is larger than the database allows", "document")


def _not_storable(_: Exception, operation: Operation) -> RepositoryError:
    return ValidationError(f"document: {_subject(operation)} holds what cannot be stored", "document")


def _unreadable(_: Exception, operation: Operation) -> RepositoryError:
    return CorruptDocumentError(operation.entity_type, operation.entity_id, "(encoding)")


def _duplicate(error: Exception, operation: Operation) -> RepositoryError:
    duplicate = DuplicateEntityError(operation.entity_type, operation.entity_id)
    duplicate.conflicting_fields = _conflicting_fields(error)
    return duplicate


def _conflict(error: Exception, operation: Operation) -> RepositoryError:
    text = f"{operation.name} ran into another transaction"
    if isinstance(error, errors.ConnectionFailure):
        text = f"the transaction was lost with its connection or primary during {operation.name}"
    return TransactionConflictError(text, operation.name)


def _no_transactions(_: Exception, operation: Operation) -> RepositoryError:
    return TransactionError(NO_TRANSACTIONS, operation.name)


def _transaction_gone(_: Exception, operation: Operation) -> RepositoryError:
    return TransactionConflictError("the server has given up the transaction", operation.name)


def _refused(error: Exception, operation: Operation) -> RepositoryError:
    return RepositoryError(f"{DATABASE} refused {operation.name}: {_summary(error)}")


def _closed(_: Exception, operation: Operation) -> RepositoryError:
    return RepositoryError(f"{operation.name}: the store is closed, or belongs to another event loop than this one")


def _denied(error: Exception, operation: Operation) -> RepositoryError:
    return RepositoryError(f"{DATABASE} denied {operation.name}: not authorized ({_summary(error)})")


_BY_CLASS: tuple[tuple[type[Exception], Factory], ...] = (
    (errors.DuplicateKeyError, _duplicate),
    (errors.DocumentTooLarge, _too_large),
    (errors.WaitQueueTimeoutError, _busy),
    (CrowdedError, _crowded),
    (errors.ServerSelectionTimeoutError, _unreachable),
    (errors.NetworkTimeout, _late),
    (errors.ExecutionTimeout, _late),
    (errors.ConnectionFailure, _disconnected),
    (errors.ConfigurationError, _not_ready),
    (TimeoutError, _late),
    (bson.errors.InvalidDocument, _not_storable),
    (bson.errors.InvalidBSON, _unreadable),
    (errors.InvalidOperation, _closed),
    (RuntimeError, _closed),
    (OverflowError, _not_storable),
    (UnicodeEncodeError, _not_storable),
)

_DUPLICATE = 11000
_BY_CODE: dict[int, Factory] = {
    _DUPLICATE: _duplicate,
    20: _no_transactions,
    263: _no_transactions,
    112: _conflict,
    251: _transaction_gone,
    244: _transaction_gone,
    50: _late,
    262: _late,
    13: _denied,
    18: _denied,
    8000: _denied,
    121: _not_storable,
    10334: _too_large,
    17419: _too_large,
    17420: _too_large,
    64: _late,
}

_BAD_VALUE = 2  # also what an insert of a little more than 16 MB is answered with


def translate(error: Exception, operation: Operation) -> RepositoryError:
    """Return our error for an error of the driver; the driver's becomes its stripped cause."""
    translated = _factory(error)(error, operation)
    strip(error)
    return translated.caused_by(error)


def is_transient_in_transaction(error: BaseException) -> bool:
    """Say whether the whole transaction may be run again."""
    return isinstance(error, errors.PyMongoError) and error.has_error_label("TransientTransactionError")


def is_unknown_commit(error: BaseException) -> bool:
    """Say whether a commit may be sent again to learn what became of it."""
    return isinstance(error, errors.PyMongoError) and error.has_error_label("UnknownTransactionCommitResult")


def _factory(error: Exception) -> Factory:
    if is_transient_in_transaction(error):
        return _conflict
    code = _code(error)
    if code in _BY_CODE:
        return _BY_CODE[code]
    if code == _BAD_VALUE and "too large" in _server_text(error):
        return _too_large
    for cls, factory in _BY_CLASS:
        if isinstance(error, cls):
            return factory
    return _write_concern_or_refused(error)


def _write_concern_or_refused(error: Exception) -> Factory:
    # A write that failed its write concern was applied by the primary, and may yet be rolled back.
    details = getattr(error, "details", None) or {}
    concerned = isinstance(error, errors.WriteConcernError) or bool(details.get("writeConcernErrors"))
    return _late if concerned else _refused


def write_errors(error: BaseException) -> list[dict[str, Any]]:
    """Return the single errors of a failed batch, each with ``index`` and ``code``."""
    details = getattr(error, "details", None) or {}
    found: list[dict[str, Any]] = details.get("writeErrors", [])
    return found


class Failure(NamedTuple):
    """What became of one operation of a batch that the server refused.

    Attributes:
        place: its place in the batch.
        code: the server's.
        details: what the server says of it.
    """

    place: int
    code: int
    details: dict[str, Any]

    def translated(self, operation: Operation) -> RepositoryError:
        """Return our error, as for the operation by itself."""
        cls = errors.DuplicateKeyError if self.code == _DUPLICATE else errors.WriteError
        return translate(cls(str(self.details.get("errmsg", "")), self.code, self.details), operation)


def failures_of(error: errors.BulkWriteError) -> list[Failure]:
    """Return what was refused of a batch.

    Raises:
        PyMongoError: what is wrong is not one operation or the other; above all a write concern that was not met, for
            then even what was applied may yet be rolled back.
    """
    concerns = error.details.get("writeConcernErrors")
    if concerns:
        raise errors.WriteConcernError(concerns[0].get("errmsg", ""), concerns[0].get("code"), concerns[0]) from error
    refused = write_errors(error)
    if not refused:
        raise error
    return [Failure(each["index"], each["code"], each) for each in refused]


def _code(error: Exception) -> int | None:
    failures = write_errors(error)
    return failures[0].get("code") if failures else getattr(error, "code", None)


def _server_text(error: Exception) -> str:
    details = (write_errors(error) or [getattr(error, "details", None) or {}])[0]
    return str(details.get("errmsg", ""))


def _conflicting_fields(error: Exception) -> tuple[str, ...]:
    details = (write_errors(error) or [getattr(error, "details", None) or {}])[0]
    return tuple(details.get("keyPattern", {"_id": 1}))


def _subject(operation: Operation) -> str:
    return f"{operation.entity_type} '{operation.entity_id}'" if operation.entity_id else operation.entity_type


def _summary(error: Exception) -> str:
    details = getattr(error, "details", None) or {}
    return f"{details.get('codeName', type(error).__name__)}, code {_code(error)}"


def strip(error: BaseException) -> None:
    """Take out of a driver's error, in place, everything but its class, code and labels."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, errors.PyMongoError | bson.errors.BSONError):
            _strip_one(current)
        current = current.__cause__ or current.__context__


def _strip_one(error: BaseException) -> None:
    text = f"{type(error).__name__} (code {getattr(error, 'code', None)})"
    error.args = (text,)
    for name in ("_message", "_OperationFailure__details", "_AutoReconnect__details", "_document", "details"):
        if name in error.__dict__:
            error.__dict__[name] = text if name == "_message" else {"code": getattr(error, "code", None)}
