"""What all who use a collection share: the calls that travel together, and the driver's handles on it."""

from typing import TYPE_CHECKING, Any

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.read_concern import ReadConcern

from convostore.gateways.find_command import Finder
from convostore.gateways.shared_finds import SharedFinds
from convostore.gateways.shared_inserts import SharedInserts
from convostore.gateways.shared_reads import SharedReads
from convostore.gateways.shared_updates import SharedUpdates

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway

ONLY_TENANT = ("tenant_id",)


class SharedCalls:
    """What travels together to a collection, each kind of call by itself, and what is dear to make for each tenant.

    Attributes:
        collection: the driver's handle.
        finder: finds what the majority has.
        unsettled: finds what the primary has.
        reads: of whole documents.
        looks: at whether there is a document, and whose.
        finds: of short runs of documents.
        inserts: of new documents.
        updates: of single documents.
    """

    def __init__(self, gateway: "MongoGateway", collection: str) -> None:
        self.collection: AsyncCollection[dict[str, Any]] = gateway.database[collection]
        self.finder = Finder(self.collection)
        self.unsettled = Finder(self.collection.with_options(read_concern=ReadConcern("local")))
        self.reads = SharedReads(gateway, collection)
        self.looks = SharedReads(gateway, collection, ONLY_TENANT)
        self.finds = SharedFinds(gateway, collection)
        self.inserts = SharedInserts(gateway, collection)
        self.updates = SharedUpdates(gateway, collection)

    async def aclose(self) -> None:
        """Wait for what is under way."""
        for batched in (self.reads, self.looks, self.finds, self.inserts, self.updates):
            await batched.aclose()
