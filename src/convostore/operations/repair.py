"""Repair: makes right what follows from something else, and finishes what somebody has left unfinished.

Each correction is one by itself and may be repeated, so a run that was interrupted is simply run again. It looks at a
bounded number of conversations at a time. Writers need not be stopped: whatever is changed is changed only if it still
is as it was found, or in a way that cannot undo what they do.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from convostore.gateways.bulk_collection import BulkCollection
from convostore.gateways.mongo_gateway import MongoGateway
from convostore.models.identity import split
from convostore.models.types import utc_now
from convostore.operations.activity import ActivityRepair
from convostore.operations.burying import Burying, is_ours
from convostore.operations.chat_message import stored_moment
from convostore.operations.doctor import Tally, is_recent_tombstone
from convostore.operations.log_walk import LogSummary, LogWalk, Stored
from convostore.repositories.exceptions import ValidationError

SHORTEST_AGE = timedelta(hours=1)
_TOGETHER = 500

T = TypeVar("T")


class Ailment(StrEnum):
    """What can be repaired."""

    ACTIVITY = "activity"
    ORPHANS = "orphans"
    UNSEALED = "unsealed"
    CONTENTS = "contents"
    CLAIMS = "claims"


@dataclass(slots=True)
class RepairReport:
    """What is to be repaired, or was.

    Attributes:
        looked_at: conversations and logs.
        cases: of each ailment.
    """

    looked_at: int = 0
    cases: dict[Ailment, Tally] = field(default_factory=lambda: {ailment: Tally() for ailment in Ailment})

    @property
    def count(self) -> int:
        """How many cases there are, all together."""
        return sum(tally.count for tally in self.cases.values())


@dataclass(frozen=True, slots=True)
class _Case:
    ailment: Ailment
    identity: str


class Repair:
    """Repairs one database.

    Args:
        gateway: the way to it.
        claims_older_than: take imports that have begun so long ago for abandoned, at least an hour; None for none. It
            has to be longer than the longest import takes.
        progress: told of the documents that were looked at since it was told last.

    Raises:
        ValidationError: the age is too short.
    """

    def __init__(
        self,
        gateway: MongoGateway,
        claims_older_than: timedelta | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        if claims_older_than is not None and claims_older_than < SHORTEST_AGE:
            raise ValidationError("claims_older_than: must be an hour at least", "claims_older_than")
        self._gateway = gateway
        self._walk = LogWalk(gateway.administration)
        self._activity = ActivityRepair(gateway, self._walk)
        self._abandoned = None if claims_older_than is None else utc_now() - claims_older_than
        self._progress = progress

    async def size(self) -> int:
        """Return about how many documents there are to look at."""
        stats = [await self._gateway.administration.command({"collStats": name}) for name in _COLLECTIONS]
        return sum(int(each["count"]) for each in stats)

    async def plan(self) -> RepairReport:
        """Return what would be repaired, and change nothing; what a writer is just at may be among it.

        Raises:
            RepositoryError: the database failed.
        """
        return await self._go(apply=False)

    async def run(self) -> RepairReport:
        """Repair, and return what was.

        Raises:
            RepositoryError: the database failed; what was repaired stays so, and the next run does the rest.
        """
        return await self._go(apply=True)

    async def _go(self, *, apply: bool) -> RepairReport:
        report = RepairReport()
        async for logs in _portions(self._walk.logs()):
            await self._settle(report, await self._sick_logs(logs), apply=apply)
            report.looked_at += len(logs)
            self._progress(sum(log.slots for log in logs))
        async for conversations in _portions(self._walk.conversations(0)):
            await self._settle(report, await self._sick_conversations(conversations), apply=apply)
            report.looked_at += len(conversations)
            self._progress(len(conversations))
        return report

    async def _settle(self, report: RepairReport, cases: Sequence[_Case], *, apply: bool) -> None:
        if apply:
            ended = await asyncio.gather(*map(self._carry_out, cases), return_exceptions=True)
            for failure in filter(None, ended):
                raise failure
        for case in cases:
            report.cases[case.ailment].add(case.identity)

    # what is wrong

    async def _sick_logs(self, logs: Sequence[LogSummary]) -> list[_Case]:
        by_identity = {log.identity: log for log in logs if is_ours(log.identity)}
        conversations = await self._walk.find_conversations(by_identity)
        cases = []
        for identity, log in by_identity.items():
            ailment = await self._ailment(log, conversations.get(identity))
            if ailment is not None:
                cases.append(_Case(ailment, identity))
        return cases

    async def _ailment(self, log: LogSummary, conversation: Stored | None) -> Ailment | None:
        if conversation is not None and "tenant_id" in conversation:
            # Into a sealed one nothing can be appended, and nobody knows what it was meant to be: the doctor tells it.
            needed = not log.sealed and await self._activity.is_needed(log, conversation)
            return Ailment.ACTIVITY if needed else None
        if conversation is not None and "deleted_at" not in conversation:
            return None  # a claim
        if log.sealed:
            return Ailment.CONTENTS if log.contents else None
        return Ailment.ORPHANS if conversation is None else Ailment.UNSEALED

    async def _sick_conversations(self, conversations: Sequence[Stored]) -> list[_Case]:
        told = [stored["_id"] for stored in conversations if "tenant_id" in stored and stored.get("message_count")]
        there = await self._walk.with_first_slot(told) if told else set()
        cases = []
        for stored in conversations:
            identity = stored["_id"]
            ailment = await self._ailment_without_log(stored, may_lack=identity not in there)
            if ailment is not None and is_ours(identity):
                cases.append(_Case(ailment, identity))
        return cases

    async def _ailment_without_log(self, stored: Stored, *, may_lack: bool) -> Ailment | None:
        """Return what is wrong with a conversation that its log has not shown, since there is none."""
        identity = stored["_id"]
        if "importing" in stored:
            return Ailment.CLAIMS if self._is_abandoned(stored) else None
        if "tenant_id" in stored:
            lacks = stored.get("message_count") and may_lack and not await self._walk.has_log(identity)
            return Ailment.ACTIVITY if lacks else None
        lacks = is_recent_tombstone(stored) and not await self._walk.has_log(identity)
        return Ailment.UNSEALED if lacks else None

    def _is_abandoned(self, claim: Stored) -> bool:
        at = claim.get("at")
        return self._abandoned is not None and isinstance(at, datetime) and stored_moment(at) < self._abandoned

    # what helps

    async def _carry_out(self, case: _Case) -> None:
        if case.ailment is Ailment.ACTIVITY:
            await self._activity.carry_out(case.identity)
        elif case.ailment is Ailment.CLAIMS:
            await self._remove_claim(case.identity)
        else:
            await self._finish_deletion(case.identity, bury=case.ailment is Ailment.ORPHANS)

    async def _finish_deletion(self, identity: str, *, bury: bool) -> None:
        tenant_id, conversation_id = split(identity)
        burying = Burying(self._gateway, tenant_id)
        await (burying.bury_log if bury else burying.close)(conversation_id)
        await self._gateway.tell([identity])

    async def _remove_claim(self, identity: str) -> None:
        tenant_id, conversation_id = split(identity)
        key = (conversation_id,)
        places = BulkCollection(self._gateway, "conversations", tenant_id)
        if self._abandoned is not None and await places.condemn(key, self._abandoned):
            await BulkCollection(self._gateway, "messages", tenant_id).remove_below(key)
            await self._gateway.tell([identity])
            await places.remove_condemned(key)


_COLLECTIONS = ("conversations", "messages")


async def _portions(items: AsyncIterator[T]) -> AsyncIterator[list[T]]:
    portion: list[T] = []
    async for item in items:
        portion.append(item)
        if len(portion) == _TOGETHER:
            yield portion
            portion = []
    if portion:
        yield portion
