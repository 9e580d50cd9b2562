"""Reading slots of the message log: in order, and without the remains of batches."""

from collections.abc import Sequence
from typing import Any

from convostore.gateways.tenant_collection import Stored
from convostore.gateways.tenant_database import TenantDatabase
from convostore.models.mongo.message_model import MessageDocument, sequence_key
from convostore.repositories.newest_slots import KEPT, NewestSlots
from convostore.repositories.slots import SEAL, Slot


class LogReader:
    """Reads the logs of one tenant's conversations, slot by slot.

    Args:
        database: the tenant's handle.
    """

    def __init__(self, database: TenantDatabase) -> None:
        self._slots = database.collection("messages", MessageDocument.entity_type)

    async def read(
        self, conversation_id: str, after: int | None = None, before: int | None = None, **options: Any
    ) -> list[Stored]:
        """Return slots in order, as they are stored; ``options`` are those of ``find_range``."""
        return await self._slots.find_range(
            (conversation_id,),
            sequence_key(after) if after is not None else None,
            sequence_key(before) if before is not None else None,
            **options,
        )

    async def visible(self, found: Sequence[Stored]) -> list[Stored]:
        """Return those of the slots, read in order, that do not belong to an incomplete batch."""
        slots = [Slot(stored) for stored in found if "batch" in stored]
        if not slots:
            return list(found)
        complete = {slot.batch_id for slot in slots if slot.ends_its_batch}
        open_ends = {slot.batch_end_key for slot in slots if slot.batch_id not in complete}
        if open_ends:
            ends = await self._slots.get_many(list(open_ends), ["batch"])
            complete |= {slot.batch_id for slot in map(Slot, ends.values()) if slot.ends_its_batch}
        return [stored for stored in found if "batch" not in stored or stored["batch"]["id"] in complete]

    async def newest_slots(self, conversation_id: str) -> NewestSlots | None:
        """Return the newest slots, whatever they are; None if they cannot be kept."""
        return NewestSlots.of(await self.read(conversation_id, limit=KEPT, descending=True))

    async def highest(self, conversation_id: str) -> int:
        """Return the highest sequence of a conversation, 0 if it has no messages or does not exist."""
        found = await self.read(conversation_id, limit=1, descending=True)
        return 0 if not found or Slot(found[0]).kind == SEAL else Slot(found[0]).sequence
