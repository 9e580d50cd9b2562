"""Slots: what stands at one sequence of a message log."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from convostore.gateways.tenant_collection import Key, Stored
from convostore.models.mongo.message_model import MessageDocument, sequence_key
from convostore.models.types import new_id, utc_now

KIND = "kind"  # absent in a message
SEAL = "seal"
GRAVESTONE = "gravestone"
BLANK = "blank"

SEAL_DAYS = 29  # less than the tombstone of the conversation, so that its id is free only once the log is
BLANK_HOURS = 24  # far longer than any process trusts a tail it remembers
_PURGE_BLANK = {"$dateAdd": {"startDate": "$$NOW", "unit": "hour", "amount": BLANK_HOURS}}
_KEPT_IN_BLANK = {name: f"${name}" for name in ("_id", "tenant_id", "conversation_id", "sequence")}

BLANK_CONVERSATION: list[dict[str, Any]] = [{"$replaceWith": {**_KEPT_IN_BLANK, KIND: BLANK, "purge_at": _PURGE_BLANK}}]


class Slot:
    """One slot as it is stored, and what can be told from it.

    Attributes:
        stored: the stored document.
    """

    __slots__ = ("_batch", "stored")

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self._batch: dict[str, Any] = stored.get("batch") or {}

    @property
    def conversation_id(self) -> str:
        """The conversation it belongs to."""
        return str(self.stored["conversation_id"])

    @property
    def sequence(self) -> int:
        """Where it stands."""
        return int(self.stored["sequence"])

    @property
    def key(self) -> Key:
        """Its identity without the tenant."""
        return slot_key(self.conversation_id, self.sequence)

    @property
    def kind(self) -> str | None:
        """None for a message."""
        return self.stored.get(KIND)

    @property
    def batch_id(self) -> str | None:
        """The batch it was appended with, if it was not alone."""
        return self._batch.get("id")

    @property
    def batch_end_key(self) -> Key:
        """Where the last member of its batch stands, if the batch is complete."""
        return slot_key(self.conversation_id, self.sequence - self._batch["index"] + self._batch["size"] - 1)

    @property
    def ends_its_batch(self) -> bool:
        """Whether no member of its batch comes behind it."""
        return not self._batch or bool(self._batch["index"] == self._batch["size"] - 1)

    @property
    def batch_size(self) -> int:
        """How many messages were appended as one with it."""
        return int(self._batch.get("size", 1))


def slot_key(conversation_id: str, sequence: int) -> Key:
    """Return the key of a place in a log."""
    return (conversation_id, sequence_key(sequence))


def seal_slot(conversation_id: str, sequence: int) -> Slot:
    """Return the last slot of a deleted conversation."""
    slot = _bare(conversation_id, sequence, SEAL)
    slot.stored["purge_at"] = utc_now() + timedelta(days=SEAL_DAYS)
    return slot


def gravestone(conversation_id: str, sequence: int) -> Slot:
    """Return an empty slot for the place of a message that must not come any more."""
    return _bare(conversation_id, sequence, GRAVESTONE)


def blank_slot(conversation_id: str, sequence: int) -> Stored:
    """Return what is left of a slot of a deleted conversation."""
    purge_at = utc_now() + timedelta(hours=BLANK_HOURS)
    return {"conversation_id": conversation_id, "sequence": sequence, KIND: BLANK, "purge_at": purge_at}


def _bare(conversation_id: str, sequence: int, kind: str) -> Slot:
    return Slot({"conversation_id": conversation_id, "sequence": sequence, "message_id": new_id(), KIND: kind})


class Entry(NamedTuple):
    """Messages that are to be appended as one, wherever that will be.

    Attributes:
        conversation_id: the conversation.
        documents: as they are stored, but for what depends on their place.
        size: bytes of all of them.
    """

    conversation_id: str
    documents: Sequence[Stored]
    size: int

    @property
    def length(self) -> int:
        """How many messages they are."""
        return len(self.documents)

    def at(self, first: int) -> list[Slot]:
        """Return the slots of the messages from a sequence on."""
        if self.length == 1:
            return [Slot({**self.documents[0], "sequence": first})]
        # Of what was cut short elsewhere nothing may be taken for a part of this.
        batch, size = new_id(), self.length
        return [
            Slot({**document, "sequence": first + index, "batch": {"id": batch, "size": size, "index": index}})
            for index, document in enumerate(self.documents)
        ]


def documents_of(conversation_id: str, messages: Sequence[MessageDocument], digest: str | None) -> list[Stored]:
    """Return messages as they are stored, but for what depends on their place.

    Args:
        conversation_id: the conversation.
        messages: the messages.
        digest: of their content, kept beside an idempotency key.
    """
    documents = [{**message.to_dict(), "conversation_id": conversation_id} for message in messages]
    if digest is not None:
        documents[0]["idempotency_digest"] = digest
    return documents


def in_places(first: int, entries: Sequence[Entry]) -> list[list[Slot]]:
    """Return the slots of each entry, one entry behind the other."""
    groups: list[list[Slot]] = []
    for entry in entries:
        groups.append(entry.at(first))
        first += entry.length
    return groups


def count_whole(groups: Sequence[Sequence[Slot]], slots: int) -> int:
    """Return how many groups the first so many slots hold whole."""
    for count, group in enumerate(groups):
        slots -= len(group)
        if slots < 0:
            return count
    return len(groups)
