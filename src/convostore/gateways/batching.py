"""Batching: calls that come while others are under way travel together; a call that is alone goes at once.

No call waits for others by the clock: it leaves as soon as one of the few flights is free, with whoever is waiting by
then. So a lone caller pays nothing, and the more callers there are, the larger the batches (group commit: DeWitt et
al., "Implementation Techniques for Main Memory Database Systems", 1984). As long as batches are found to be needed,
a flight leaves at the end of a turn of the event loop: those whom the one before has answered are then back with their
next calls. Of a crowd only half leaves at a time, so that server and caller are at work together and not in turns.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from convostore.gateways.flights import BatchLimits, Flight, Flights
from convostore.gateways.shared_deadline import time_left
from convostore.gateways.waiting import Alarm, CrowdedError, FairQueue, Waiting
from convostore.repositories.exceptions import DeadlineExceededError, Outcome, RepositoryError

Item = TypeVar("Item")
Result = TypeVar("Result")
SMALLEST_SHARE = 16  # what a command costs by itself is a fraction of what it carries from here on


class Batcher(Generic[Item, Result]):
    """Carries calls of one kind, alone or together.

    A batch runs in a task of its own: a caller who is cancelled takes his own item out if it has not left yet, and
    changes nothing for the others.

    Args:
        send: carries out a batch; returns, for each item in its order, the result or the error of that item. What it
            raises concerns them all.
        database: what the database is called in errors.
        deadline: seconds that a call may take, its waiting included.
        limits: how much travels together.
        subject: what an item concerns, where somebody else may hold that up.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result | RepositoryError]]],
        database: str,
        deadline: float,
        limits: BatchLimits | None = None,
        subject: Callable[[Item], Hashable] | None = None,
    ) -> None:
        self._send = send
        self._database = database
        self._deadline = deadline
        self._limits = limits or BatchLimits()
        self._queue: FairQueue[Item, Result] = FairQueue()
        self._flights: Flights[Item] = Flights(self._limits, subject)
        self._watch: asyncio.TimerHandle | None = None
        self._crowded = False  # whether the last flight carried several
        self._called_up = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarm = Alarm(self._expire)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, or waits for it."""
        return not self._flights and not self._queue

    async def call(
        self,
        owner: str,
        item: Item,
        alone: Callable[[], Awaitable[Result]],
        *,
        size: int = 0,
        writes: bool = False,
        end: float | None = None,
    ) -> Result:
        """Carry out a call, at once if there is a flight free for it, else together with others.

        Args:
            owner: whose turn it is; owners take turns.
            item: what ``send`` is given.
            alone: carries out this call by itself.
            size: bytes that it adds to a batch.
            writes: whether it may change something, for the outcome told when time is over.
            end: the loop's time at which it is given up; by default after the deadline.

        Raises:
            DeadlineExceededError: time is over; or too many wait already, and it was not sent.
            RepositoryError: what the batch answered to this item.
        """
        loop = asyncio.get_running_loop()
        if not self._queue and not self._crowded and self._flights.has_room(loop.time()):
            return await self._fly_alone(item, alone, loop)
        if len(self._queue) >= self._limits.waiting:
            message = f"too many calls wait for {self._database}: this one was not sent"
            raise DeadlineExceededError(self._database, CrowdedError(), message=message)
        waiting: Waiting[Item, Result] = Waiting(owner, item, size, loop.create_future())
        self._queue.put(waiting)
        self._call_up(loop)
        waiting.end, waiting.writes = end or loop.time() + time_left(self._deadline), writes
        self._alarm.add(waiting, loop)
        try:
            return await waiting.answer
        finally:
            self._withdraw(waiting)

    async def _fly_alone(
        self, item: Item, alone: Callable[[], Awaitable[Result]], loop: asyncio.AbstractEventLoop
    ) -> Result:
        flight = self._flights.begin((item,), loop.time())
        try:
            return await alone()
        finally:
            self._land(flight, loop)

    def _withdraw(self, waiting: Waiting[Item, Result]) -> None:
        if not waiting.departed:
            waiting.departed = True
            self._queue.remove(waiting)

    def _expire(self, waiting: Waiting[Item, Result]) -> None:
        outcome = Outcome.UNKNOWN if waiting.writes and waiting.departed else Outcome.NOT_APPLIED
        self._withdraw(waiting)  # at once: it must not leave any more
        message = f"{self._database} did not answer in time"
        waiting.answer.set_exception(DeadlineExceededError(self._database, outcome=outcome, message=message))

    def _land(self, flight: Flight[Item], loop: asyncio.AbstractEventLoop) -> None:
        self._flights.end(flight)
        self._call_up(loop)

    def _call_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let those who wait leave with all who come in this turn, now or as soon as a flight is found to be late."""
        if not self._queue or self._called_up:
            return
        if self._flights.has_room(loop.time()):
            self._called_up = True
            # In a context of its own: whoever comes first must not lend his to the calls of others.
            loop.call_soon(self._depart_all, loop, context=Context())
        else:
            self._look_later(loop)

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._watch is None and self._limits.patience is not None:
            self._watch = loop.call_later(self._limits.patience, self._look, loop, context=Context())

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watch = None
        self._call_up(loop)

    def _depart_all(self, loop: asyncio.AbstractEventLoop) -> None:
        self._called_up = False
        while self._queue and self._flights.has_room(loop.time()):
            if not self._depart(loop):
                break
        if self._queue:
            self._look_later(loop)

    def _depart(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Let the next batch leave, without what is thought to be held up; False if nobody could."""
        batch = self._queue.take(self._share(), self._limits.size)
        held_up = self._flights.held_up(loop.time())
        apart = [waiting for waiting in batch if self._flights.concerns(waiting.item, held_up)] if held_up else []
        if apart:
            batch = [waiting for waiting in batch if waiting not in apart]
            if self._flights.has_room_apart():
                self._send_off(apart, loop, apart=True)
            else:
                self._put_back(apart)
        self._crowded = len(batch) > 1
        if batch:
            self._send_off(batch, loop)
        return bool(batch)

    def _share(self) -> int:
        """Return how many leave together: of a crowd only half, for while the server is at it the others come back.

        Where there is one flight only, all: nobody else would be on his way meanwhile.
        """
        if self._limits.flights == 1:
            return self._limits.items
        crowd = len(self._queue) + self._flights.carried
        return min(self._limits.items, max(SMALLEST_SHARE, -(-crowd // 2)))

    def _put_back(self, batch: Sequence[Waiting[Item, Result]]) -> None:
        for waiting in batch:
            self._queue.put(waiting)

    def _send_off(
        self, batch: Sequence[Waiting[Item, Result]], loop: asyncio.AbstractEventLoop, *, apart: bool = False
    ) -> None:
        for waiting in batch:
            waiting.departed = True
        flight = self._flights.begin([waiting.item for waiting in batch], loop.time(), apart=apart)
        task = loop.create_task(self._fly(batch, flight, loop))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fly(
        self, batch: Sequence[Waiting[Item, Result]], flight: Flight[Item], loop: asyncio.AbstractEventLoop
    ) -> None:
        try:
            answers = await self._send(flight.items)
            self._let_go_on(flight, loop)
            for waiting, answer in zip(batch, answers, strict=True):
                _settle(waiting.answer, answer)
        except RepositoryError as error:
            for waiting in batch:
                _settle(waiting.answer, copy.copy(error))  # each his own, for each adds his own traceback to it
        except BaseException as error:
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._land(flight, loop)

    def _let_go_on(self, flight: Flight[Item], loop: asyncio.AbstractEventLoop) -> None:
        """Let a crowd that waits leave before those who have their answers go on, so that the server is not idle."""
        if len(self._queue) >= SMALLEST_SHARE and self._limits.flights > 1:
            self._land(flight, loop)

    async def aclose(self) -> None:
        """Wait for what is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._alarm.stop()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None


def _settle(answer: "asyncio.Future[Result]", result: Result | RepositoryError) -> None:
    if answer.done():
        return
    if isinstance(result, RepositoryError):
        answer.set_exception(result)
    else:
        answer.set_result(result)
