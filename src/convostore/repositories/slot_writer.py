"""Putting slots into the message log, so that in the end it is known whether they are there."""

import asyncio
from collections.abc import Sequence

from convostore.gateways.retry import pause
from convostore.gateways.shared_inserts import Placed
from convostore.gateways.tenant_database import TenantDatabase
from convostore.models.mongo.message_model import MessageDocument
from convostore.repositories.exceptions import (
    ConnectionError,  # noqa: A004 - the name is the specification's
    DeadlineExceededError,
    DuplicateEntityError,
    EntityNotFoundError,
    Outcome,
    RepositoryError,
)
from convostore.repositories.slots import SEAL, Slot

BATCH_GRACE = 0.25  # seconds that a batch cut short is given to be completed by whoever is at it
_BATCH_PAUSE = 0.02
_PATIENT_COLLISIONS = 2
_LONGEST_PAUSE = 0.03
_PLACE_TAKEN = ("_id",)


class SlotWriter:
    """Writes the logs of one tenant's conversations, slot by slot.

    Args:
        database: the tenant's handle.
    """

    def __init__(self, database: TenantDatabase) -> None:
        self._database = database
        self._slots = database.collection("messages", MessageDocument.entity_type)

    async def tail(self, conversation_id: str) -> int:
        """Return the last sequence in use, having given a batch in the making the time to be completed.

        Raises:
            EntityNotFoundError: the log is sealed.
        """
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

    async def place(self, slots: Sequence[Slot], size: int) -> Placed:
        """Insert slots where they stand, none behind one that is refused; say how many are there.

        After an unclear answer the same slots are tried again: they can be stored there only once, and what stands in
        them in the end tells what happened.

        Args:
            slots: of one conversation, in adjacent places.
            size: bytes of all of them.
        """
        end = asyncio.get_running_loop().time() + self._database.deadline
        answer = await self._insert(slots, size)
        if answer.error is None or not self._is_worth_trying(answer.error, 0):
            return answer
        try:
            async with asyncio.timeout_at(end):
                return await self._place_again(slots, size)
        except TimeoutError as error:
            message = "MongoDB did not take the message in time"
            late = DeadlineExceededError("MongoDB", error, outcome=Outcome.UNKNOWN, message=message)
            return Placed(0, late)

    async def _place_again(self, slots: Sequence[Slot], size: int) -> Placed:
        placed, unclear = 0, 1
        while True:
            await pause(self._database.retry.pause_before(unclear))
            answer = await self._insert(slots[placed:], size)
            placed += answer.stored
            error = answer.error
            if isinstance(error, DuplicateEntityError):
                found = await self._own(slots[placed:])
                placed, error = placed + found.stored, _blamed(found, error)
            elif error is not None and self._is_worth_trying(error, unclear):
                error = None
            if error is not None:
                return Placed(placed, _told(error))
            if placed == len(slots):
                return Placed(placed, None)
            unclear += 1

    async def _insert(self, slots: Sequence[Slot], size: int) -> Placed:
        return await self._slots.insert_run([(slot.key, slot.stored) for slot in slots], size)

    def _is_worth_trying(self, error: RepositoryError, unclear: int) -> bool:
        is_unclear = isinstance(error, ConnectionError) and error.outcome is Outcome.UNKNOWN
        return is_unclear and unclear < self._database.retry.attempts

    async def _own(self, slots: Sequence[Slot]) -> Placed:
        """Look how many of the slots hold what was to be put there, up to one that holds something else."""
        try:
            found = await self._slots.get_many([slot.key for slot in slots])
        except RepositoryError as error:
            error.outcome = Outcome.UNKNOWN  # of what was to be looked up
            return Placed(0, error)
        for count, slot in enumerate(slots):
            stored = found.get(slot.key)
            if stored is None:
                return Placed(count, None)
            if stored.get("message_id") != slot.stored["message_id"]:
                return Placed(count, DuplicateEntityError(MessageDocument.entity_type, slot.key[0]))
        return Placed(len(slots), None)


def _blamed(found: Placed, refusal: DuplicateEntityError) -> RepositoryError | None:
    """Return what was in the way of slots of which this was found; None if it may be they themselves."""
    if found.error is not None or found.stored:
        return found.error
    # By what is not settled yet, unless it was the idempotency key.
    return None if is_place_taken(refusal) else refusal


def _told(error: RepositoryError) -> RepositoryError:
    """Return an error as it is to be told of what may be stored already by an attempt before."""
    if not isinstance(error, DuplicateEntityError):
        error.outcome = Outcome.UNKNOWN
    return error


def is_place_taken(error: RepositoryError | None) -> bool:
    """Say whether somebody else stands where a slot was to be put."""
    return isinstance(error, DuplicateEntityError) and error.conflicting_fields == _PLACE_TAKEN


async def back_off(collisions: int) -> None:
    """Wait before trying again; the first collisions are settled faster by trying again at once."""
    if collisions > _PATIENT_COLLISIONS:
        await pause(min(_LONGEST_PAUSE, 0.001 * 2.0 ** min(collisions, 10)))
