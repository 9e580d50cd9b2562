"""Activity: what a conversation tells of its messages, made anew from its log.

A writer who is at it can be ahead of whatever was read here. So what lags behind is raised by ``$max``, as appends do
it; and what is ahead is lowered only after a second look at the log, only if nobody has changed it since, and is raised
again by a third look: what was appended before that look is seen by it, and what is appended after it raises by itself.
"""

from datetime import datetime
from typing import Any, NamedTuple

from convostore.gateways.mongo_gateway import MongoGateway
from convostore.models.identity import split
from convostore.models.mongo.conversation_model import LastMessage
from convostore.models.stored_form import stored_form
from convostore.operations.log_walk import LogSummary, LogWalk, Stored

_NOTHING = (0, 0)


class Activity(NamedTuple):
    """What the log of a conversation says that it should tell.

    Attributes:
        message_count: the sequence of the last message.
        last: that message, as it is stored in the conversation; None if there is none.
        active_at: when the latest one was made.
    """

    message_count: int = 0
    last: Stored | None = None
    active_at: datetime | None = None

    @classmethod
    def of(cls, log: LogSummary | None) -> "Activity | None":
        """Return the activity of a log; None if its last message is not one that could be read."""
        if log is None or log.last is None:
            return cls()
        if stored_form(LastMessage).read([log.last]) is None:
            return None
        return cls(int(log.last["sequence"]), log.last, log.active_at)

    def missing_in(self, stored: Stored) -> Stored:
        """Return what a conversation lags behind in, for ``$max``."""
        values: Stored = {}
        if self.message_count > _number(stored, "message_count"):
            values["message_count"] = self.message_count
        if _rank(self.last) > _rank(stored.get("last_message")):
            values["last_message"] = self.last
        # One without messages was active when it was created.
        known = [moment for moment in (self.active_at, stored.get("created_at")) if isinstance(moment, datetime)]
        told = stored.get("last_activity_at")
        if known and (not isinstance(told, datetime) or max(known) > told):
            values["last_activity_at"] = max(known)
        return values

    def is_exceeded_by(self, stored: Stored) -> bool:
        """Say whether a conversation tells of more than there is, or something else."""
        last = stored.get("last_message")
        if _number(stored, "message_count") > self.message_count or _rank(last) > _rank(self.last):
            return True
        if last is not None and stored_form(LastMessage).read([last]) is None:
            return True  # no comparison holds with what others have put there
        return _rank(last) == _rank(self.last) and last != self.last

    def change(self) -> dict[str, Any]:
        """Return the change that makes a conversation tell this and nothing else; its moment only ever rises."""
        if self.last is None:
            return {"$set": {"message_count": 0}, "$unset": {"last_message": ""}}
        return {"$set": {"message_count": self.message_count, "last_message": self.last}}


def _number(stored: Stored, name: str) -> int:
    value = stored.get(name, 0)
    return value if isinstance(value, int) else 0


def _rank(message: Any) -> tuple[int, int]:
    if not isinstance(message, dict):
        return _NOTHING
    return _number(message, "sequence"), _number(message, "version")


class ActivityRepair:
    """Makes the activity of conversations follow from their logs again.

    Args:
        gateway: the way to the database.
        walk: reads its logs.
    """

    def __init__(self, gateway: MongoGateway, walk: LogWalk) -> None:
        self._gateway = gateway
        self._walk = walk

    async def is_needed(self, log: LogSummary | None, stored: Stored) -> bool:
        """Say whether a conversation, read after its log, tells something else than the log says."""
        activity = Activity.of(log)
        if activity is None:
            return False
        return bool(activity.missing_in(stored)) or await self._exceeds(activity, stored)

    async def _exceeds(self, activity: Activity, stored: Stored) -> bool:
        if not activity.is_exceeded_by(stored):
            return False
        # Somebody may have appended between the two looks; what a conversation tells is in the log before it.
        now = Activity.of(await self._walk.log(stored["_id"]))
        return now is not None and now.is_exceeded_by(stored)

    async def carry_out(self, identity: str) -> None:
        """Correct a conversation; may be repeated, also while others append to it."""
        tenant_id, *key = split(identity)
        conversations = self._gateway.tenant(tenant_id).collection("conversations", "Conversation")
        stored = await conversations.get(tuple(key))
        activity = Activity.of(await self._walk.log(identity))
        if stored is None or activity is None:
            return
        if activity.is_exceeded_by(stored):
            guard = {name: stored.get(name) for name in ("message_count", "last_message")}
            await conversations.update(tuple(key), guard, activity.change())
            stored, activity = {}, Activity.of(await self._walk.log(identity)) or Activity()
        if missing := activity.missing_in(stored):
            await conversations.update(tuple(key), {}, {"$max": missing})
        if self._gateway.cached is not None:
            await self._gateway.cached.tell([identity])
