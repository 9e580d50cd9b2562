"""Claiming: how a number of conversations is stored so that each is there wholly, and once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from convostore.gateways.bulk_collection import IMPORTING, BulkCollection
from convostore.gateways.erasure_marks import Erased, ErasureMarks
from convostore.gateways.tenant_collection import MAX_BATCH_BYTES, Key
from convostore.gateways.tenant_database import TenantDatabase
from convostore.operations.burying import Burying
from convostore.operations.chat_format import ChatLine, ReadConversation
from convostore.operations.chat_message import Stored, stored_moment
from convostore.operations.common_line import CommonLine

_LOOKED_AT = ("tenant_id", "imported.digest", IMPORTING, "at")

# What bounds the size of messages in the database by that of their line: the most that a list of small numbers grows,
# and the names, ids and times of a message, its tenant and its conversation at their longest.
_GROWTH = 8
_FRAME_BYTES = 8192

_GIVEN_UP = "conversation_id: a repair has taken this import for abandoned; import it again"
_FOREIGN = "conversation_id: the places of its messages hold something else"
_ERASED = "user_id: this user, or the whole tenant, was erased after this import had begun"


class Entrant(NamedTuple):
    """A conversation on its way in.

    Attributes:
        number: of its line.
        line: as it was understood.
        conversation: its documents.
        size: of the line in bytes.
        resumed: its place was claimed by an earlier run, or by another that is still at it; by this one it was if an
            answer was lost.
    """

    number: int
    line: ChatLine | CommonLine
    conversation: ReadConversation
    size: int = 0
    resumed: bool = False

    @property
    def key(self) -> Key:
        """The identity without the tenant."""
        return (self.conversation.conversation_id,)

    @property
    def user_id(self) -> str:
        """Whose conversation it is."""
        return str(self.conversation.content["user_id"])

    @property
    def claim(self) -> dict[str, Any]:
        """What holds its place: all of it but the tenant, whose name is what makes it seen."""
        conversation = self.conversation
        return {**conversation.stored(), IMPORTING: self.line.digest, "at": conversation.imported.at}

    def since(self, at: datetime) -> "Entrant":
        """Return the same as it is read by a run that has claimed its place at a moment."""
        same = at == self.conversation.imported.at
        return self._replace(conversation=self.conversation if same else self.line.read(at), resumed=not same)


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
    """Stores conversations of one tenant, but none of users who were erased since it began.

    An erasure makes its mark, then looks for claims; this makes claims, then looks for marks. So one of them sees the
    other, whichever comes first.

    Args:
        database: the tenant's handle.
    """

    def __init__(self, database: TenantDatabase) -> None:
        self._database = database
        self._places = BulkCollection(database.gateway, "conversations", database.tenant_id)
        self._messages = BulkCollection(database.gateway, "messages", database.tenant_id)
        self._burying = Burying(database.gateway, database.tenant_id)
        self._marks = ErasureMarks(database.gateway, database.tenant_id)
        self._identity = database.identity
        self._began: int | None = None
        self._erased = Erased()
        self._crowded = False

    async def begin(self) -> None:
        """Note that what is erased from now on is not to be stored; without it that is from the first ``store`` on."""
        self._began = await self._marks.number()

    async def store(self, entrants: Mapping[str, Entrant]) -> Outcome:
        """Store conversations, given by their ids.

        Raises:
            RepositoryError: the database failed; the next attempt goes on from where this one got to.
        """
        if self._began is None:
            await self.begin()
        outcome = Outcome()
        claimed = await self._claim(self._not_erased(list(entrants.values()), outcome), outcome)
        claimed = await self._insert(await self._without_erased(claimed, outcome), outcome)
        if claimed:
            try:
                outcome.imported = await self._places.finish({entrant.key: entrant.line.digest for entrant in claimed})
            finally:  # what was read of them meanwhile was not all of it
                await self._database.gateway.tell([self._database.identity(*entrant.key) for entrant in claimed])
            if outcome.imported < len(claimed):
                await self._explain_unfinished(claimed, outcome)
        return outcome

    def _not_erased(self, entrants: Sequence[Entrant], outcome: Outcome) -> list[Entrant]:
        if not self._erased:
            return list(entrants)
        outcome.problems += [(entrant.number, _ERASED) for entrant in entrants if self._is_erased(entrant)]
        return [entrant for entrant in entrants if not self._is_erased(entrant)]

    def _is_erased(self, entrant: Entrant) -> bool:
        return self._erased.includes(entrant.user_id)

    async def _without_erased(self, claimed: list[Entrant], outcome: Outcome) -> list[Entrant]:
        """Give up the claims of those who were erased meanwhile."""
        await self._look_for_marks()
        for entrant in filter(self._is_erased, claimed):
            count = len(entrant.conversation.slots)
            await self._burying.bury_claim({"_id": self._identity(*entrant.key), "message_count": count})
        return self._not_erased(claimed, outcome)

    async def _look_for_marks(self) -> None:
        self._erased = await self._marks.since(self._began or 0)

    async def _problems(self, entrants: Sequence[Entrant], reason: str) -> list[tuple[int, str]]:
        """Return what to tell of entrants to whom something happened after they had claimed their places."""
        if entrants:
            await self._look_for_marks()
        return [(each.number, _ERASED if self._is_erased(each) else reason) for each in entrants]

    async def _explain_unfinished(self, claimed: Sequence[Entrant], outcome: Outcome) -> None:
        """Tell what was finished by somebody who imports the same from what was given up as abandoned meanwhile."""
        places = await self._places.read([entrant.key for entrant in claimed], _LOOKED_AT)
        gone = [entrant for entrant in claimed if "tenant_id" not in places.get(entrant.key, {})]
        outcome.problems += await self._problems(gone, _GIVEN_UP)
        outcome.unchanged += len(claimed) - outcome.imported - len(gone)

    async def _claim(self, entrants: Sequence[Entrant], outcome: Outcome) -> list[Entrant]:
        # A look at the places pays only if most of them are taken, as in a run that is repeated.
        keys = [entrant.key for entrant in entrants]
        present = await self._places.read(keys, _LOOKED_AT) if self._crowded else {}
        absent = {entrant.key: entrant.claim for entrant in entrants if entrant.key not in present}
        at_once = most_bytes(entrants) <= MAX_BATCH_BYTES
        taken = await self._places.claim(absent, in_one_command=at_once) if absent else set()
        self._crowded = bool(present or taken)
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
        if _digest(place) == entrant.line.digest:
            outcome.unchanged += 1
        else:
            outcome.problems.append((entrant.number, _refusal(place)))
        return None

    async def _insert(self, claimed: list[Entrant], outcome: Outcome) -> list[Entrant]:
        """Store messages; return the conversations whose places hold their own messages and nothing else."""
        groups = {entrant.key: entrant.conversation.slots for entrant in claimed if entrant.conversation.slots}
        if not groups:
            return claimed
        fresh = not any(entrant.resumed for entrant in claimed)
        at_once = fresh and most_bytes(claimed) <= MAX_BATCH_BYTES
        occupied, doubtful = await self._messages.insert_below(groups, in_one_command=at_once)
        found = await self._messages.read(occupied, ["message_id"]) if occupied else {}
        foreign = {key for key in occupied if not _is_same(found.get(key), groups[key[:1]][int(key[1]) - 1])}
        # Below a new claim nobody has stored what belongs there but an attempt whose answer was lost.
        others = foreign if fresh and doubtful else occupied
        outcome.messages += sum(map(len, groups.values())) - len(others)
        strange = {key[:1] for key in foreign}
        refused = [entrant for entrant in claimed if entrant.key in strange]
        outcome.problems += await self._problems(refused, _FOREIGN)
        return [entrant for entrant in claimed if entrant.key not in strange]


def most_bytes(entrants: Iterable[Entrant]) -> int:
    """Return how many bytes conversations, or their messages, may take in the database at most."""
    return sum(entrant.size * _GROWTH + (1 + len(entrant.conversation.slots)) * _FRAME_BYTES for entrant in entrants)


def _is_claim_of(entrant: Entrant, place: Stored) -> bool:
    digest = entrant.line.digest
    return "tenant_id" not in place and place.get(IMPORTING) == digest == _digest(place)


def _digest(place: Stored) -> str | None:
    digest: str | None = place.get("imported", {}).get("digest")
    return digest


def _refusal(place: Stored) -> str:
    if "tenant_id" in place:
        return "conversation_id: exists with other content"
    if IMPORTING in place:
        return (
            "conversation_id: another import has begun with other content and is not finished; if it is dead, "
            "`convostore doctor --repair --claims-older-than HOURS` removes what it has left"
        )
    return "conversation_id: was deleted less than 30 days ago"


def _is_same(stored: Stored | None, slot: Mapping[str, Any]) -> bool:
    return stored is not None and stored.get("message_id") == slot["message_id"]
