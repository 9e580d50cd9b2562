"""The message log: an append-only sequence 1, 2, 3 … for each conversation.

Append is compare-and-append: insert at the slot behind the last one, and let the unique identity refuse it if somebody
was faster; then read the tail and try again. So the log is dense, and whoever has seen slot n has seen all before it.

Messages appended as one stand in adjacent slots, each naming the batch, its size and its place in it. They are inserted
by one command that stops at the first refusal. A batch is shown when its last member is there. One that a crash has cut
short never gets its missing members: the next appender takes the slot behind the tail, whatever stands there, and with
it the place of the missing member.

Deletion appends a last slot, the seal, into which every later append runs.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import Any

from convostore.gateways.retry import pause
from convostore.gateways.tenant_collection import Stored
from convostore.gateways.tenant_database import TenantDatabase
from convostore.models.identity import check_identifier
from convostore.models.mongo.message_model import MessageDocument, sequence_key
from convostore.repositories.exceptions import (
    ConnectionError,  # noqa: A004 - the name is the specification's
    DeadlineExceededError,
    DuplicateEntityError,
    EntityNotFoundError,
    Outcome,
    RepositoryError,
    TransactionConflictError,
)
from convostore.repositories.log_reader import LogReader
from convostore.repositories.slots import (
    BLANK_CONVERSATION,
    KIND,
    SEAL,
    Slot,
    batch_slots,
    gravestone,
    seal_slot,
)

BATCH_GRACE = 0.25  # seconds that a batch cut short is given to be completed by whoever is at it
_BATCH_PAUSE = 0.02
_PATIENT_COLLISIONS = 2
_LONGEST_PAUSE = 0.03


class MessageLog:
    """The logs of one tenant's conversations.

    Args:
        database: the tenant's handle.
    """

    def __init__(self, database: TenantDatabase) -> None:
        self._database = database
        self._slots = database.collection("messages", MessageDocument.entity_type)
        self._reader = LogReader(database)
        self._conversations = database.collection("conversations", "Conversation")

    async def append(self, conversation_id: str, messages: Sequence[MessageDocument], digest: str | None) -> int:
        """Append messages to a conversation as one; return the sequence of the first.

        Args:
            conversation_id: which conversation.
            messages: at least one; the first may carry an idempotency key.
            digest: of their content, kept beside an idempotency key.

        Raises:
            DuplicateEntityError: the idempotency key is in use.
            EntityNotFoundError: the conversation does not exist.
            ConnectionError: it is unknown whether they were appended, unless ``outcome`` says so.
            TransactionConflictError: in a unit of work, somebody else appended at the same time.
        """
        check_identifier(conversation_id, "conversation_id")
        if self._database.in_transaction():
            return await self._append_in_transaction(conversation_id, messages, digest)
        async with self._in_lane(conversation_id) as lane:
            last = lane.recall()
            if last is None:
                last = await self._head(conversation_id)
            first = await self._compare_and_append(conversation_id, last, messages, digest)
            lane.remember(first + len(messages) - 1)
            return first

    @asynccontextmanager
    async def _in_lane(self, conversation_id: str) -> AsyncIterator[Any]:
        """Hold the conversation's lane, all in all for as long as a call may take."""
        lane = self._database.lanes.of(self._conversations.identity((conversation_id,)))
        started = False
        try:
            async with asyncio.timeout(self._database.deadline), lane.lock:
                started = True
                try:
                    yield lane
                except BaseException:
                    lane.forget()
                    raise
        except TimeoutError as error:
            outcome = Outcome.UNKNOWN if started else Outcome.NOT_APPLIED
            message = "MongoDB did not take the message in time"
            raise DeadlineExceededError("MongoDB", error, outcome=outcome, message=message) from error

    async def _head(self, conversation_id: str) -> int:
        if not await self._conversations.exists((conversation_id,)):
            raise EntityNotFoundError("Conversation", conversation_id)
        return await self._tail(conversation_id)

    async def _tail(self, conversation_id: str) -> int:
        """Return the last sequence in use, having given a batch in the making the time to be completed."""
        waited = 0.0
        while True:
            stored = await self._slots.last((conversation_id,))
            if stored is None:
                return 0
            slot = Slot(stored)
            if slot.kind == SEAL:
                raise EntityNotFoundError("Conversation", conversation_id)
            if slot.ends_its_batch or waited >= BATCH_GRACE or self._database.in_transaction():
                return slot.sequence
            await asyncio.sleep(_BATCH_PAUSE)
            waited += _BATCH_PAUSE

    async def _compare_and_append(
        self, conversation_id: str, last: int, messages: Sequence[MessageDocument], digest: str | None
    ) -> int:
        collisions = 0
        while True:
            slots = batch_slots(conversation_id, last + 1, messages, digest)
            if await self._place(slots):
                return last + 1
            collisions += 1
            await _back_off(collisions)
            last = await self._tail(conversation_id)

    async def _place(self, slots: Sequence[Slot]) -> bool:
        """Insert slots where they stand; False if one of the places was taken by somebody else.

        After an unclear answer the same slots are tried again: they can be stored there only once, and what stands in
        them in the end tells what happened.
        """
        placed, unclear = 0, 0
        while placed < len(slots):
            try:
                await self._insert(slots[placed:])
            except DuplicateEntityError as error:
                if not unclear:
                    return _taken(error)
                before, placed = placed, await self._count_placed(slots, placed)
                if placed < 0:
                    return False
                if placed == before:
                    _taken(error)  # by what is not settled yet, unless it was the key
            except RepositoryError as error:
                self._check_worth_trying(error, unclear)
            else:
                return True
            unclear += 1
            await pause(self._database.retry.pause_before(unclear))
        return True

    def _check_worth_trying(self, error: RepositoryError, unclear: int) -> None:
        worth_trying = isinstance(error, ConnectionError) and error.outcome is Outcome.UNKNOWN
        if worth_trying and unclear < self._database.retry.attempts:
            return
        error.outcome = Outcome.UNKNOWN if unclear else error.outcome
        raise error

    async def _insert(self, slots: Sequence[Slot]) -> None:
        try:
            if len(slots) == 1:
                await self._slots.insert(slots[0].key, slots[0].stored)
            else:
                await self._slots.insert_adjacent([(slot.key, slot.stored) for slot in slots])
        except DuplicateEntityError as error:
            if not self._database.in_transaction():
                raise
            text = f"somebody else appended to conversation '{slots[0].conversation_id}' at the same time"
            raise TransactionConflictError(text, "append") from error

    async def _count_placed(self, slots: Sequence[Slot], placed: int) -> int:
        """Return how many of the slots hold what was to be put there; -1 if the next one holds something else."""
        try:
            found = await self._slots.get_many([slot.key for slot in slots[placed:]])
        except RepositoryError as error:
            error.outcome = Outcome.UNKNOWN  # of what was to be looked up
            raise
        for slot in slots[placed:]:
            stored = found.get(slot.key)
            if stored is None:
                break
            if stored.get("message_id") != slot.stored["message_id"]:
                return -1
            placed += 1
        return placed

    async def _append_in_transaction(
        self, conversation_id: str, messages: Sequence[MessageDocument], digest: str | None
    ) -> int:
        last = await self._head(conversation_id)
        await self._insert(batch_slots(conversation_id, last + 1, messages, digest))
        return last + 1

    # idempotency

    async def stored_under(self, conversation_id: str, key: str) -> Stored | None:
        """Return the first message stored under an idempotency key, or None while it is not settled."""
        query = {"conversation_id": conversation_id, "idempotency_key": {"$eq": key}}
        found = await self._slots.find(query, limit=1)
        return found[0] if found else None

    async def settled_batch(self, first: Slot) -> list[Stored] | None:
        """Return the messages appended together with the first of them, or alone.

        Of a batch that was cut short, make sure that it stays so, free its idempotency key, and return None.
        """
        conversation_id, start = first.conversation_id, first.sequence
        while True:
            found = await self._reader.read(conversation_id, start - 1, start + first.batch_size)
            members = list(takewhile(lambda stored: Slot(stored).batch_id == first.batch_id, found))
            if len(members) == first.batch_size:
                return members
            if len(found) > len(members):
                break  # somebody else stands in the place of the next member
            await self._tail(conversation_id)
            await self._place([gravestone(conversation_id, start + len(members))])
        freed = {"$unset": {"idempotency_key": "", "idempotency_digest": ""}}
        await self._slots.update(first.key, {"batch.id": first.batch_id}, freed)
        return None

    # deletion

    async def close(self, conversation_id: str) -> None:
        """Seal the log of a deleted conversation and blank what is in it; may be repeated.

        The blank slots stay until the server purges them, so that an appender who remembers an old tail runs into one
        of them and then reads the seal.
        """
        sealed = await self._seal(conversation_id)
        self._database.lanes.forget(self._conversations.identity((conversation_id,)))
        await self._slots.update_range((conversation_id,), sequence_key(sealed), BLANK_CONVERSATION)

    async def _seal(self, conversation_id: str) -> int:
        collisions = 0
        while True:
            stored = await self._slots.last((conversation_id,))
            last = Slot(stored).sequence if stored else 0
            if stored and stored.get(KIND) == SEAL:
                return last
            if await self._place([seal_slot(conversation_id, last + 1)]):
                return last + 1
            collisions += 1
            await _back_off(collisions)


async def _back_off(collisions: int) -> None:
    # The first collisions are settled faster by trying again at once.
    if collisions > _PATIENT_COLLISIONS:
        await pause(min(_LONGEST_PAUSE, 0.001 * 2.0 ** min(collisions, 10)))


def _taken(error: DuplicateEntityError) -> bool:
    """Return False if it was the place that was taken; raise if it was the idempotency key."""
    if error.conflicting_fields != ("_id",):
        raise error
    return False
