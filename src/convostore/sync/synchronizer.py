"""Synchronizer: what changes in MongoDB, by whatever program, is forgotten by the cache.

It follows the changes of all tenants and keeps how far it has come in the database: after the effect, never before, so
that whoever goes on from there repeats some of it at most. Invalidating twice or late is harmless, so several may run
at once. While they are carried out, further events gather, and each entity is invalidated once for all of them.

What cannot be told any more (the database has forgotten it, or nobody has followed before) may concern anything: then
the cache forgets everything, and it goes on from now.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from convostore.gateways.cancellation import finish
from convostore.gateways.change_stream import AWAIT_SECONDS, moment_of
from convostore.gateways.checkpoints import CURSOR, Checkpoints
from convostore.gateways.epoch_counter import EpochCounter
from convostore.gateways.mongo_gateway import MongoGateway
from convostore.gateways.retry import RetryPolicy, pause
from convostore.logs import get_logger
from convostore.models.identity import check_identifier
from convostore.repositories.cache_forgetting import CacheForgetting
from convostore.repositories.cache_repository import CacheRepository
from convostore.repositories.exceptions import (
    ConnectionError,  # noqa: A004 - the name is the specification's
    RepositoryError,
    ValidationError,
)
from convostore.sync.changes import Changes
from convostore.sync.dispatcher import Dispatcher
from convostore.sync.events import ChangeEvent
from convostore.sync.feed import ChangeFeed
from convostore.sync.invalidations import Invalidations

SAVE_SECONDS = 1.0  # between two checkpoints while something happens
IDLE_SECONDS = 10.0  # and while nothing does


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """How far a synchronizer has come.

    Attributes:
        events: that it was told.
        invalidations: entities that were invalidated for them.
        forgotten: values that the cache held and has forgotten.
        losses: how often everything was forgotten, since it was not known what had changed.
        place: the moment of the database up to which it has come; None before the first checkpoint.
    """

    events: int = 0
    invalidations: int = 0
    forgotten: int = 0
    losses: int = 0
    place: datetime | None = None


class Synchronizer:
    """Keeps a cache in step with a database.

    Args:
        feed: tells what happens.
        cache: what is to forget; stays open.
        gateway: the way to the database, where it is kept how far this has come.
        name: of the checkpoint; another one for another cache of the same database.
        progress: told of the status now and then.
        outbox: carries out what is in the outbox meanwhile.
    """

    def __init__(
        self,
        feed: ChangeFeed,
        cache: CacheRepository,
        gateway: MongoGateway,
        *,
        name: str = "cache",
        progress: Callable[[SyncStatus], None] = lambda _: None,
        outbox: Dispatcher | None = None,
    ) -> None:
        self.name = check_identifier(name, "name")
        self.forgetting = CacheForgetting(cache, EpochCounter(gateway))
        self.checkpoints = Checkpoints(gateway)
        self.progress = progress
        self.retry = RetryPolicy()
        self.logger = get_logger("sync")
        self._feed = feed
        self._outbox = outbox

    async def run(self) -> None:
        """Go on until it is cancelled, or the store is closed; it keeps how far it has come.

        Raises:
            RepositoryError: the database refuses to tell what happens.
        """
        dispatching = None if self._outbox is None else asyncio.create_task(self._outbox.run())
        try:
            await self._follow(once=False)
        finally:
            if dispatching is not None:
                dispatching.cancel()
                await asyncio.wait([dispatching])

    async def run_once(self) -> SyncStatus:
        """Do what has happened up to now, and return how much it was.

        Raises:
            RepositoryError: the database refuses to tell what happens.
            ConnectionError: the cache does not answer; what it was not told is left to the next run.
        """
        if self._outbox is not None:
            await self._outbox.run_once()
        return await self._follow(once=True)

    async def _follow(self, *, once: bool) -> SyncStatus:
        changes, known = await self._begin()
        async with changes:
            journey = _Journey(self, changes, known=known, patient=not once)
            try:
                while not (changes.is_closed or (once and changes.is_level and journey.is_done)):
                    await journey.do(await changes.batch(journey.patience if not once else AWAIT_SECONDS))
            finally:
                await finish(journey.keep())
            return journey.status

    async def _begin(self) -> tuple[Changes, bool]:
        """Return the changes from where it had come to, and whether that is known."""
        cursor = (await self.checkpoints.read(self.name) or {}).get(CURSOR)
        with suppress(ValidationError):
            if cursor is not None:
                return self._feed.changes(None, cursor), True
        return self._feed.changes(None), False


class _Journey:
    """One run: what has been done, and how far of it is kept; a patient one waits for a cache that is away."""

    def __init__(self, synchronizer: Synchronizer, changes: Changes, *, known: bool, patient: bool) -> None:
        self.status = SyncStatus()
        self._owner = synchronizer
        self._changes = changes
        self._knows = known  # what the cache may hold
        self._is_patient = patient
        self._done: str | None = None  # the place up to which the effects are there
        self._kept: str | None = None
        self._anew = not known
        self._keep_at = 0.0

    @property
    def is_done(self) -> bool:
        """Whether everything that happened before has had its effect."""
        return self._knows

    @property
    def patience(self) -> float:
        """Seconds to wait for events: until it is time to keep how far this has come."""
        return max(0.01, self._keep_at - time.monotonic())

    async def do(self, events: Sequence[ChangeEvent]) -> None:
        """Carry out what events mean, then keep how far this has come, if it is time."""
        invalidations = Invalidations(events, everything=not self._knows)
        self._anew = self._anew or invalidations.everything
        place = self._changes.cursor  # nothing is waiting, or it is the last one taken
        await self._apply(invalidations, len(events))
        self._knows, self._done = True, place
        if events:
            self._keep_at = min(self._keep_at, time.monotonic() + SAVE_SECONDS)
        if time.monotonic() >= self._keep_at:
            await self.keep()

    async def _apply(self, invalidations: Invalidations, events: int) -> None:
        failures = 0
        while True:
            try:
                forgotten = await invalidations.apply(self._owner.forgetting)
                break
            except ConnectionError as error:
                if not self._is_patient:
                    raise
                failures += 1
                if failures == 1:
                    self._owner.logger.warning("the cache does not answer", error=type(error).__name__)
                await pause(self._owner.retry.pause_before(min(failures, 10)))
        self.status = replace(
            self.status,
            events=self.status.events + events,
            invalidations=self.status.invalidations + len(invalidations),
            forgotten=self.status.forgotten + forgotten,
            losses=self.status.losses + invalidations.everything,
        )

    async def keep(self) -> None:
        """Keep how far this has come; if that fails, it is tried again later."""
        self._keep_at = time.monotonic() + IDLE_SECONDS
        if self._done is None or self._done == self._kept:
            return
        status = replace(self.status, place=moment_of(self._done))
        try:
            await self._owner.checkpoints.save(self._owner.name, self._done, asdict(status), anew=self._anew)
        except RepositoryError as error:
            self._owner.logger.warning("not kept how far this has come", error=type(error).__name__)
            return
        self.status, self._kept, self._anew = status, self._done, False
        self._owner.progress(status)
