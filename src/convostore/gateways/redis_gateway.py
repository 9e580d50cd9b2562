"""The way to Redis or Valkey: one wire, and what holds for every call that is made through it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Self, TypeVar

from redis.exceptions import NoScriptError, RedisError

from convostore.gateways.batching import Batcher
from convostore.gateways.breaker import Breaker
from convostore.gateways.operation import Observer, Operation, OperationDetails
from convostore.gateways.redis_address import RedisAddress
from convostore.gateways.redis_batching import ALONE, Asked, RedisBatches, may_be_sent_again, owner_of
from convostore.gateways.redis_cluster import ClusterWire
from convostore.gateways.redis_connections import open_wire
from convostore.gateways.redis_subscription import Subscription
from convostore.gateways.redis_translation import DATABASE, DRIVER_ERRORS, refused, translate
from convostore.gateways.redis_wire import UNSENDABLE, Command, Flight, Part, Places, Wire, pack
from convostore.gateways.scripts import Script
from convostore.gateways.waiting import CrowdedError
from convostore.logs import ROOT, get_logger
from convostore.repositories.exceptions import (
    ConnectionError,  # noqa: A004 - the name is the specification's
    Outcome,
    RepositoryError,
)

T = TypeVar("T")
SCANNED_AT_ONCE = 500  # keys that one SCAN looks at


class RedisGateway:
    """Carries out commands and scripts: holds the deadline, stops asking a dead server, translates, times.

    Nothing is sent twice, except what may be (``repeatable``), once, and only if the connection was lost.

    Args:
        wire: the way to the server or cluster; closed by ``aclose``.
        deadline: seconds that a call may take.
        breaker: counts the failures; by default one of its own. Each server of a cluster has another like it, so
            that one that is away does not close the way to the others.
        observers: told of each call that has ended.
    """

    def __init__(
        self,
        wire: Wire,
        *,
        deadline: float = 0.2,
        breaker: Breaker | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._wire = wire
        self.deadline = deadline
        self.breaker = breaker or Breaker()
        self._breakers = {"": self.breaker}
        self._batchers: dict[str, Batcher[Asked, Any]] = {}
        self._observers = tuple(observers)
        self._logger = get_logger("redis")
        self._debugs = partial(logging.getLogger(f"{ROOT}.redis").isEnabledFor, logging.DEBUG)

    @classmethod
    def connect(cls, url: str, *, size: int = 32, **policies: Any) -> Self:
        """Return a gateway with a wire of its own; the first call connects.

        Args:
            url: the address, as ``RedisAddress`` takes it.
            size: connections at most, to each server.
            policies: ``deadline``, ``breaker`` and ``observers`` of the gateway.

        Raises:
            ValidationError: the address is not valid; the message never quotes it.
        """
        return cls(open_wire(RedisAddress.parse(url), size), **policies)

    @property
    def is_cluster(self) -> bool:
        """Whether several servers share the keys."""
        return isinstance(self._wire, ClusterWire)

    async def command(self, operation: Operation, *parts: Part) -> Any:
        """Send one command and return its reply.

        On a cluster it goes where its first argument belongs.

        Raises:
            RepositoryError: whatever went wrong, translated.
        """
        return _reply(await self._single(operation, parts, self._flight()), operation)

    async def commands(self, operation: Operation, commands: Sequence[Command]) -> list[Any]:
        """Send several commands together and return the reply to each, a refusal as our error.

        Raises:
            RepositoryError: a connection failed; on a cluster, what went to other servers may have been applied.
        """
        return _told(await self._run(operation, commands, self._flight()) if commands else [], operation)

    async def script(self, operation: Operation, script: Script, keys: Sequence[str], *arguments: Part) -> Any:
        """Run a script and return its reply.

        Raises:
            RepositoryError: whatever went wrong, translated.
        """
        flight = self._flight()
        rest = (len(keys), *keys, *arguments)
        reply = await self._single(operation, ("EVALSHA", script.sha, *rest), flight)
        if isinstance(reply, NoScriptError):  # the server has never seen it, or has been restarted
            flight.sent = False
            reply = await self._single(operation, ("EVAL", script.text, *rest), flight)
        return _reply(reply, operation)

    async def scripts(
        self, operation: Operation, script: Script, calls: Sequence[tuple[Sequence[str], Command]]
    ) -> list[Any]:
        """Run a script several times, in one round trip, and return each reply, a refusal as our error.

        Args:
            operation: what it is.
            script: the script.
            calls: keys and arguments of each.

        Raises:
            RepositoryError: a connection failed; some may have been run.
        """
        flight = self._flight()
        rests = [(len(keys), *keys, *arguments) for keys, arguments in calls]
        replies = (
            await self._run(operation, [("EVALSHA", script.sha, *rest) for rest in rests], flight) if rests else []
        )
        unknown = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = await self._run(operation, [("EVAL", script.text, *rests[index]) for index in unknown], flight)
            for index, reply in zip(unknown, again, strict=True):
                replies[index] = reply
        return _told(replies, operation)

    async def each_node(self, operation: Operation, *parts: Part) -> list[Any]:
        """Send one command to each server that holds keys and return their replies."""
        flight = self._flight()
        names = await self._servers(operation, flight)
        return [_reply((await self._sent(operation, [parts], flight, name))[0], operation) for name in names]

    async def scan(self, operation: Operation, pattern: str) -> AsyncIterator[list[bytes]]:
        """Return the keys that match a pattern, bundle by bundle; one that is there throughout is found."""
        for name in await self._servers(operation, self._flight()):
            cursor: bytes | int = 0
            while True:
                scan = ("SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED_AT_ONCE)
                cursor, keys = _reply((await self._sent(operation, [scan], self._flight(), name))[0], operation)
                if keys:
                    yield keys
                if int(cursor) == 0:
                    break

    def subscribe(self, *channels: str) -> Subscription:
        """Return what is published to channels."""
        return Subscription(self._wire, channels)

    def _flight(self) -> Flight:
        return Flight(asyncio.get_running_loop().time() + self.deadline)

    async def _servers(self, operation: Operation, flight: Flight) -> list[str]:
        await self._places([], operation, flight)
        return self._wire.servers()

    async def _single(self, operation: Operation, command: Command, flight: Flight) -> Any:
        """Send one command, together with those of other callers who come at the same time."""
        asked = Asked(operation, command, _packed(operation, command))
        places = self._wire.places([command]) or await self._places([command], operation, flight)
        place = next(iter(places))
        if command[0] in ALONE:
            return (await self._sent(operation, [command], flight, place))[0]
        return await self._guarded(operation, place, partial(self._together, asked, flight, place))

    def _together(self, asked: Asked, flight: Flight, place: str) -> Awaitable[Any]:
        return self._batcher(place).call(
            owner_of(asked.command),
            asked,
            partial(self._alone, asked, flight, place),
            size=len(asked.packed),
            writes=asked.operation.writes,
            end=flight.end,
        )

    async def _alone(self, asked: Asked, flight: Flight, place: str) -> Any:
        execute = partial(self._wire.execute, [asked.command], flight, place, asked.packed)
        return (await self._bounded(asked.operation, flight, execute))[0]

    def _batcher(self, place: str) -> Batcher[Asked, Any]:
        batcher = self._batchers.get(place)
        if batcher is None:
            batches = RedisBatches(self._wire, place, lambda: self.deadline, merges=not self.is_cluster)
            batcher = self._batchers[place] = Batcher(batches.send, DATABASE, self.deadline)
        return batcher

    async def _run(self, operation: Operation, commands: Sequence[Command], flight: Flight) -> list[Any]:
        places = await self._places(commands, operation, flight)
        if len(places) == 1:
            return await self._sent(operation, commands, flight, next(iter(places)))
        return await self._spread(operation, commands, flight, places)

    async def _places(self, commands: Sequence[Command], operation: Operation, flight: Flight) -> Places:
        places = self._wire.places(commands)
        while places is None:
            look = partial(self._wire.look, flight)
            await self._guarded(operation, "", partial(self._bounded, operation, flight, look))
            places = self._wire.places(commands)
        return places

    async def _sent(self, operation: Operation, commands: Sequence[Command], flight: Flight, place: str) -> list[Any]:
        execute = partial(self._wire.execute, commands, flight, place)
        return await self._guarded(operation, place, partial(self._bounded, operation, flight, execute))

    async def _spread(
        self, operation: Operation, commands: Sequence[Command], flight: Flight, places: Places
    ) -> list[Any]:
        """Send to several servers at the same time; wait for all of them, then raise if one of them failed."""
        replies: list[Any] = [None] * len(commands)
        failures: list[RepositoryError] = []

        async def part(place: str, indexes: Sequence[int]) -> None:
            own = Flight(flight.end)
            try:
                answers = await self._sent(operation, [commands[index] for index in indexes], own, place)
            except RepositoryError as error:
                failures.append(error)
                return
            finally:
                flight.sent |= own.sent
            for index, answer in zip(indexes, answers, strict=True):
                replies[index] = answer

        async with asyncio.TaskGroup() as group:
            for place, indexes in places.items():
                group.create_task(part(place, indexes))
        if failures:
            failures[0].outcome = Outcome.UNKNOWN if operation.writes and flight.sent else Outcome.NOT_APPLIED
            raise failures[0]
        return replies

    async def _guarded(self, operation: Operation, place: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call unless the breaker is open; tell it and the observers of the end."""
        breaker = self._breaker(place)
        if not breaker.admits():
            raise ConnectionError(DATABASE, message=f"{DATABASE} does not answer: {operation.name} was not sent")
        started = time.monotonic()
        failure: str | None = None
        try:
            result = await call()
        except RepositoryError as error:
            failure = type(error).__name__
            if isinstance(error, ConnectionError) and not isinstance(error.original_error, CrowdedError):
                breaker.failed()
            raise
        else:
            breaker.succeeded()
            return result
        finally:
            if self._observers or self._debugs():
                self._observe(operation, time.monotonic() - started, failure)

    async def _bounded(self, operation: Operation, flight: Flight, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make an attempt, or two, by the deadline; translate what goes wrong."""
        try:
            async with asyncio.timeout_at(flight.end):
                return await _attempts(operation, attempt)
        except DRIVER_ERRORS as error:
            translated = translate(error, operation, sent=flight.sent)
            raise translated from translated.original_error

    def _breaker(self, place: str) -> Breaker:
        breaker = self._breakers.get(place)
        if breaker is None:
            breaker = self._breakers[place] = self.breaker.another()
        return breaker

    def _observe(self, operation: Operation, duration: float, error: str | None) -> None:
        if self._debugs():
            self._logger.debug(
                "redis operation",
                operation=operation.name,
                kind=operation.collection,
                duration_ms=round(duration * 1000, 3),
                error=error,
            )
        for observer in self._observers:
            observer(OperationDetails(operation.name, operation.collection, duration, error))

    async def aclose(self) -> None:
        """Close all connections, and wait for what is under way."""
        await self._wire.aclose()
        for batcher in self._batchers.values():
            await batcher.aclose()


async def _attempts(operation: Operation, attempt: Callable[[], Awaitable[T]]) -> T:
    try:
        return await attempt()
    except Exception as error:
        if not operation.repeatable or not may_be_sent_again(error):
            raise
    return await attempt()


def _packed(operation: Operation, command: Command) -> bytes:
    try:
        return pack(command)
    except UNSENDABLE as error:
        raise translate(error, operation, sent=False) from None


def _told(replies: Sequence[Any], operation: Operation) -> list[Any]:
    """Return replies with a refusal as our error."""
    return [refused(reply, operation) if isinstance(reply, RedisError) else reply for reply in replies]


def _reply(reply: Any, operation: Operation) -> Any:
    if isinstance(reply, RedisError):
        raise refused(reply, operation)
    return reply
