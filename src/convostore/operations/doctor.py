"""Doctor: looks for what is wrong with a database, and says what to do about it; changes nothing."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from convostore.gateways.mongo_administration import MongoAdministration
from convostore.models.types import utc_now
from convostore.operations.chat_message import stored_moment
from convostore.operations.indexes import Schema
from convostore.operations.log_walk import LogSummary, LogWalk, Stored
from convostore.repositories.exceptions import RepositoryError
from convostore.repositories.slots import SEAL_DAYS

SCANNED = 20_000
_OLDEST_VERSION = (5, 0)
_CLUSTERED_VERSION = (5, 3)
_LOOKED_UP = 1000
_NAMED = 3


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found.

    Attributes:
        check: which check.
        level: how bad it is.
        text: what was found, and what helps.
    """

    check: str
    level: Level
    text: str


@dataclass(slots=True)
class Tally:
    """Cases of one kind, counted, the first few by name.

    Attributes:
        count: how many.
        named: the first few.
    """

    count: int = 0
    named: list[str] = field(default_factory=list)

    def add(self, identity: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.named) < _NAMED:
            self.named.append(identity)

    def finding(self, check: str, problem: str, level: Level = Level.PROBLEM) -> Finding:
        """Return what is to be told of them."""
        if not self.count:
            return Finding(check, Level.OK, "none")
        names = ", ".join(self.named) + (", …" if self.count > len(self.named) else "")
        return Finding(check, level, f"{self.count} {problem}: {names}")


class Doctor:
    """Examines one database.

    Args:
        administration: of the database.
        scan: look at so many conversations and logs at most; 0 for all.
    """

    def __init__(self, administration: MongoAdministration, scan: int = SCANNED) -> None:
        self._administration = administration
        self._walk = LogWalk(administration)
        self._scan = scan
        self._orphans, self._gaps, self._wrongly_sealed = Tally(), Tally(), Tally()
        self._unsealed, self._claims, self._lost = Tally(), Tally(), Tally()

    async def examine(self) -> AsyncIterator[Finding]:
        """Iterate over the findings as they come; a server that is away is one of them, and the last."""
        try:
            async for finding in self._findings():
                yield finding
        except RepositoryError as error:
            yield Finding("MongoDB", Level.PROBLEM, str(error))

    async def _findings(self) -> AsyncIterator[Finding]:
        await self._administration.command({"ping": 1})
        yield Finding("MongoDB", Level.OK, f"answers; database {self._administration.database_name}")
        yield await self._version()
        yield await self._transactions()
        yield self._write_concern()
        steps = await Schema(self._administration).plan()
        yield _schema(len(steps))
        if any(step.kind == "collection" for step in steps):
            return
        async for finding in self._contents():
            yield finding

    async def _version(self) -> Finding:
        version = (await self._administration.command({"buildInfo": 1}))["versionArray"][:3]
        text = ".".join(map(str, version))
        if tuple(version) < _OLDEST_VERSION:
            return Finding("version", Level.PROBLEM, f"{text} is too old: 5.0 or later is needed")
        if tuple(version) < _CLUSTERED_VERSION:
            return Finding("version", Level.WARNING, f"{text} has no clustered collections, which take half the room")
        return Finding("version", Level.OK, text)

    async def _transactions(self) -> Finding:
        hello = await self._administration.command({"hello": 1})
        if "setName" in hello or hello.get("msg") == "isdbgrid":
            return Finding("transactions", Level.OK, "available")
        text = "not available: the server is no replica set, so units of work and change feeds are refused"
        return Finding("transactions", Level.WARNING, text)

    def _write_concern(self) -> Finding:
        concern = self._administration.write_concern
        if concern.get("w") == "majority":
            return Finding("write concern", Level.OK, "majority")
        return Finding("write concern", Level.PROBLEM, "not majority: an acknowledged write can be lost in a failover")

    async def _contents(self) -> AsyncIterator[Finding]:
        logs = await self._examine_logs()
        conversations = await self._examine_conversations()
        bound = f", at most {self._scan} each" if self._scan else ""
        yield Finding("scan", Level.OK, f"looked at {conversations} conversations and {logs} logs{bound}")
        yield self._orphans.finding("orphans", "logs whose conversation is gone without a seal")
        yield self._gaps.finding("gaps", "logs with missing sequences")
        yield self._lost.finding("lost logs", "conversations that tell of messages and have no first one")
        yield self._unsealed.finding(
            "unsealed", "deleted conversations whose log is not sealed; `--repair` finishes it"
        )
        yield self._wrongly_sealed.finding("sealed", "conversations that are there and cannot be appended to")
        help_ = "conversations; import the same file again, or add `--repair --claims-older-than`"
        yield self._claims.finding("unfinished imports", help_, Level.WARNING)

    async def _examine_logs(self) -> int:
        count = 0
        batch: list[LogSummary] = []
        async for summary in self._walk.logs():
            count += 1
            batch.append(summary)
            if len(batch) == _LOOKED_UP or count == self._scan:
                await self._compare(batch)
                batch = []
            if count == self._scan:
                break
        await self._compare(batch)
        return count

    async def _compare(self, logs: Iterable[LogSummary]) -> None:
        by_identity = {log.identity: log for log in logs}
        conversations = await self._walk.find_conversations(by_identity) if by_identity else {}
        for identity, log in by_identity.items():
            self._judge(log, conversations.get(identity))

    def _judge(self, log: LogSummary, conversation: Stored | None) -> None:
        if conversation is None:
            if not log.sealed:
                self._orphans.add(log.identity)
        elif "tenant_id" in conversation:
            if log.sealed:
                self._wrongly_sealed.add(log.identity)
            elif not log.is_dense:
                self._gaps.add(log.identity)
        elif "deleted_at" in conversation and not log.sealed:
            self._unsealed.add(log.identity)

    async def _examine_conversations(self) -> int:
        count = 0
        batch: list[Stored] = []
        async for stored in self._walk.conversations(self._scan):
            count += 1
            batch.append(stored)
            if len(batch) == _LOOKED_UP:
                await self._judge_conversations(batch)
                batch = []
        await self._judge_conversations(batch)
        return count

    async def _judge_conversations(self, batch: Iterable[Stored]) -> None:
        told: list[str] = []
        for stored in batch:
            identity = stored["_id"]
            if "importing" in stored:
                self._claims.add(identity)
            elif stored.get("message_count"):
                told.append(identity)
            elif is_recent_tombstone(stored) and not await self._walk.has_log(identity):
                self._unsealed.add(identity)
        there = await self._walk.with_first_slot(told) if told else set()
        for identity in told:
            if identity not in there:
                self._lost.add(identity)


def is_recent_tombstone(stored: Stored) -> bool:
    """Say whether this is what a deleted conversation has left, and its seal should be there too."""
    # Older ones have outlived their seal, as they should.
    recent = utc_now() - timedelta(days=SEAL_DAYS - 1)
    return "deleted_at" in stored and stored_moment(stored["deleted_at"]) > recent


def _schema(missing: int) -> Finding:
    if not missing:
        return Finding("schema", Level.OK, "all collections and indexes are there")
    return Finding("schema", Level.PROBLEM, f"{missing} differences: see `convostore indexes`")
