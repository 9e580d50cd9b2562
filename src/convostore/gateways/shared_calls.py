"""The calls on one collection that concurrent callers make together."""

from typing import TYPE_CHECKING

from convostore.gateways.shared_finds import SharedFinds
from convostore.gateways.shared_inserts import SharedInserts
from convostore.gateways.shared_reads import SharedReads
from convostore.gateways.shared_updates import SharedUpdates

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway

ONLY_TENANT = ("tenant_id",)


class SharedCalls:
    """What travels together to a collection, each kind of call by itself.

    Attributes:
        reads: of whole documents.
        looks: at whether there is a document, and whose.
        finds: of short runs of documents.
        inserts: of new documents.
        updates: of single documents.
    """

    def __init__(self, gateway: "MongoGateway", collection: str) -> None:
        self.reads = SharedReads(gateway, collection)
        self.looks = SharedReads(gateway, collection, ONLY_TENANT)
        self.finds = SharedFinds(gateway, collection)
        self.inserts = SharedInserts(gateway, collection)
        self.updates = SharedUpdates(gateway, collection)

    async def aclose(self) -> None:
        """Wait for what is under way."""
        for batched in (self.reads, self.looks, self.finds, self.inserts, self.updates):
            await batched.aclose()
