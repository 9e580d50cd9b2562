"""Reading a change stream: which changes of documents are events, and which."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from convostore.gateways.bulk_collection import IMPORTING
from convostore.gateways.change_stream import Change, moment_of
from convostore.models.identity import AFTER_SEPARATOR, SEPARATOR, escape, split
from convostore.models.mongo.message_model import SEQUENCE_DIGITS
from convostore.models.types import DeliveryStatus
from convostore.repositories.slots import KIND
from convostore.sync.events import (
    ChangeEvent,
    ConversationChanged,
    ConversationCreated,
    ConversationDeleted,
    DeliveryChanged,
    MessageAppended,
    MessageDeleted,
    MessageEdited,
)

CONVERSATIONS, MESSAGES = "conversations", "messages"
ACTIVITY = ["message_count", "last_activity_at", "last_message"]
_FREED = frozenset({"idempotency_key", "idempotency_digest"})
_DELIVERY = "delivery_status"
_SAID = ("tenant_id", "version", KIND, "deleted_at", _DELIVERY, "batch")
_WRITES = ["insert", "update", "replace", "delete", "drop", "rename"]


def pipeline(tenant_id: str | None = None) -> list[dict[str, Any]]:
    """Return what a stream is asked to tell: names and versions, never contents; nothing of activity, seals and blanks.

    So an event is small, however large the document, and contents leave the database only for those who read them.

    Args:
        tenant_id: only of this tenant; None for all.
    """
    ours: dict[str, Any] = {"ns.coll": {"$in": [CONVERSATIONS, MESSAGES]}, "operationType": {"$in": _WRITES}}
    if tenant_id is not None:
        own = escape(tenant_id)
        below = {"$gte": own + SEPARATOR, "$lt": own + AFTER_SEPARATOR}
        ours["$or"] = [{"documentKey._id": below}, {"operationType": {"$in": ["drop", "rename"]}}]
    activity = {"$and": [{"$eq": ["$in", CONVERSATIONS]}, {"$setIsSubset": ["$changed", ACTIVITY]}]}
    return [
        {"$match": {"$or": [ours, {"operationType": "invalidate"}]}},
        {"$project": _projection()},
        {"$match": {KIND: None, "$expr": {"$not": [{"$and": [{"$eq": ["$op", "update"]}, activity]}]}}},
    ]


def _projection() -> dict[str, Any]:
    said = {name: {"$ifNull": [f"$fullDocument.{name}", f"$updateDescription.updatedFields.{name}"]} for name in _SAID}
    changed = {"$concatArrays": [_set_names(), _removed_names(), _truncated_names()]}
    return {
        "op": "$operationType",
        "in": "$ns.coll",
        "id": "$documentKey._id",
        "changed": {"$cond": [{"$eq": ["$operationType", "update"]}, changed, "$$REMOVE"]},
        **said,
    }


def _set_names() -> dict[str, Any]:
    pairs = {"$objectToArray": {"$ifNull": ["$updateDescription.updatedFields", {}]}}
    return {"$map": {"input": pairs, "in": _first_part("$$this.k")}}


def _removed_names() -> dict[str, Any]:
    names = {"$ifNull": ["$updateDescription.removedFields", []]}
    return {"$map": {"input": names, "in": _first_part("$$this")}}


def _truncated_names() -> dict[str, Any]:
    arrays = {"$ifNull": ["$updateDescription.truncatedArrays", []]}
    return {"$map": {"input": arrays, "in": _first_part("$$this.field")}}


def _first_part(path: str) -> dict[str, Any]:
    return {"$arrayElemAt": [{"$split": [path, "."]}, 0]}


class _Told(NamedTuple):
    """A change of a document, and what its event begins with."""

    change: Change
    base: dict[str, Any]

    @property
    def version(self) -> int | None:
        found = self.change.get("version")
        # Other programs may write the long kind of numbers, which is a class of its own.
        return int(found) if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.change.get("changed", ()))

    @property
    def is_visible(self) -> bool:
        """Whether what is there now belongs to the tenant in whose place it is."""
        return bool(self.change.get("tenant_id") == self.base["tenant_id"])


def event_of(change: Change) -> ChangeEvent | None:
    """Return the event that a change is, or None if it is none."""
    parts = _parts(change.get("id"))
    reader = _READERS.get((change["in"], change["op"], len(parts)))
    if reader is None:
        return None
    cursor = change["_id"]["_data"]
    base = {"tenant_id": parts[0], "conversation_id": parts[1], "cursor": cursor, "at": moment_of(cursor)}
    if change["in"] == MESSAGES:
        if not (len(parts[2]) == SEQUENCE_DIGITS and parts[2].isascii() and parts[2].isdigit()):
            return None
        base["sequence"] = int(parts[2])
    return reader(_Told(change, base))


def _parts(identity: object) -> tuple[str, ...]:
    # What other programs put there may be identified in any way; it is not ours.
    try:
        return split(identity) if isinstance(identity, str) else ()
    except UnicodeDecodeError:
        return ()


def _inserted(told: _Told) -> ChangeEvent | None:
    # Without a tenant it is a claim, or of another program: nobody sees it.
    return ConversationCreated(**told.base, version=told.version or 1) if told.is_visible else None


def _updated(told: _Told) -> ChangeEvent | None:
    names = told.names
    if "tenant_id" in names:
        if not told.is_visible:
            return ConversationDeleted(**told.base, version=told.version)
        if IMPORTING in names:
            return ConversationCreated(**told.base, version=told.version or 1)
    return ConversationChanged(**told.base, version=told.version, fields=names)


def _replaced(told: _Told) -> ChangeEvent | None:
    if told.is_visible:
        return ConversationChanged(**told.base, version=told.version)
    return ConversationDeleted(**told.base, version=told.version)


def _removed(told: _Told) -> ChangeEvent | None:
    return ConversationDeleted(**told.base, version=None, removed=True)


def _appended(told: _Told) -> ChangeEvent | None:
    if not told.is_visible:
        return None
    count = _batch_count(told.change.get("batch"))
    # A batch is shown when its last member is there, and so it is told.
    return MessageAppended(**told.base, count=count) if count else None


def _batch_count(batch: object) -> int:
    """Return how many messages are there with this one: none before the last of them is."""
    if not isinstance(batch, Mapping):
        return 1
    size, index = batch.get("size"), batch.get("index")
    return size if isinstance(size, int) and index == size - 1 else 0


def _message_updated(told: _Told) -> ChangeEvent | None:
    names = told.names
    if "deleted_at" in told.change or ("tenant_id" in names and not told.is_visible):
        return MessageDeleted(**told.base, version=told.version)
    if names == {_DELIVERY}:
        return DeliveryChanged(**told.base, status=_status(told.change.get(_DELIVERY)))
    if names <= _FREED:
        return None
    return MessageEdited(**told.base, version=told.version, fields=names)


def _message_replaced(told: _Told) -> ChangeEvent | None:
    if "deleted_at" in told.change or not told.is_visible:
        return MessageDeleted(**told.base, version=told.version)
    return MessageEdited(**told.base, version=told.version)


def _message_removed(told: _Told) -> ChangeEvent | None:
    return MessageDeleted(**told.base, version=None, removed=True)


def _status(value: object) -> DeliveryStatus | None:
    try:
        return DeliveryStatus(value)  # type: ignore[arg-type]
    except ValueError:
        return None


_READERS: Final[dict[tuple[str, str, int], Callable[[_Told], ChangeEvent | None]]] = {
    (CONVERSATIONS, "insert", 2): _inserted,
    (CONVERSATIONS, "update", 2): _updated,
    (CONVERSATIONS, "replace", 2): _replaced,
    (CONVERSATIONS, "delete", 2): _removed,
    (MESSAGES, "insert", 3): _appended,
    (MESSAGES, "update", 3): _message_updated,
    (MESSAGES, "replace", 3): _message_replaced,
    (MESSAGES, "delete", 3): _message_removed,
}
