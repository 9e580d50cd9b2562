"""Claiming: how a number of conversations is stored so that each is there wholly, and once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from convostore.gateways.bulk_collection import IMPORTING, BulkCollection
from convostore.gateways.tenant_collection import Key
from convostore.gateways.tenant_database import TenantDatabase
from convostore.models.mongo.message_model import sequence_key
from convostore.operations.chat_format import ChatLine, ReadConversation
from convostore.operations.chat_message import Stored, stored_moment

_LOOKED_AT = ("tenant_id", "imported.digest", IMPORTING, "at")

_FOREIGN = "conversation_id: the places of its messages hold something else"


class Entrant(NamedTuple):
    """A conversation on its way in.

    Attributes:
        number: of its line.
        line: as it was understood.
        conversation: its documents.
    """

    number: int
    line: ChatLine
    conversation: ReadConversation

    @property
    def key(self) -> Key:
        """The identity without the tenant."""
        return (self.conversation.conversation.conversation_id,)

    @property
    def claim(self) -> dict[str, Any]:
        """What holds its place."""
        return {IMPORTING: self.line.digest, "at": self.conversation.imported.at}

    def since(self, at: datetime) -> "Entrant":
        """Return the same as it is read by a run that has claimed its place at a moment."""
        same = at == self.conversation.imported.at
        return self if same else self._replace(conversation=self.line.read(at))

    @property
    def slots(self) -> dict[str, Stored]:
        """Its messages by the last part of their identity."""
        return {sequence_key(slot["sequence"]): slot for slot in self.conversation.slots}


@dataclass(slots=True)
class Outcome:
    """What became of a number of conversations.

    Attributes:
        imported: conversations that were finished.
        unchanged: conversations that were there already.
        messages: messages that were stored.
        problems: line and reason of those that were refused.
    """

    imported: int = 0
    unchanged: int = 0
    messages: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)


class Claiming:
    """Stores conversations of one tenant.

    Args:
        database: the tenant's handle.
    """

    def __init__(self, database: TenantDatabase) -> None:
        self._places = BulkCollection(database.gateway, "conversations", database.tenant_id)
        self._messages = BulkCollection(database.gateway, "messages", database.tenant_id)

    async def store(self, entrants: Mapping[str, Entrant]) -> Outcome:
        """Store conversations, given by their ids.

        Raises:
            RepositoryError: the database failed; the next attempt goes on from where this one got to.
        """
        outcome = Outcome()
        claimed = await self._claim(list(entrants.values()), outcome)
        claimed = await self._insert(claimed, outcome)
        if claimed:
            finished = {entrant.key: (entrant.line.digest, entrant.conversation.stored()) for entrant in claimed}
            outcome.imported = await self._places.finish(finished)
            # The others were finished by somebody who imports the same.
            outcome.unchanged += len(claimed) - outcome.imported
        return outcome

    async def _claim(self, entrants: Sequence[Entrant], outcome: Outcome) -> list[Entrant]:
        present = await self._places.read([entrant.key for entrant in entrants], _LOOKED_AT)
        absent = {entrant.key: entrant.claim for entrant in entrants if entrant.key not in present}
        taken = await self._places.claim(absent) if absent else set()
        if taken:
            present |= await self._places.read(taken, _LOOKED_AT)
        places = {key: present.get(key, {}) for key in [*present, *taken]}
        sorted_out = [self._entered(entrant, places.get(entrant.key), outcome) for entrant in entrants]
        return [entrant for entrant in sorted_out if entrant is not None]

    def _entered(self, entrant: Entrant, place: Stored | None, outcome: Outcome) -> Entrant | None:
        """Return the entrant if the place is his, by a new claim or an earlier one of the same content."""
        if place is None:
            return entrant
        if _is_claim_of(entrant, place):
            return entrant.since(stored_moment(place["at"]))
        if place.get("imported", {}).get("digest") == entrant.line.digest:
            outcome.unchanged += 1
        else:
            outcome.problems.append((entrant.number, _refusal(place)))
        return None

    async def _insert(self, claimed: list[Entrant], outcome: Outcome) -> list[Entrant]:
        """Store messages; return the conversations whose places hold their own messages and nothing else."""
        groups = {entrant.key: entrant.slots for entrant in claimed if entrant.conversation.slots}
        occupied = await self._messages.insert_below(groups) if groups else set()
        outcome.messages += sum(map(len, groups.values())) - len(occupied)
        if not occupied:
            return claimed
        found = await self._messages.read(occupied, ["message_id"])
        foreign = {key[:1] for key in occupied if not _is_same(found.get(key), groups[key[:1]][key[1]])}
        outcome.problems += [(entrant.number, _FOREIGN) for entrant in claimed if entrant.key in foreign]
        return [entrant for entrant in claimed if entrant.key not in foreign]


def _is_claim_of(entrant: Entrant, place: Stored) -> bool:
    return "tenant_id" not in place and place.get(IMPORTING) == entrant.line.digest


def _refusal(place: Stored) -> str:
    if "tenant_id" in place:
        return "conversation_id: exists with other content"
    if IMPORTING in place:
        return "conversation_id: another import has begun with other content and is not finished"
    return "conversation_id: was deleted less than 30 days ago"


def _is_same(stored: Stored | None, slot: Mapping[str, Any]) -> bool:
    return stored is not None and stored.get("message_id") == slot["message_id"]
