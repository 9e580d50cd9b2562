"""The epoch: what makes the cache safe although an invalidation was lost.

A process that cannot reach Redis has written to the database; others, who can, would go on reading the old value there.
So it raises a number in the database, which it can reach, for that is where it has written. The number is part of the
keys of all cells: with another one, everything cached before is forgotten. It costs a read no second key, for whoever
uses the cache *knows* the number, for a while:

- What was read of it counts for a *lease*, timed from before the read. While it does not count, the cache is not used.
- A number that was raised has to *settle*: whoever has known it for three leases says so in the database, if it is
  still the present one. Only a number that is both present and settled is used.
- A write is *told*, before it returns, by deleting its cells of the present and the settled number, as they count at a
  moment after the write; or, where that fails, by raising the number and waiting for a lease.

Invariant: **when a write has been told, no read of any process that begins then finds a cell without it.** Be r(n) the
moment when n was raised, q(n) when it was settled. Cells of n are in use from q(n) to r(n + 1) + lease, and q(n) is at
least three leases behind r(n), so two numbers are never in use together.

- Told by deleting, at a moment v, by a state that was true after v - lease. What was settled before the settled one is
  out of use since two leases. What is raised later than the state is in use two leases after v, and filled with what is
  read then. Of the two that are left the cells are deleted, and kept in order by the protocol (``cache_cells``).
- Told by raising: whoever has not noticed loses his lease while the writer waits. The new number is in use three leases
  after the raise has begun, so after every write that fails in that time: those need not raise it again. Hence, while
  Redis is away from a process, its writes go on without waiting, but for the first one.

A new primary answers reads of what the majority has, and may for a moment not know how far that goes. So the number is
raised for each *election* as well: who knows of a later one than the number does not use the cache, and raises it; who
has read the raised number from the new primary has seen it know of everything before. (Who reaches nobody but an old
primary, cut off from the others, reads what that one knows until it steps down, through the cache as past it.)

All times are lengths on one machine's monotone clock; clocks are never compared. (A machine that was put to sleep may,
when it wakes, read what it knew, for a lease at most.) If a process dies between its write and the telling, that write
has not returned; the synchronizer tells it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, NamedTuple

from convostore.gateways.epoch_counter import Epoch, EpochCounter
from convostore.logs import get_logger
from convostore.repositories.exceptions import RepositoryError

LEASE_SECONDS = 1.0  # the same in all programs: a constant, no setting
_SETTLING = 3  # leases
_RENEWAL = 0.5  # of a lease
_UNKNOWN = Epoch(-1, -2)


class _Raise(NamedTuple):
    """A raise of the number by this process: between which moments it took place."""

    begun: float
    ended: float


class CacheEpoch:
    """What this process knows of the number.

    Args:
        counter: the number.
        lease: seconds; the same in all processes.
        clock: seconds, monotone.

    Attributes:
        raised: how often this process has raised it.
    """

    def __init__(
        self, counter: EpochCounter, lease: float = LEASE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.raised = 0
        self._counter = counter
        self._lease = lease
        self._clock = clock
        self._epoch = _UNKNOWN
        self._known_since = 0.0  # the number
        self._counts_until = 0.0  # the state
        self._raises: deque[_Raise] = deque(maxlen=8)
        self._owes = False  # a raise that has failed
        self._renewing: asyncio.Task[None] | None = None
        self._raising: asyncio.Task[None] | None = None
        self._logger = get_logger("cache")

    def usable(self) -> int | None:
        """Return the number whose cells may be used by what begins now, or None; it is looked up in good time."""
        now = self._clock()
        if now >= self._counts_until - _RENEWAL * self._lease:
            self._renew()
        counts = now < self._counts_until and not self._owes and not self._is_outdated(self._epoch)
        return self._epoch.number if counts and self._epoch.is_settled else None

    def _is_outdated(self, epoch: Epoch) -> bool:
        return epoch.election < self._counter.election

    async def current(self) -> Epoch:
        """Return the state that counts now.

        Raises:
            RepositoryError: the database does not tell.
        """
        while self._owes or self._clock() >= self._counts_until:
            await asyncio.shield(self._renew())
        return self._epoch

    async def abandon(self) -> None:
        """Return once whatever any process finds in the cache was read after the moment of this call.

        Raises:
            RepositoryError: the database cannot be told; before it has been, this process does not use the cache.
        """
        asked, settling = self._clock(), _SETTLING * self._lease
        while not (covering := [each for each in self._raises if asked < each.begun + settling]):
            await asyncio.shield(self._raise())
        if asked >= covering[-1].begun + settling / 2:
            self._raise()  # so that the next one need not wait
        await asyncio.sleep(covering[0].ended + self._lease - self._clock())

    async def forsake(self) -> None:
        """Do the same, but do not wait until everybody has noticed; this process has.

        Raises:
            RepositoryError: as of ``abandon``.
        """
        await asyncio.shield(self._raise())

    def _renew(self) -> "asyncio.Task[None]":
        if self._renewing is None or self._renewing.done():
            self._renewing = _started(self._look())
        return self._renewing

    def _raise(self) -> "asyncio.Task[None]":
        if self._raising is None or self._raising.done():
            self._raising = _started(self._advance())
        return self._raising

    async def _look(self) -> None:
        if self._owes:
            await asyncio.shield(self._raise())
            return
        begun = self._clock()
        epoch = await self._counter.read()
        self._learn(await self._counter.acknowledge() if self._is_outdated(epoch) else epoch, begun)
        if not self._epoch.is_settled and self._clock() >= self._known_since + _SETTLING * self._lease:
            await self._counter.settle(self._epoch.number)

    async def _advance(self) -> None:
        begun = self._clock()
        try:
            epoch = await self._counter.advance()
        except BaseException:
            self._owes = True
            raise
        self._owes = False
        self.raised += 1
        self._learn(epoch, begun)
        self._raises.append(_Raise(begun, self._clock()))
        self._logger.warning("the cache begins anew, for it could not be told of a write", epoch=epoch.number)

    def _learn(self, epoch: Epoch, begun: float) -> None:
        if epoch < self._epoch:
            return  # two looks have crossed
        if epoch.number != self._epoch.number:
            self._known_since = self._clock()
        if epoch != self._epoch:
            self._epoch, self._counts_until = epoch, begun + self._lease
        else:
            self._counts_until = max(self._counts_until, begun + self._lease)

    async def aclose(self) -> None:
        """Wait for what is under way."""
        tasks = [task for task in (self._renewing, self._raising) if task is not None and not task.done()]
        if tasks:
            await asyncio.wait(tasks)


def _started(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    # A context of its own: it is shared by many, and in the unit of work of none of them.
    task = asyncio.create_task(work, context=Context())
    task.add_done_callback(_seen)
    return task


def _seen(task: "asyncio.Task[None]") -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, RepositoryError):
        task.get_loop().call_exception_handler({"message": "the epoch could not be looked up", "exception": error})
