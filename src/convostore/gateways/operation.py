"""Operation: what a gateway is doing, for errors, logs and observers."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Operation(NamedTuple):
    """One call to a database.

    Attributes:
        name: the driver's verb, such as ``insert_one``.
        collection: where it acts.
        entity_type: what its documents are called in errors.
        entity_id: the identity it concerns, or empty.
        writes: whether it may change something.
        repeatable: whether doing it twice is the same as doing it once, so that it may be retried.
        calls: how many callers it is made for.
    """

    name: str
    collection: str
    entity_type: str
    entity_id: str = ""
    writes: bool = False
    repeatable: bool = False
    calls: int = 1


@dataclass(frozen=True, slots=True)
class OperationDetails:
    """What an observer is told of a call that has ended.

    Attributes:
        operation: the verb.
        collection: where it acted.
        duration: seconds.
        error: the name of the error's class, or None.
        calls: how many callers it was made for; those who call at the same time share one.
    """

    operation: str
    collection: str
    duration: float
    error: str | None
    calls: int = 1


class Observer(Protocol):
    """Called after each call to a database; must not block."""

    def __call__(self, details: OperationDetails, /) -> None:
        """Take note of a call that has ended."""
        ...
