"""One load at a time for a key: in this process by a flight that readers join, across processes by the lease.

A reader may only be given what was read after the reader came, else a process that joins a load begun before a write
could hand out what that write has replaced. So a flight notes who waits at the moment when it sends a look or a fill,
or begins a load, and its outcome goes to those alone; whoever came later waits for the next round. At worst a reader
waits for two loads, and there is never more than one of a key in a process, also when the cache is away.

The flight is a task of its own: readers who are cancelled leave it, and it goes on for the others.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from convostore.repositories.cache_cell import stamp_of
from convostore.repositories.cache_cells import RENEWAL_SECONDS, Address, CacheCells, Held, Lease, Stored
from convostore.repositories.cache_statistics import CacheStatistics
from convostore.repositories.cache_values import CacheValues
from convostore.repositories.exceptions import RepositoryError

T = TypeVar("T")
Load = Callable[[], Awaitable[T | None]]
SHORTEST_PAUSE, LONGEST_PAUSE = 0.005, 0.05  # seconds between two looks for what another process loads


@dataclass(slots=True, eq=False)
class Reader(Generic[T]):
    """Who waits.

    Attributes:
        load: what he would load with.
        away: whether he has found the cache not to answer.
        refreshes: whether nobody waits in truth: his value is there and about to end.
        context: of his task; his load runs in it.
        outcome: what he is given.
    """

    load: Load[T]
    away: bool = False
    refreshes: bool = False
    context: Context = field(default_factory=copy_context)
    outcome: asyncio.Future[T | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(slots=True, eq=False)
class Flight(Generic[T]):
    """The readers of one key who wait at present.

    Attributes:
        address: what they wait for.
        unwanted: the stamp of a value that does not count, or empty.
        readers: those who have been given nothing yet.
        held_since: since when another process has been found to load, in seconds of the monotone clock.
        pauses: how often it was waited for it.
    """

    address: Address[T]
    unwanted: bytes = b""
    readers: list[Reader[T]] = field(default_factory=list)
    held_since: float | None = None
    pauses: int = 0

    def present(self) -> list[Reader[T]]:
        """Return who waits now, without those who were cancelled."""
        self.readers = [reader for reader in self.readers if not reader.outcome.done()]
        return list(self.readers)

    def fail(self, error: BaseException) -> None:
        """Give an error to all who wait."""
        for reader in self.present():
            if reader.refreshes:
                reader.outcome.cancel()  # nobody would look at the error
            else:
                reader.outcome.set_exception(error)

    def end_refreshes(self) -> None:
        """Let go of those who need not wait."""
        for reader in self.present():
            if reader.refreshes:
                reader.outcome.cancel()


class CacheLoading:
    """The flights of this process.

    Args:
        cells: the protocol.
        values: decodes and encodes.
        statistics: where it is counted.
        random: draws from the interval from 0 to below 1.
    """

    def __init__(
        self, cells: CacheCells, values: CacheValues, statistics: CacheStatistics, random: Callable[[], float]
    ) -> None:
        self._cells = cells
        self._values = values
        self._statistics = statistics
        self._random = random
        self._flights: dict[tuple[str, tuple[str, ...]], Flight[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def join(self, address: Address[T], load: Load[T], *, unwanted: bytes = b"", away: bool = False) -> T | None:
        """Wait for the value of a key, loaded if need be.

        Raises:
            RepositoryError: the cache was closed meanwhile.
            Exception: whatever the load raised.
        """
        reader = Reader(load, away=away)
        self._board(address, reader, unwanted)
        return await reader.outcome

    def refresh(self, address: Address[T], load: Load[T], stamp: bytes) -> None:
        """Load a value anew in the background, unless somebody does already."""
        if (address.key, address.tags) not in self._flights and not self._closed:
            self._statistics.refreshes += 1
            self._board(address, Reader(load, refreshes=True), stamp)

    def _board(self, address: Address[T], reader: Reader[T], unwanted: bytes) -> None:
        if self._closed:
            raise RepositoryError("get_or_load: the cache is closed")
        flight = self._flights.get((address.key, address.tags))
        if flight is not None:
            self._statistics.joins += 1
            flight.readers.append(reader)
            return
        flight = self._flights[address.key, address.tags] = Flight(address, unwanted, [reader])
        task = asyncio.create_task(self._serve(flight), name="convostore cache load")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, flight: Flight[Any]) -> None:
        try:
            while flight.present():
                await self._round(flight)
        except asyncio.CancelledError:
            flight.fail(RepositoryError("get_or_load: the cache was closed"))
            raise
        except BaseException as error:
            flight.fail(error)
            raise
        finally:
            del self._flights[flight.address.key, flight.address.tags]

    async def _round(self, flight: Flight[Any]) -> None:
        present = flight.present()
        answer = None if present[0].away else await self._ask(flight)
        if isinstance(answer, Stored):
            self._give_found(flight, present, answer)
        elif isinstance(answer, Held) and self._is_patient(flight):
            await self._pause(flight, answer)
        elif isinstance(answer, Lease):
            await self._load(flight, answer)
        else:
            flight.end_refreshes()  # they are not worth a load that cannot be put in
            if flight.present():
                await self._load(flight, None)

    async def _ask(self, flight: Flight[Any]) -> Stored | Lease | Held | None:
        try:
            answer = await self._cells.acquire(flight.address, flight.unwanted)
        except RepositoryError:
            self._statistics.outages += 1
            return None
        if not isinstance(answer, Held):
            flight.held_since, flight.pauses = None, 0
        return answer

    def _give_found(self, flight: Flight[T], present: Sequence[Reader[T]], stored: Stored) -> None:
        cell = self._values.cell(stored)
        cached = self._values.decoded(flight.address.space, cell, stored.generations)
        if cell is None or cached is None:
            flight.unwanted = stamp_of(stored.cell)  # asked again, the server counts it as absent
        else:
            self._give(flight.address, present, cached.value, cell.data)

    def _give(self, address: Address[T], readers: Sequence[Reader[T]], value: T | None, data: bytes | None) -> None:
        taken = False
        for reader in readers:
            if not reader.outcome.done():
                reader.outcome.set_result(self._values.copy(address.space, value, data) if taken else value)
                taken = True

    def _is_patient(self, flight: Flight[Any]) -> bool:
        now = time.monotonic()
        if flight.held_since is None:
            flight.held_since = now
        return now - flight.held_since < flight.address.space.patience

    async def _pause(self, flight: Flight[Any], held: Held) -> None:
        flight.end_refreshes()
        self._statistics.waits += 1
        longest = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2.0 ** min(flight.pauses, 10), held.seconds + SHORTEST_PAUSE)
        flight.pauses += 1
        await asyncio.sleep(longest * (0.5 + 0.5 * self._random()))

    async def _load(self, flight: Flight[T], lease: Lease | None) -> None:
        before = flight.present()
        if not before:
            return
        leader, started = before[0], time.monotonic()
        self._statistics.loads += 1
        try:
            value = await self._loaded(flight.address, leader, lease)
        except Exception as error:  # noqa: BLE001 - a load may raise anything
            await self._load_failed(flight, leader, lease, error)
            return
        content = self._values.content(flight.address.space, value, lease.floor if lease else 0)
        during = flight.present()
        filled = lease is not None and await self._fill(flight.address, lease, content, time.monotonic() - started)
        self._give(flight.address, during if filled else before, value, content.data if content else None)

    async def _loaded(self, address: Address[T], leader: Reader[T], lease: Lease | None) -> T | None:
        task = asyncio.create_task(_awaited(leader.load), context=leader.context)
        try:
            while not (await asyncio.wait([task], timeout=RENEWAL_SECONDS))[0]:
                if lease is not None:
                    with suppress(RepositoryError):  # then somebody else may load as well, which is all
                        await self._cells.renew(address, lease)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        if task.cancelled():
            raise RepositoryError("get_or_load: the load was cancelled")
        return task.result()

    async def _load_failed(self, flight: Flight[T], leader: Reader[T], lease: Lease | None, error: Exception) -> None:
        self._statistics.failed_loads += 1
        if lease is not None:
            await self._release(flight.address, lease)
        # Of a leader who has gone, the resources may have gone: the next one tries with his own.
        if leader.refreshes:
            leader.outcome.cancel()
        if not leader.outcome.cancelled():
            flight.fail(error)

    async def _fill(self, address: Address[T], lease: Lease, content: Any, cost: float) -> bool:
        if content is None:
            await self._release(address, lease)
            return False
        try:
            filled = await self._cells.fill(address, lease, content, cost)
        except RepositoryError:
            self._statistics.outages += 1
            return False
        self._statistics.refused_fills += not filled
        return filled

    async def _release(self, address: Address[Any], lease: Lease) -> None:
        try:
            await self._cells.release(address, lease)
        except RepositoryError:
            self._statistics.outages += 1  # it ends by itself within a second

    async def aclose(self) -> None:
        """End all loads; who waits for one is told that the cache was closed."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _awaited(load: Load[T]) -> T | None:
    return await load()
