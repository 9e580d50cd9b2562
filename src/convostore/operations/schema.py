"""The collections and indexes of convostore, as data, each index with the query that it serves."""

from dataclasses import dataclass, field
from typing import Any

Keys = tuple[tuple[str, int | str], ...]
IF_PRESENT = {"$exists": True}


@dataclass(frozen=True, slots=True)
class Index:
    """An index that there has to be.

    Attributes:
        name: its name.
        keys: its fields with their direction or kind.
        serves: the query it is there for.
        options: of ``createIndexes``.
    """

    name: str
    keys: Keys
    serves: str
    options: dict[str, Any] = field(default_factory=dict)

    def specification(self) -> dict[str, Any]:
        """Return the index as ``createIndexes`` takes it."""
        return {"name": self.name, "key": dict(self.keys), **self.options}


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection that there has to be.

    Attributes:
        name: its name.
        indexes: the indexes besides the one on ``_id``.
        options: of ``create``.
    """

    name: str
    indexes: tuple[Index, ...]
    options: dict[str, Any] = field(default_factory=dict)


def _purge(name: str) -> Index:
    return Index(
        name,
        (("purge_at", 1),),
        "the server removes tombstones and blanks after their time",
        {"expireAfterSeconds": 0, "partialFilterExpression": {"purge_at": IF_PRESENT}},
    )


_TEXT = {"bsonType": "string"}
_DATE = {"bsonType": "date"}
_NUMBER = {"bsonType": ["int", "long"], "minimum": 0}

# What other programs write is checked where it costs little: there are few writes to conversations.
_CONVERSATION_SCHEMA = {
    "$jsonSchema": {
        "bsonType": "object",
        "required": ["_id", "version"],
        "properties": {
            "_id": _TEXT,
            "version": _NUMBER,
            "tenant_id": _TEXT,
            "conversation_id": _TEXT,
            "user_id": _TEXT,
            "channel": _TEXT,
            "status": _TEXT,
            "created_at": _DATE,
            "started_at": _DATE,
            "updated_at": _DATE,
            "last_activity_at": _DATE,
            "message_count": _NUMBER,
        },
    }
}

CONVERSATIONS = Collection(
    "conversations",
    (
        Index("by_creation", (("tenant_id", 1), ("created_at", -1), ("_id", -1)), "list, page: the newest first"),
        Index(
            "by_activity",
            (("tenant_id", 1), ("last_activity_at", -1), ("_id", -1)),
            "list, page: the latest message first",
        ),
        Index(
            "by_user",
            (("tenant_id", 1), ("user_id", 1), ("status", 1), ("last_activity_at", -1), ("_id", -1)),
            "get_active_conversations; list by user",
        ),
        Index(
            "by_status",
            (("tenant_id", 1), ("status", 1), ("created_at", -1), ("_id", -1)),
            "list by status, the newest first",
        ),
        Index(
            "by_text",
            (("tenant_id", 1), ("title", "text"), ("tags", "text")),
            "list with search",
            {"default_language": "none", "language_override": "text_language"},
        ),
        _purge("purge_tombstones"),
    ),
    {"validator": _CONVERSATION_SCHEMA},
)

MESSAGES = Collection(
    "messages",
    (
        Index(
            "by_idempotency_key",
            (("tenant_id", 1), ("conversation_id", 1), ("idempotency_key", 1)),
            "append with a key: one message for each",
            {"unique": True, "partialFilterExpression": {"idempotency_key": IF_PRESENT}},
        ),
        Index(
            "by_external_id",
            (("tenant_id", 1), ("external_id", 1)),
            "get_by_external_id",
            {"partialFilterExpression": {"external_id": IF_PRESENT}},
        ),
        _purge("purge_blanks"),
    ),
    {
        "clusteredIndex": {"key": {"_id": 1}, "unique": True, "name": "_id_"},
        "storageEngine": {"wiredTiger": {"configString": "block_compressor=zstd"}},
    },
)

USAGE = Collection("usage", ())  # of quotas: read by identity alone

OUTBOX = Collection("outbox", (Index("by_due", (("due_at", 1),), "the dispatcher takes what is due"),))

COLLECTIONS = (CONVERSATIONS, MESSAGES, USAGE, OUTBOX)
