"""What all calls on one collection that concurrent callers make together have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pymongo.asynchronous.collection import AsyncCollection

from convostore.gateways.batching import Batcher
from convostore.gateways.flights import BatchLimits
from convostore.gateways.translation import DATABASE
from convostore.repositories.exceptions import RepositoryError

if TYPE_CHECKING:
    from convostore.gateways.mongo_gateway import MongoGateway

Stored = dict[str, Any]
Item = TypeVar("Item")
Result = TypeVar("Result")


class Shared(ABC, Generic[Item, Result]):
    """Calls of one kind on one collection.

    Args:
        gateway: carries out the operations.
        name: of the collection.
        limits: how much travels together.
        subject: what an item concerns, where somebody else may hold that up.
    """

    def __init__(
        self,
        gateway: "MongoGateway",
        name: str,
        limits: BatchLimits | None = None,
        subject: Callable[[Item], Hashable] | None = None,
    ) -> None:
        self._gateway = gateway
        self._name = name
        self._collection: AsyncCollection[Stored] = gateway.database[name]
        self._batcher: Batcher[Item, Result] = Batcher(self._send, DATABASE, gateway.deadline, limits, subject)

    @abstractmethod
    async def _send(self, items: Sequence[Item], /) -> Sequence[Result | RepositoryError]:
        """Carry out a batch, as ``Batcher`` asks for it."""

    async def aclose(self) -> None:
        """Wait for what is under way."""
        await self._batcher.aclose()
