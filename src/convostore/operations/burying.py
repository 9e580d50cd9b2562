"""Burying: what is left of conversations that are gone, or never came, is sealed and emptied."""

from datetime import timedelta

from convostore.gateways.bulk_collection import CONDEMNED, IMPORTING, BulkCollection
from convostore.gateways.mongo_gateway import MongoGateway
from convostore.gateways.tenant_collection import Stored
from convostore.gateways.tenant_places import TenantPlaces
from convostore.models.identity import check_identifier, split
from convostore.models.mongo.message_model import sequence_key
from convostore.models.types import utc_now
from convostore.repositories.exceptions import RepositoryError
from convostore.repositories.message_log import MessageLog
from convostore.repositories.mongo_repository import TOMBSTONE_DAYS, tombstone
from convostore.repositories.slots import blank_slot

_FILLED_AT_ONCE = 1000
CLAIM_FIELDS = ("_id", "message_count")


class Burying:
    """Buries conversations of one tenant; every method may be repeated.

    Args:
        gateway: the way to the database.
        tenant_id: whose they are.
    """

    def __init__(self, gateway: MongoGateway, tenant_id: str) -> None:
        self._log = MessageLog(gateway.tenant(tenant_id))
        self._conversations = gateway.tenant(tenant_id).collection("conversations", "Conversation")
        self._places = TenantPlaces(gateway, "conversations", tenant_id)
        self._bulk = BulkCollection(gateway, "conversations", tenant_id)
        self._slots = BulkCollection(gateway, "messages", tenant_id)

    async def close(self, conversation_id: str) -> None:
        """Seal and empty the log of a conversation that was deleted."""
        await self._log.close(conversation_id)

    async def bury_log(self, conversation_id: str) -> bool:
        """Seal and empty the log of a conversation that is not there; False if somebody's new one is.

        Without the tombstone the seal would refuse the messages of whoever creates it meanwhile.
        """
        now = utc_now()
        stone = {"deleted_at": now, "purge_at": now + timedelta(days=TOMBSTONE_DAYS)}
        key = (conversation_id,)
        await self._bulk.claim({key: stone})
        if not await self._conversations.was_deleted(key):
            return False
        await self.close(conversation_id)
        return True

    async def bury_claim(self, claim: Stored) -> None:
        """Make the place that an import holds into a tombstone, and its log one into which nothing goes any more.

        The import may be at it, or wait on a machine that stands still: its claim is made one that cannot be finished,
        then all places of its messages are taken, so that what it sends later finds none. Up to its last step the
        claim can be found by whoever comes after a crash.

        Args:
            claim: as it is stored: ``CLAIM_FIELDS`` of it.
        """
        identity, name = claim["_id"], split(claim["_id"])[1]
        condemned = {"_id": identity, IMPORTING: CONDEMNED}
        if not await self._places.update(
            {"_id": identity, IMPORTING: {"$exists": True}}, {"$set": {IMPORTING: CONDEMNED}}
        ):
            return  # it was finished meanwhile
        await self._fill(name, int(claim.get("message_count") or 0))
        await self._log.close(name)
        await self._places.update(condemned, tombstone())

    async def _fill(self, name: str, count: int) -> None:
        """Put blanks into the places of a log that are free."""
        for first in range(1, count + 1, _FILLED_AT_ONCE):
            sequences = range(first, min(count + 1, first + _FILLED_AT_ONCE))
            blanks = [{"_id": sequence_key(number), **blank_slot(name, number)} for number in sequences]
            await self._slots.insert_below({(name,): blanks})


def is_ours(identity: str, parts: int = 2) -> bool:
    """Say whether this can be a tenant and his conversation; others may have put anything into the database.

    Args:
        identity: as it is stored.
        parts: how many components there should be: of a slot of a log one more.
    """
    try:
        return len([check_identifier(part, "identity") for part in split(identity)]) == parts
    except (RepositoryError, ValueError):
        return False
