"""Batches to one Redis server: the commands of concurrent callers in one pipeline, each with a reply of its own.

GETs become one MGET, for which the server and the driver need a fraction of the time. It tells no difference between
nothing and what is no text, so whoever is told nothing by it has his GET sent after all; he would have to fetch the
value anyway.
"""

import asyncio
import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from redis.exceptions import AskError, AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError

from convostore.gateways.operation import Operation
from convostore.gateways.redis_translation import DRIVER_ERRORS, translate
from convostore.gateways.redis_wire import Command, Flight, Part, Unsent, Wire, pack

# They wait at the server for others, so they would keep those behind them waiting; or their replies are long.
ALONE = frozenset(
    {
        *("BLPOP", "BRPOP", "BLMOVE", "BLMPOP", "BRPOPLPUSH", "BZPOPMIN", "BZPOPMAX", "BZMPOP"),
        *("XREAD", "XREADGROUP", "WAIT", "WAITAOF", "EVAL", "SCAN", "KEYS"),
    }
)


class Asked(NamedTuple):
    """A command of one caller.

    Attributes:
        operation: what it is.
        command: its words.
        packed: the command as it is sent; so one that cannot be sent joins no others.
    """

    operation: Operation
    command: Command
    packed: bytes


class RedisBatches:
    """Sends batches to one server.

    Nothing is sent twice, except what may be (``repeatable``), once, and only if the connection was lost before its
    reply came.

    Args:
        wire: the way to the server, or to the cluster it is part of.
        place: which server of the wire.
        deadline: returns the seconds that a batch may take.
        merges: whether one MGET may ask for any keys, as on a cluster it may not.
    """

    def __init__(self, wire: Wire, place: str, deadline: Callable[[], float], *, merges: bool) -> None:
        self._wire = wire
        self._place = place
        self._deadline = deadline
        self._merges = merges

    async def send(self, asked: Sequence[Asked]) -> list[Any]:
        """Send commands together; return for each its reply, the driver's refusal, or our error."""
        flight = Flight(asyncio.get_running_loop().time() + self._deadline())
        answers: dict[int, Any] = {}
        failure = await self._attempt(asked, range(len(asked)), answers, flight)
        if may_be_sent_again(failure):
            again = [index for index in _missing(asked, answers) if asked[index].operation.repeatable]
            _fail(asked, set(_missing(asked, answers)) - set(again), answers, failure, flight)
            failure = await self._attempt(asked, again, answers, flight)
        _fail(asked, _missing(asked, answers), answers, failure, flight)
        return [answers[index] for index in range(len(asked))]

    async def _attempt(
        self, asked: Sequence[Asked], indexes: Sequence[int], answers: dict[int, Any], flight: Flight
    ) -> Exception | None:
        """Send some of the commands, take down the replies, and return what went wrong."""
        try:
            async with asyncio.timeout_at(flight.end):
                left = await self._merged(asked, indexes, answers, flight) if self._merges else indexes
                if left:
                    await self._piped(asked, left, answers, flight)
        except DRIVER_ERRORS as error:
            return error
        return None

    async def _piped(
        self, asked: Sequence[Asked], indexes: Sequence[int], answers: dict[int, Any], flight: Flight
    ) -> None:
        flight.replies = []
        try:
            sent = [asked[index] for index in indexes]
            packed = b"".join([each.packed for each in sent])
            flight.replies = await self._wire.execute([each.command for each in sent], flight, self._place, packed)
        finally:  # what was replied before a failure is true
            told = zip(indexes, flight.replies, strict=False)
            answers.update({index: reply for index, reply in told if not isinstance(reply, AskError)})

    async def _merged(
        self, asked: Sequence[Asked], indexes: Sequence[int], answers: dict[int, Any], flight: Flight
    ) -> Sequence[int]:
        """Send all that are GETs as one command together with the others, and return what is left to be sent."""
        gets = [index for index in indexes if _is_get(asked[index].command)]
        if len(gets) < 2:  # noqa: PLR2004 - a single one gains nothing
            return indexes
        others = sorted(set(indexes) - set(gets))
        keys = list(dict.fromkeys([asked[index].command[1] for index in gets]))  # what several ask for comes once
        merged = ("MGET", *keys)
        together = Asked(asked[gets[0]].operation, merged, pack(merged))
        told: dict[int, Any] = {}
        try:
            await self._piped([together, *[asked[index] for index in others]], range(len(others) + 1), told, flight)
        finally:
            something = _something(keys, told.pop(0, None))
            answers.update({index: something[key] for index in gets if (key := asked[index].command[1]) in something})
            answers.update({others[number - 1]: reply for number, reply in told.items()})
        return [index for index in gets if index not in answers]


def owner_of(command: Command) -> str:
    """Return whose turn a command waits for: the tenant in its first key, or nobody in particular."""
    place = 3 if command[0] == "EVALSHA" else 1
    key = command[place] if len(command) > place else ""
    return key.partition("{")[2].partition(":")[0].partition("}")[0] if isinstance(key, str) else ""


def may_be_sent_again(failure: BaseException | None) -> bool:
    """Say whether a connection was lost, and not refused, so that what is repeatable may be sent once more."""
    return isinstance(failure, RedisConnectionError | OSError) and not isinstance(
        failure, AuthenticationError | TimeoutError
    )


def _is_get(command: Command) -> bool:
    return command[0] == "GET" and len(command) == len(("GET", "key"))


def _something(keys: Sequence[Part], found: Any) -> dict[Part, Any]:
    """Return what MGET has found, by its key; it may have been refused as a whole."""
    values = found if isinstance(found, list) else ()
    return {key: value for key, value in zip(keys, values, strict=False) if value is not None}


def _missing(asked: Sequence[Asked], answers: dict[int, Any]) -> list[int]:
    return [index for index in range(len(asked)) if index not in answers]


def _fail(
    asked: Sequence[Asked], indexes: Iterable[int], answers: dict[int, Any], failure: Exception | None, flight: Flight
) -> None:
    for index in indexes:
        if failure is not None:
            answers[index] = translate(_own(failure), asked[index].operation, sent=flight.sent)


def _own(failure: Exception) -> Exception:
    """Return a copy: the translation takes out of it what the next one needs."""
    copied = copy.copy(failure)
    if isinstance(failure, Unsent) and failure.__cause__ is not None:
        copied.__cause__ = copy.copy(failure.__cause__)
    return copied
