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
import copy
from collections.abc import Sequence
from itertools import takewhile

from convostore.gateways.batching import Batcher
from convostore.gateways.flights import BatchLimits
from convostore.gateways.lanes import Lane
from convostore.gateways.tenant_collection import MAX_BATCH_BYTES, MAX_DOCUMENT_BYTES, Stored
from convostore.gateways.tenant_database import TenantDatabase
from convostore.models.identity import check_identifier
from convostore.models.mongo.message_model import MessageDocument, sequence_key
from convostore.repositories.exceptions import (
    DeadlineExceededError,
    DuplicateEntityError,
    EntityNotFoundError,
    Outcome,
    RepositoryError,
    TransactionConflictError,
    ValidationError,
)
from convostore.repositories.log_reader import LogReader
from convostore.repositories.slot_writer import SlotWriter, back_off, is_place_taken
from convostore.repositories.slots import (
    BLANK_CONVERSATION,
    KIND,
    SEAL,
    Entry,
    Slot,
    count_whole,
    documents_of,
    gravestone,
    in_places,
    seal_slot,
)

_ONE_AT_A_TIME = BatchLimits(flights=1, patience=None)
Answer = int | RepositoryError  # the sequence of the first message of an entry, or why it was not appended


class MessageLog:
    """The logs of one tenant's conversations.

    Args:
        database: the tenant's handle.
    """

    def __init__(self, database: TenantDatabase) -> None:
        self._database = database
        self._lanes = database.lanes
        self._slots = database.collection("messages", MessageDocument.entity_type)
        self._reader = LogReader(database)
        self._writer = SlotWriter(database)
        self._conversations = database.collection("conversations", "Conversation")

    async def append(self, conversation_id: str, messages: Sequence[MessageDocument], digest: str | None) -> int:
        """Append messages to a conversation as one; return the sequence of the first.

        What one process appends to a conversation keeps its order, and travels together where it comes together.

        Args:
            conversation_id: which conversation.
            messages: at least one; the first may carry an idempotency key.
            digest: of their content, kept beside an idempotency key.

        Raises:
            DuplicateEntityError: the idempotency key is in use.
            EntityNotFoundError: the conversation does not exist.
            ConnectionError: it is unknown whether they were appended, unless ``outcome`` says so.
            TransactionConflictError: in a unit of work, somebody else appended at the same time.
            ValidationError: they are larger than the database allows.
        """
        entry = self._entry(check_identifier(conversation_id, "conversation_id"), messages, digest)
        if self._database.in_transaction():
            return await self._append_in_transaction(entry)
        lane = self._lane(conversation_id)
        return await lane.batcher.call(
            conversation_id, entry, lambda: self._append_alone(entry, lane), size=entry.size, writes=True
        )

    def _entry(self, conversation_id: str, messages: Sequence[MessageDocument], digest: str | None) -> Entry:
        documents = documents_of(conversation_id, messages, digest)
        sizes = [self._slots.size_of(document, (conversation_id,)) for document in documents]
        entry = Entry(conversation_id, documents, sum(sizes))
        if max(sizes) > MAX_DOCUMENT_BYTES:  # at most, so it has to be looked at more closely
            sizes = [self._slots.stored_size(slot.key, slot.stored) for slot in entry.at(1)]
        _check_sizes(sizes)
        return entry

    def _lane(self, conversation_id: str) -> Lane[Entry, int]:
        return self._lanes.of(self._conversations.identity((conversation_id,)), self._new_batcher)

    def _new_batcher(self) -> Batcher[Entry, int]:
        return Batcher(self._append_all, "MongoDB", self._database.deadline, _ONE_AT_A_TIME)

    async def _append_alone(self, entry: Entry, lane: Lane[Entry, int]) -> int:
        last = lane.recall()
        if entry.length == 1 and last is not None and await self._append_one(entry, lane, last + 1):
            return last + 1
        (answer,) = await self._append_all([entry], is_known=last is not None)
        if isinstance(answer, RepositoryError):
            raise answer
        return answer

    async def _append_one(self, entry: Entry, lane: Lane[Entry, int], sequence: int) -> bool:
        """Put a single message where the end is thought to be; False if somebody else stands there.

        Nearly always this is all, and it does nothing but what it must.
        """
        lane.forget()
        placed = await self._writer.place(entry.at(sequence), entry.size)
        if placed.error is None:
            lane.remember(sequence)
        elif not is_place_taken(placed.error):
            raise placed.error
        return placed.error is None

    async def _append_all(self, entries: Sequence[Entry], *, is_known: bool = False) -> list[Answer]:
        """Append entries of one conversation, one behind the other, for as long as a call may take.

        Args:
            entries: at least one.
            is_known: whether the conversation is known to exist, beside what its lane remembers.
        """
        lane = self._lane(entries[0].conversation_id)
        answers: list[Answer] = []
        end = asyncio.get_running_loop().time() + self._database.deadline
        last = lane.recall()
        try:
            if last is None or not await self._append_at_once(lane, last, entries, answers):
                lane.forget()
                async with asyncio.timeout_at(end):
                    await self._append_behind(lane, entries, answers, is_known=is_known or last is not None)
        except TimeoutError as error:
            lane.forget()
            message = "MongoDB did not take the message in time"
            late = DeadlineExceededError("MongoDB", error, outcome=Outcome.UNKNOWN, message=message)
            answers += [copy.copy(late) for _ in entries[len(answers) :]]
        except RepositoryError as error:
            lane.forget()
            answers += [copy.copy(error) for _ in entries[len(answers) :]]
        except BaseException:
            lane.forget()
            raise
        return answers

    async def _append_at_once(
        self, lane: Lane[Entry, int], last: int, entries: Sequence[Entry], answers: list[Answer]
    ) -> bool:
        """Append behind the end that is remembered; False if not all could be.

        Nearly always this is all: one insert, which ends by its own deadline.
        """
        last, _ = await self._compare_and_append(last, entries, answers)
        lane.remember(last)
        return len(answers) == len(entries)

    async def _append_behind(
        self, lane: Lane[Entry, int], entries: Sequence[Entry], answers: list[Answer], *, is_known: bool
    ) -> None:
        """Append behind the end that is read, as often as somebody else was faster.

        Args:
            lane: of the conversation.
            entries: what to append, but for what has an answer.
            answers: to be completed.
            is_known: whether the conversation is known to exist.
        """
        conversation_id, collisions = entries[0].conversation_id, 0
        last = await (self._writer.tail if is_known else self._head)(conversation_id)
        while True:
            last, collided = await self._compare_and_append(last, entries[len(answers) :], answers)
            if len(answers) == len(entries):
                return lane.remember(last)
            if collided:
                collisions += 1
                await back_off(collisions)
                last = await self._writer.tail(conversation_id)

    async def _compare_and_append(self, last: int, entries: Sequence[Entry], answers: list[Answer]) -> tuple[int, bool]:
        """Put entries behind a sequence, up to one that is refused; its error is among the answers.

        Returns:
            The last sequence known to be in use, and whether somebody else stands behind it.

        Raises:
            RepositoryError: it concerns them all.
        """
        groups = in_places(last + 1, entries)
        slots = [slot for group in groups for slot in group]
        placed = await self._writer.place(slots, sum(entry.size for entry in entries))
        whole = count_whole(groups, placed.stored)
        answers += [group[0].sequence for group in groups[:whole]]
        last += placed.stored
        if is_place_taken(placed.error):
            return last, True
        if isinstance(placed.error, DuplicateEntityError | ValidationError):
            answers.append(placed.error)
        elif placed.error is not None:
            raise placed.error
        return last, False

    async def _head(self, conversation_id: str) -> int:
        if not await self._conversations.exists((conversation_id,)):
            raise EntityNotFoundError("Conversation", conversation_id)
        return await self._writer.tail(conversation_id)

    async def _append_in_transaction(self, entry: Entry) -> int:
        first = await self._head(entry.conversation_id) + 1
        placed = await self._slots.insert_run([(slot.key, slot.stored) for slot in entry.at(first)], entry.size)
        if isinstance(placed.error, DuplicateEntityError):
            text = f"somebody else appended to conversation '{entry.conversation_id}' at the same time"
            raise TransactionConflictError(text, "append") from placed.error
        if placed.error is not None:
            raise placed.error
        return first

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
            await self._writer.tail(conversation_id)
            await self._put(gravestone(conversation_id, start + len(members)))
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
        self._lanes.forget(self._conversations.identity((conversation_id,)))
        await self._slots.update_range((conversation_id,), sequence_key(sealed), BLANK_CONVERSATION)

    async def _seal(self, conversation_id: str) -> int:
        collisions = 0
        while True:
            stored = await self._slots.last((conversation_id,))
            last = Slot(stored).sequence if stored else 0
            if stored and stored.get(KIND) == SEAL:
                return last
            if await self._put(seal_slot(conversation_id, last + 1)):
                return last + 1
            collisions += 1
            await back_off(collisions)

    async def _put(self, slot: Slot) -> bool:
        """Put a slot where it stands; False if somebody else stands there."""
        size = self._slots.size_of(slot.stored, (slot.conversation_id,))
        placed = await self._writer.place([slot], size)
        if placed.error is not None and not is_place_taken(placed.error):
            raise placed.error
        return placed.error is None


def _check_sizes(sizes: Sequence[int]) -> None:
    field = "document" if len(sizes) == 1 else "messages"
    if max(sizes) > MAX_DOCUMENT_BYTES:
        raise ValidationError(f"{field}: a message is larger than {MAX_DOCUMENT_BYTES} bytes", field)
    if sum(sizes) > MAX_BATCH_BYTES:
        raise ValidationError(f"{field}: larger than {MAX_BATCH_BYTES} bytes together", field)
