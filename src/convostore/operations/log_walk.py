"""Walking over the logs of a whole database, all tenants together, in bounded memory.

The server sums up a portion of the log at a time; what a conversation has in two portions is put together here.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from typing import Any

from convostore.gateways.mongo_administration import MongoAdministration
from convostore.models.identity import AFTER_SEPARATOR, SEPARATOR, join
from convostore.models.mongo.message_model import sequence_key
from convostore.repositories.slots import KIND, SEAL

PORTION = 20_000

Stored = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LogSummary:
    """What stands in the log of a conversation.

    Attributes:
        identity: of the conversation.
        slots: how many places are taken.
        highest: the greatest sequence.
        sealed: whether the seal is there.
    """

    identity: str
    slots: int
    highest: int
    sealed: bool

    @property
    def is_dense(self) -> bool:
        """Whether every sequence from 1 on is there."""
        return self.slots == self.highest

    def joined(self, later: "LogSummary") -> "LogSummary":
        """Return the summary of this part and a later one."""
        highest = max(self.highest, later.highest)
        return replace(self, slots=self.slots + later.slots, highest=highest, sealed=self.sealed or later.sealed)


class LogWalk:
    """Reads conversations and logs in the order of their identities.

    Args:
        administration: of the database.
        portion: slots that the server looks at in one go.
    """

    def __init__(self, administration: MongoAdministration, portion: int = PORTION) -> None:
        self._administration = administration
        self._portion = portion

    async def logs(self) -> AsyncIterator[LogSummary]:
        """Iterate over the logs."""
        after, pending = "", None
        while summaries := await self._summaries(after):
            after = summaries[-1][1]
            for summary, _ in summaries:
                if pending is not None and pending.identity == summary.identity:
                    pending = pending.joined(summary)
                    continue
                if pending is not None:
                    yield pending
                pending = summary
        if pending is not None:
            yield pending

    async def _summaries(self, after: str) -> list[tuple[LogSummary, str]]:
        pipeline: list[Stored] = [
            {"$match": {"_id": {"$gt": after}}},
            {"$sort": {"_id": 1}},
            {"$limit": self._portion},
            {
                "$group": {
                    "_id": {"tenant": "$tenant_id", "conversation": "$conversation_id"},
                    "slots": {"$sum": 1},
                    "highest": {"$max": "$sequence"},
                    "seals": {"$sum": {"$cond": [{"$eq": [f"${KIND}", SEAL]}, 1, 0]}},
                    "last": {"$max": "$_id"},
                }
            },
            {"$sort": {"last": 1}},
        ]
        found = self._administration.aggregate("messages", pipeline)
        return [(_summary(group), group["last"]) async for group in found]

    async def conversations(self, limit: int) -> AsyncIterator[Stored]:
        """Iterate over identity, tenant, claim and deletion of conversations, at most so many; 0 for all."""
        shown = {"tenant_id": 1, "importing": 1, "deleted_at": 1, "message_count": 1}
        pipeline: list[Stored] = [{"$sort": {"_id": 1}}, {"$project": shown}]
        if limit:
            pipeline.insert(1, {"$limit": limit})
        async for stored in self._administration.aggregate("conversations", pipeline):
            yield stored

    async def find_conversations(self, identities: Iterable[str]) -> dict[str, Stored]:
        """Return those conversations that there are, tombstones and claims included, by identity."""
        pipeline: list[Stored] = [
            {"$match": {"_id": {"$in": list(identities)}}},
            {"$project": {"tenant_id": 1, "importing": 1, "deleted_at": 1}},
        ]
        return {stored["_id"]: stored async for stored in self._administration.aggregate("conversations", pipeline)}

    async def with_first_slot(self, identities: Iterable[str]) -> set[str]:
        """Return those conversations whose log holds something at its beginning."""
        first = {SEPARATOR.join((identity, sequence_key(1))): identity for identity in identities}
        pipeline: list[Stored] = [{"$match": {"_id": {"$in": list(first)}}}, {"$project": {"_id": 1}}]
        return {first[stored["_id"]] async for stored in self._administration.aggregate("messages", pipeline)}

    async def has_log(self, identity: str) -> bool:
        """Say whether anything stands in the log of a conversation."""
        bounds = {"$gte": identity + SEPARATOR, "$lt": identity + AFTER_SEPARATOR}
        pipeline: list[Stored] = [{"$match": {"_id": bounds}}, {"$limit": 1}, {"$project": {"_id": 1}}]
        return [stored async for stored in self._administration.aggregate("messages", pipeline)] != []


def _summary(group: Stored) -> LogSummary:
    identity = join(str(group["_id"].get("tenant", "")), str(group["_id"].get("conversation", "")))
    return LogSummary(identity, group["slots"], int(group["highest"] or 0), group["seals"] > 0)
