"""Walking over the logs of a whole database, all tenants together, in bounded memory.

The server sums up a portion of the log at a time; what a conversation has in two portions is put together here.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from convostore.gateways.mongo_administration import MongoAdministration
from convostore.models.identity import AFTER_SEPARATOR, SEPARATOR, join
from convostore.models.mongo.conversation_model import PREVIEW_LENGTH
from convostore.models.mongo.message_model import sequence_key
from convostore.repositories.slots import BLANK, KIND, SEAL

PORTION = 20_000

Stored = dict[str, Any]

_SHOWN = dict.fromkeys(
    ("tenant_id", "importing", "at", "deleted_at", "created_at", "message_count", "last_message", "last_activity_at"), 1
)

# A message that is the last one anybody sees is alone or ends its batch, for a batch without its end is not shown. What
# others have written may be of any type, and must not make the sum of all fail.
_IS_IN_BATCH = {"$and": [{"$isNumber": "$batch.size"}, {"$isNumber": "$batch.index"}]}
_ENDS_A_BATCH = {"$cond": [_IS_IN_BATCH, {"$eq": ["$batch.size", {"$add": ["$batch.index", 1]}]}, {"$not": ["$batch"]}]}
_IS_SHOWN = {
    "$and": [
        {"$not": [f"${KIND}"]},
        {"$isNumber": "$sequence"},
        {"$eq": [{"$type": "$created_at"}, "date"]},
        _ENDS_A_BATCH,
    ]
}
_TEXT = {"$cond": [{"$eq": [{"$type": "$content"}, "string"]}, "$content", ""]}
_PREVIEW = {  # in the order of ``LastMessage``, by which the database compares
    "sequence": "$sequence",
    "version": "$version",
    "role": "$role",
    "preview": {"$substrCP": [_TEXT, 0, PREVIEW_LENGTH]},
    "created_at": "$created_at",
}
_SUMMED_UP = {
    "_id": {"tenant": "$tenant_id", "conversation": "$conversation_id"},
    "slots": {"$sum": 1},
    "highest": {"$max": "$sequence"},
    "seals": {"$sum": {"$cond": [{"$eq": [f"${KIND}", SEAL]}, 1, 0]}},
    "contents": {"$sum": {"$cond": [{"$in": [f"${KIND}", [SEAL, BLANK]]}, 0, 1]}},
    "last": {"$max": {"$cond": [_IS_SHOWN, _PREVIEW, None]}},
    "active_at": {"$max": {"$cond": [{"$and": [_IS_SHOWN, {"$lte": ["$created_at", "$$NOW"]}]}, "$created_at", None]}},
    "end": {"$max": "$_id"},
}


@dataclass(frozen=True, slots=True)
class LogSummary:
    """What stands in the log of a conversation.

    Attributes:
        identity: of the conversation.
        slots: how many places are taken.
        highest: the greatest sequence.
        sealed: whether the seal is there.
        contents: how many places are neither blank nor the seal.
        last: of the last message what a list of conversations shows; None if there is none.
        active_at: when the latest message was made, leaving out those of the future.
    """

    identity: str
    slots: int
    highest: int
    sealed: bool
    contents: int = 0
    last: Stored | None = None
    active_at: datetime | None = None

    @property
    def is_dense(self) -> bool:
        """Whether every sequence from 1 on is there."""
        return self.slots == self.highest

    def joined(self, later: "LogSummary") -> "LogSummary":
        """Return the summary of this part and a later one."""
        return replace(
            later,
            slots=self.slots + later.slots,
            highest=max(self.highest, later.highest),
            sealed=self.sealed or later.sealed,
            contents=self.contents + later.contents,
            last=later.last or self.last,
            active_at=max((each.active_at for each in (self, later) if each.active_at), default=None),
        )


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
            {"$group": _SUMMED_UP},
            {"$sort": {"end": 1}},
        ]
        found = self._administration.aggregate("messages", pipeline)
        return [(_summary(group), group["end"]) async for group in found]

    async def log(self, identity: str) -> LogSummary | None:
        """Return what stands in the log of one conversation now, or None if nothing does."""
        pipeline: list[Stored] = [{"$match": {"_id": _below(identity)}}, {"$group": _SUMMED_UP}]
        found = [_summary(group) async for group in self._administration.aggregate("messages", pipeline)]
        return next((log for log in found if log.identity == identity), None)

    async def conversations(self, limit: int) -> AsyncIterator[Stored]:
        """Iterate over identity, tenant, claim, deletion and activity of conversations, at most so many; 0 for all."""
        pipeline: list[Stored] = [{"$sort": {"_id": 1}}, {"$project": _SHOWN}]
        if limit:
            pipeline.insert(1, {"$limit": limit})
        async for stored in self._administration.aggregate("conversations", pipeline):
            yield stored

    async def find_conversations(self, identities: Iterable[str]) -> dict[str, Stored]:
        """Return what is in the places of conversations, tombstones and claims included, by identity."""
        pipeline: list[Stored] = [{"$match": {"_id": {"$in": list(identities)}}}, {"$project": _SHOWN}]
        return {stored["_id"]: stored async for stored in self._administration.aggregate("conversations", pipeline)}

    async def with_first_slot(self, identities: Iterable[str]) -> set[str]:
        """Return those conversations whose log holds something at its beginning."""
        first = {SEPARATOR.join((identity, sequence_key(1))): identity for identity in identities}
        pipeline: list[Stored] = [{"$match": {"_id": {"$in": list(first)}}}, {"$project": {"_id": 1}}]
        return {first[stored["_id"]] async for stored in self._administration.aggregate("messages", pipeline)}

    async def has_log(self, identity: str) -> bool:
        """Say whether anything stands in the log of a conversation."""
        pipeline: list[Stored] = [{"$match": {"_id": _below(identity)}}, {"$limit": 1}, {"$project": {"_id": 1}}]
        return [stored async for stored in self._administration.aggregate("messages", pipeline)] != []


def _below(identity: str) -> dict[str, str]:
    return {"$gte": identity + SEPARATOR, "$lt": identity + AFTER_SEPARATOR}


def _summary(group: Stored) -> LogSummary:
    identity = join(str(group["_id"].get("tenant", "")), str(group["_id"].get("conversation", "")))
    highest, sealed = int(group["highest"] or 0), group["seals"] > 0
    return LogSummary(identity, group["slots"], highest, sealed, group["contents"], group["last"], group["active_at"])
