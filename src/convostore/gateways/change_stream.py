"""A change stream: what happens to the documents of a database, told in its order, resumed where it broke off.

The driver resumes once by itself; here it is tried until the database is back, from the last place that was told. What
cannot be resumed is said (``Loss``), and the stream goes on from now: it never tries a dead place again.

A place is a resume token as the server spells it, in hexadecimal digits that compare as the places do. That of an event
names its document; a *mark* is a moment between events and names nothing.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.errors import PyMongoError

from convostore.gateways.operation import Operation
from convostore.gateways.retry import pause
from convostore.gateways.translation import DRIVER_ERRORS, translate
from convostore.logs import get_logger
from convostore.repositories.exceptions import (
    ConnectionError,  # noqa: A004 - the name is the specification's
    RepositoryError,
)

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway

Change = dict[str, Any]
Pipeline = Sequence[Mapping[str, Any]]

AWAIT_SECONDS = 0.2  # that the server waits for news in one call; closing waits for the end of that call
BATCH = 200  # whoever reads them lets nothing else run meanwhile: a few milliseconds
_PATIENCE = 10.0  # seconds at most for an answer, however patient other calls may be
_SLACK = 60  # seconds; a place further ahead of the database belongs to another one, or to one since restored
_SECONDS = slice(2, 10)
_TIME = slice(2, 18)  # of a place: seconds and counter of the moment, behind the mark of their type
_LONGEST_MARK = 40
_HISTORY_LOST, _TOO_LARGE = 286, 10334
_DEAD_PLACES = frozenset({_HISTORY_LOST, 280, 136})  # forgotten, not found, overwritten
_NOT_RESUMABLE = "NonResumableChangeStreamError"
_RESUMABLE = "ResumableChangeStreamError"
_NO_CHANGES = 40573
_NEEDS = "this MongoDB server tells no changes: a change feed needs a replica set (one member is enough)"
_RESUMABLE_CODES = frozenset({43, 237})  # the cursor has gone, or was killed


class Loss(StrEnum):
    """Why events are missing."""

    HISTORY = "history"
    """The database has forgotten them, or does not know the place."""
    SIZE = "size"
    """One was larger than the database can tell."""
    DROPPED = "dropped"
    """A collection, and what was in it, was removed or renamed as a whole."""


_DROPS: Final = frozenset({"drop", "rename", "dropDatabase"})


class ChangeStream:
    """One change stream on the whole database.

    Args:
        gateway: the way to it.
        pipeline: what to tell, and of it what; each event keeps ``_id``, and ``op``, the kind of the operation.
        after: the place behind which to begin; None for now.

    Attributes:
        position: everything up to this place has been told; empty until it is open.
        mark: a mark up to which everything has been told, or empty.
        began_at: the moment of the database when it was opened last.
    """

    def __init__(self, gateway: "MongoGateway", pipeline: Pipeline, after: str | None = None) -> None:
        self.position = after or ""
        self.mark = after if after and _is_mark(after) else ""
        self.began_at = ""
        self._gateway = gateway
        self._pipeline = pipeline
        self._stream: AsyncChangeStream[Change] | None = None
        self._loss: Loss | None = None
        self._failures = 0
        self._is_idle = False
        self._logger = get_logger("changes")

    def is_idle_since(self, moment: str) -> bool:
        """Say whether everything has been told that had happened at a moment, as ``began_at`` spells it."""
        return self._is_idle and bool(moment) and self.position[_TIME] >= moment

    @property
    def is_lost(self) -> bool:
        """Whether it has no place: what is missing has yet to be told."""
        return not self.position or self._loss is not None

    @property
    def _patience(self) -> float:
        return min(_PATIENCE, self._gateway.deadline)

    async def open(self) -> None:
        """Begin, so that ``position`` is known; from now, if the place is dead.

        Raises:
            RepositoryError: it cannot be opened, or not now.
        """
        await self._look_at_the_time()
        if not (self.position and await self._opened_here()):
            await self._open_from_now()

    async def _opened_here(self) -> bool:
        try:
            self._stream = await self._watch(BATCH)
        except ConnectionError:
            raise
        except RepositoryError as error:
            # If it tells from now, it was the place that it refused.
            self._lose(_loss(error.original_error) or Loss.HISTORY)
        return self._stream is not None

    async def _open_from_now(self) -> None:
        # An answer with events names no mark; one that may hold none always does.
        asking = await self._watch(0)
        self._advance(asking)
        await self._close(asking)
        self._stream = await self._watch(BATCH)

    async def _look_at_the_time(self) -> None:
        moment = (await self._gateway.administration.command({"ping": 1})).get("operationTime")
        if moment is not None:
            self.began_at = f"{moment.time:08X}{moment.inc:08X}"
            if self.position and int(self.position[_SECONDS], 16) > moment.time + _SLACK:
                self._lose(Loss.HISTORY)

    async def _watch(self, batch: int) -> AsyncChangeStream[Change]:
        operation = Operation("watch", "", "Change", repeatable=True)
        try:
            return await self._gateway.run(operation, lambda _: self._begin(batch))
        except RepositoryError as error:
            if getattr(error.original_error, "code", None) == _NO_CHANGES:
                raise RepositoryError(_NEEDS) from error
            raise

    async def _begin(self, batch: int) -> AsyncChangeStream[Change]:
        return await self._gateway.database.watch(
            self._pipeline,
            start_after={"_data": self.position} if self.position else None,
            max_await_time_ms=int(AWAIT_SECONDS * 1000),
            batch_size=batch,
        )

    async def next(self) -> Change | Loss | None:
        """Return what happened next, or that something is missing; None if there is nothing at the moment.

        Raises:
            RepositoryError: the database refuses to tell, now and later.
        """
        if self._stream is None and not await self._reopened():
            return None
        if self._loss is not None:
            loss, self._loss = self._loss, None
            return loss
        return await self._next(self._stream)

    async def _next(self, stream: AsyncChangeStream[Change] | None) -> Change | Loss | None:
        assert stream is not None  # noqa: S101 - for the type checker: it has just been opened
        try:
            async with asyncio.timeout(AWAIT_SECONDS + self._patience):
                change = await stream.try_next()
        except DRIVER_ERRORS as error:
            await self._break(error)
            return None
        self._failures = 0
        self._is_idle = change is None
        if change is None:
            self._advance(stream)
            if not stream.alive:
                await self.aclose()
            return None
        return self._told(change)

    def _told(self, change: Change) -> Change | Loss | None:
        self.position = change["_id"]["_data"]
        if self.mark:  # everything before the moment of this event has been told as well
            self.mark = self.position[: _TIME.stop] + self.mark[_TIME.stop :]
        if change["op"] == "invalidate":  # the end of this stream; the next one begins behind it
            return None
        return Loss.DROPPED if change["op"] in _DROPS else change

    def _advance(self, stream: AsyncChangeStream[Change]) -> None:
        token = stream.resume_token
        if token is None:
            return
        self.position = token["_data"]
        if _is_mark(self.position):
            self.mark = self.position

    async def _break(self, error: Exception) -> None:
        await self.aclose()
        failure = translate(error, Operation("getMore", "", "Change"))
        loss = _loss(error)
        if loss is not None:
            self._lose(loss)
        elif _is_passing(error, failure):
            await self._wait(failure)
        else:
            raise failure from error

    async def _reopened(self) -> bool:
        try:
            await self.open()
        except ConnectionError as error:
            await self._wait(error)
            return False
        return True

    def _lose(self, loss: Loss) -> None:
        self._logger.warning("changes are missing", reason=str(loss))
        self.position = self.mark = ""
        self._is_idle = False
        self._loss = loss

    async def _wait(self, error: RepositoryError) -> None:
        if not self._failures:
            self._logger.warning("change stream interrupted", error=type(error).__name__)
        self._failures += 1
        await pause(self._gateway.retry.pause_before(min(self._failures, 10)))

    async def aclose(self) -> None:
        """Close it on the server; may be opened again, where it was."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await self._close(stream)

    async def _close(self, stream: AsyncChangeStream[Change]) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await stream.close()
        except (PyMongoError, TimeoutError) as error:  # the server forgets it by itself, ten minutes later
            self._logger.debug("change stream left open", error=type(error).__name__)


def moment_of(place: str) -> datetime:
    """Return the moment of the database that a place stands for, in whole seconds."""
    return datetime.fromtimestamp(int(place[_SECONDS], 16), UTC)


def _is_mark(place: str) -> bool:
    return len(place) <= _LONGEST_MARK


def _loss(error: BaseException | None) -> Loss | None:
    if not isinstance(error, PyMongoError):
        return None
    code = getattr(error, "code", None)
    if code == _TOO_LARGE:
        return Loss.SIZE
    return Loss.HISTORY if code in _DEAD_PLACES or error.has_error_label(_NOT_RESUMABLE) else None


def _is_passing(error: Exception, failure: RepositoryError) -> bool:
    labelled = isinstance(error, PyMongoError) and error.has_error_label(_RESUMABLE)
    return isinstance(failure, ConnectionError) or labelled or getattr(error, "code", None) in _RESUMABLE_CODES
