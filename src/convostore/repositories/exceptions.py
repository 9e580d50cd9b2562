"""The errors of convostore.

Every error that leaves the library is one of these; no driver error escapes.

    RepositoryError
    ├─ EntityNotFoundError
    ├─ DuplicateEntityError
    │  └─ IdempotencyConflictError
    ├─ ConcurrencyError
    ├─ CorruptDocumentError
    ├─ ValidationError                  also a ValueError
    │  └─ TenantMismatchError
    ├─ ConnectionError                  retryable; also a builtin ConnectionError
    │  ├─ DeadlineExceededError
    │  └─ LocalServerError              not retryable
    └─ TransactionError
       ├─ TransactionConflictError      retryable
       └─ TransactionAbortedError

Messages carry identifiers and field names, never the content of a document or a credential.
"""

import builtins
from enum import StrEnum
from typing import Any, ClassVar, Self

__all__ = [
    "ConcurrencyError",
    "ConnectionError",
    "CorruptDocumentError",
    "DeadlineExceededError",
    "DuplicateEntityError",
    "EntityNotFoundError",
    "IdempotencyConflictError",
    "LocalServerError",
    "Outcome",
    "RepositoryError",
    "TenantMismatchError",
    "TransactionAbortedError",
    "TransactionConflictError",
    "TransactionError",
    "ValidationError",
]


class Outcome(StrEnum):
    """What became of a write that ended in an error."""

    NOT_APPLIED = "not applied"
    UNKNOWN = "unknown"


def _restore(cls: type["RepositoryError"], args: tuple[Any, ...], state: dict[str, Any]) -> "RepositoryError":
    error = cls.__new__(cls, *args)
    error.args = args  # an OSError leaves this to the constructor
    error.__dict__.update(state)
    return error


class RepositoryError(Exception):
    """Base exception for repository operations.

    Attributes:
        retryable: the same call may succeed if it is made again.
        outcome: whether a write that ended so was certainly not applied, or may have been.
        original_error: the driver's error, stripped of contents, where there is one.
    """

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        original_error: Exception | None = None,
        *,
        outcome: Outcome = Outcome.NOT_APPLIED,
    ) -> None:
        super().__init__(message)
        self.original_error = original_error
        self.outcome = outcome

    def __reduce__(self) -> tuple[Any, ...]:
        # The constructors of the subclasses take other arguments than Exception.args keeps.
        return _restore, (type(self), self.args, self.__dict__.copy())

    def caused_by(self, error: Exception) -> Self:
        """Remember the driver's error and return self."""
        self.original_error = error
        return self


class EntityNotFoundError(RepositoryError):
    """Exception raised when an entity is not found."""

    def __init__(self, entity_type: str, entity_id: str) -> None:
        super().__init__(f"{entity_type} with ID '{entity_id}' not found")
        self.entity_type = entity_type
        self.entity_id = entity_id


class DuplicateEntityError(RepositoryError):
    """Exception raised when trying to create a duplicate entity.

    Attributes:
        conflicting_fields: the fields of the unique index that refused the write.
    """

    def __init__(self, entity_type: str, entity_id: str) -> None:
        super().__init__(f"{entity_type} with ID '{entity_id}' already exists")
        self.entity_type = entity_type
        self.entity_id = entity_id
        self.conflicting_fields: tuple[str, ...] = ("_id",)


class IdempotencyConflictError(DuplicateEntityError):
    """Exception raised when an idempotency key is used again with other content."""

    def __init__(self, entity_type: str, entity_id: str) -> None:
        super().__init__(entity_type, entity_id)
        self.args = (f"{entity_type} with idempotency key '{entity_id}' is stored with other content",)


class ConcurrencyError(RepositoryError):
    """Exception raised when the entity was changed by somebody else since it was read.

    Read it again, apply the change to what is there now, and update that; ``update_with`` does it for you.
    """

    def __init__(
        self,
        expected_version: int,
        actual_version: int,
        entity_type: str = "Entity",
        entity_id: str = "",
    ) -> None:
        super().__init__(f"{entity_type} with ID '{entity_id}' is at version {actual_version}, not {expected_version}")
        self.expected_version = expected_version
        self.actual_version = actual_version
        self.entity_type = entity_type
        self.entity_id = entity_id


class CorruptDocumentError(RepositoryError):
    """Exception raised when a stored document is not what convostore writes.

    Attributes:
        field: the first field that is missing or of a wrong type.
    """

    def __init__(self, entity_type: str, entity_id: str, field: str) -> None:
        super().__init__(f"{entity_type} with ID '{entity_id}' cannot be read: field '{field}' is not valid")
        self.entity_type = entity_type
        self.entity_id = entity_id
        self.field = field


class ValidationError(RepositoryError, ValueError):
    """Exception raised when an argument or an entity is not valid; nothing was sent."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class TenantMismatchError(ValidationError):
    """Exception raised when a tenant is named other than the one the repository is bound to."""

    def __init__(self, expected_tenant: str, actual_tenant: str) -> None:
        super().__init__(
            f"tenant_id: this repository is bound to tenant '{expected_tenant}', not '{actual_tenant}'",
            field="tenant_id",
        )
        self.expected_tenant = expected_tenant
        self.actual_tenant = actual_tenant


class ConnectionError(RepositoryError, builtins.ConnectionError):  # noqa: A001 - the name is the specification's
    """Exception raised when the database cannot be reached, or the connection broke before the answer."""

    retryable = True

    def __init__(
        self,
        database_type: str,
        original_error: Exception | None = None,
        *,
        outcome: Outcome = Outcome.NOT_APPLIED,
        message: str | None = None,
    ) -> None:
        super().__init__(message or f"Failed to connect to {database_type}", original_error, outcome=outcome)
        self.database_type = database_type


class DeadlineExceededError(ConnectionError):
    """Exception raised when the database did not answer in time."""


class LocalServerError(ConnectionError):
    """Exception raised when no local server can be found or started."""

    retryable = False


class TransactionError(RepositoryError):
    """Exception raised when a unit of work cannot be carried out."""

    def __init__(
        self,
        message: str,
        operation: str | None = None,
        *,
        outcome: Outcome = Outcome.NOT_APPLIED,
    ) -> None:
        super().__init__(message, outcome=outcome)
        self.operation = operation


class TransactionConflictError(TransactionError):
    """Exception raised when a unit of work ran into another one, or was lost; nothing of it was applied."""

    retryable = True


class TransactionAbortedError(TransactionError):
    """Exception raised when a unit of work goes on after one of its operations failed; nothing was applied."""
