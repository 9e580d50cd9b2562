"""From the Redis driver's errors to our own: class first, then the first word of the server's answer.

The server's answers quote keys and arguments, so only that first word is kept.
"""

import redis.exceptions as errors

from convostore.gateways.operation import Operation
from convostore.gateways.redis_wire import ClosedWireError, ForeignLoopError, NoClusterError, Unsent
from convostore.gateways.waiting import CrowdedError
from convostore.repositories.exceptions import (
    ConnectionError,  # noqa: A004 - the name is the specification's
    DeadlineExceededError,
    Outcome,
    RepositoryError,
    ValidationError,
)

DATABASE = "Redis"
DRIVER_ERRORS = (errors.RedisError, OSError, TimeoutError, Unsent, CrowdedError, RuntimeError, UnicodeEncodeError)

# What the server answers while it cannot serve: it starts, fails over, is full, or lost its cluster or disk.
_UNAVAILABLE = {
    "LOADING": "is loading its data",
    "READONLY": "has become a replica",
    "OOM": "is out of memory",
    "CLUSTERDOWN": "has lost its cluster",
    "TRYAGAIN": "is moving the keys",
    "MASTERDOWN": "has lost its primary",
    "NOREPLICAS": "has too few replicas",
    "MISCONF": "cannot write to its disk",
    "BUSY": "is busy with a script",
}
_TELLS_NOTHING = {"error_type", "status_code"}  # of what the driver's errors hold; they need it for their repr
_DENIED = ("NOAUTH", "WRONGPASS", "NOPERM")


def translate(error: Exception, operation: Operation, *, sent: bool) -> RepositoryError:
    """Return our error for an error of the driver; the driver's becomes its stripped cause.

    Args:
        error: the driver's error.
        operation: what failed.
        sent: whether a byte of it may have reached the server.
    """
    if isinstance(error, errors.DataError | UnicodeEncodeError):  # quotes the value, so it is no cause
        strip(error)
        return ValidationError(f"{operation.entity_type}: holds what cannot be sent to {DATABASE}", "value")
    cause = error.__cause__ if isinstance(error, Unsent) and isinstance(error.__cause__, Exception) else error
    outcome = Outcome.UNKNOWN if sent and operation.writes else Outcome.NOT_APPLIED
    translated = _translated(cause, operation, outcome, sent=sent)
    strip(cause)
    return translated.caused_by(cause)


def refused(error: errors.RedisError, operation: Operation) -> RepositoryError:
    """Return our error for an answer of the server that is an error: nothing was applied."""
    word = first_word(error)
    strip(error)
    if word in _UNAVAILABLE:
        message = f"{DATABASE} {_UNAVAILABLE[word]} and refused {operation.name}"
        return ConnectionError(DATABASE, error, message=message).caused_by(error)
    denied = isinstance(error, errors.AuthenticationError) or word in _DENIED
    verb = "denied" if denied else "refused"
    return RepositoryError(f"{DATABASE} {verb} {operation.name}: {word}").caused_by(error)


def first_word(error: Exception) -> str:
    """Return what the server calls the error."""
    code = getattr(error, "status_code", None)
    text = str(error).split(" ", 1)[0].strip(":.")
    names = {
        errors.BusyLoadingError: "LOADING",
        errors.ReadOnlyError: "READONLY",
        errors.NoScriptError: "NOSCRIPT",
        errors.OutOfMemoryError: "OOM",
        errors.NoPermissionError: "NOPERM",
        errors.AuthenticationError: "NOAUTH",
        errors.AuthenticationWrongNumberOfArgsError: "NOAUTH",
        errors.ClusterDownError: "CLUSTERDOWN",
        errors.MasterDownError: "MASTERDOWN",
        errors.TryAgainError: "TRYAGAIN",
    }
    known = next((name for cls, name in names.items() if type(error) is cls), None)
    return code or known or (text if text.isupper() and text.isalpha() else "ERR")


def strip(error: BaseException | None) -> None:
    """Take out of a driver's error and of all that led to it, in place, everything but the class."""
    seen: set[int] = set()
    left = [error]
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, errors.RedisError):
            each.args = (type(each).__name__,)
            for name in vars(each).keys() - _TELLS_NOTHING:
                delattr(each, name)
        if isinstance(each, UnicodeEncodeError):
            each.args, each.object = (), ""
        left += [each.__cause__, each.__context__]


def _translated(error: Exception, operation: Operation, outcome: Outcome, *, sent: bool) -> RepositoryError:
    if isinstance(error, errors.AuthenticationError | errors.ResponseError | errors.BusyLoadingError):
        return refused(error, operation)
    if isinstance(error, errors.TimeoutError | TimeoutError | CrowdedError):
        message = f"{DATABASE} did not answer {operation.name} in time"
        if isinstance(error, CrowdedError):
            message = f"too many calls wait for {DATABASE}: {operation.name} was not sent"
        return DeadlineExceededError(DATABASE, error, outcome=outcome, message=message)
    if isinstance(error, ClosedWireError):
        return RepositoryError(f"{operation.name}: the connections to {DATABASE} are closed")
    if isinstance(error, ForeignLoopError):
        return RepositoryError(f"{operation.name}: the connections to {DATABASE} belong to another event loop")
    if isinstance(error, NoClusterError):
        return RepositoryError(
            f"{operation.name}: the server is part of no cluster, so its address begins with redis://"
        )
    message = f"connection to {DATABASE} lost during {operation.name}"
    if not sent:
        message = f"no connection to {DATABASE} could be made for {operation.name}"
    return ConnectionError(DATABASE, error, outcome=outcome, message=message)
